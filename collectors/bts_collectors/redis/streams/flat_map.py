"""Replies of names and values in turns, `[name, value, name, value]`, read by their names."""

from __future__ import annotations

from operator import itemgetter
from typing import Any


class FlatMap:
    """Picks the values of certain names, whose places are looked for only when a server has other ones."""

    def __init__(self, *names: bytes) -> None:
        """Take the names, two at least."""
        self._names = names
        #: The names of the last reply, and what takes the values out of one like it.
        self._last: tuple[list[bytes], itemgetter[Any]] = ([], itemgetter(-1))

    def of(self, reply: list[Any]) -> tuple[Any, ...]:
        """Return the value of each name, None for one that is not there."""
        names, pick = self._last
        found = reply[::2]
        if found != names:
            names = found
            places = {name: 2 * index + 1 for index, name in enumerate(names)}
            pick = itemgetter(*[places.get(name, -1) for name in self._names])
            self._last = names, pick
        # What is not there is taken from behind the end.
        values: tuple[Any, ...] = pick([*reply, None])
        return values
