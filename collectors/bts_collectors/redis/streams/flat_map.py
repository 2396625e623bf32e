"""Replies that are maps written as flat lists: `[name, value, name, value]`."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from bts_collectors.redis.client.connection import Reply
from bts_collectors.redis.client.errors import ReplyShapeError


class FlatMap:
    """Picks the values of certain names; their positions are only searched when the names change."""

    def __init__(self, *names: bytes) -> None:
        """Take the names to pick, at least two."""
        self._names = names
        #: The names of the latest reply, and the getter for replies with these names.
        self._last: tuple[list[bytes], itemgetter[Any]] = ([], itemgetter(-1))

    def of(self, reply: Reply) -> tuple[Any, ...]:
        """Return the value of each name, None for a missing one; ReplyShapeError if it is not a map."""
        if type(reply) is not list:
            msg = "the fields are not a list"
            raise ReplyShapeError(msg)
        known, pick = self._last
        names = reply[::2]
        if names != known:
            pick = self._getter(names)
            self._last = names, pick
        # A missing name has position -1: the None behind the end.
        values: tuple[Any, ...] = pick([*reply, None])
        return values

    def _getter(self, names: list[Reply]) -> itemgetter[Any]:
        if any(type(name) is not bytes for name in names):
            msg = "the name of a field is not a text"
            raise ReplyShapeError(msg)
        positions = {name: 2 * index + 1 for index, name in enumerate(names)}
        return itemgetter(*[positions.get(name, -1) for name in self._names])
