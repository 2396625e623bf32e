"""How long the oldest pending entry of a group has been with its consumer, and whether others have it for longer."""

from __future__ import annotations

from typing import NamedTuple

from bts_collectors.redis.streams.state import Id
from bts_exporter import backlog

#: Seconds by which two idle times may differ from the time between them, because clocks differ.
_TOLERANCE = 1.0
#: Seconds: the age of an entry that was delivered at this moment. 0 would mean that no entry is pending.
_LEAST = 0.001


class Pending(NamedTuple):
    """A pending entry: its id, the seconds since its latest delivery, and its deliveries."""

    entry: Id
    idle_seconds: float
    deliveries: int


class Held:
    """The pending entry with the lowest id, as it was in the previous scrape.

    Entries are first delivered in the order of their ids. So the one with the lowest id was delivered
    first, unless it was delivered again, or a client moved the group.
    """

    __slots__ = ("_deliveries", "_entry", "_moves", "_ordered_after", "_since")

    def __init__(self, moves: int | None = 0) -> None:
        """Begin without a pending entry, when clients had moved groups `moves` times; None if unknown."""
        self._entry: Id | None = None
        self._deliveries = 0
        #: When the entry was delivered (monotonic).
        self._since = 0.0
        self._moves = moves
        #: Entries with higher ids were first delivered in their order.
        self._ordered_after: Id = (-1, 0)

    def clear(self, moves: int | None) -> None:
        """Note that no entry is pending."""
        self._entry, self._moves, self._ordered_after = None, moves, (-1, 0)

    def age(
        self, oldest: Pending, now: float, last: Id, moves: int | None, *, is_only: bool
    ) -> backlog.Age:
        """Return the time since the delivery of the entry that was delivered first; `now` is monotonic.

        `last` is the last id of stream and group. The age is a lower bound if the order of deliveries is
        unknown, unless the entry is the only one.
        """
        entry, idle_seconds, deliveries = oldest
        since = now - idle_seconds
        was_moved = moves is not None and moves != self._moves
        if was_moved or self._is_out_of_order(entry, deliveries, since):
            self._ordered_after = last
        self._entry, self._deliveries = entry, deliveries
        self._since, self._moves = since, moves
        seconds = max(idle_seconds, _LEAST)
        is_first = deliveries == 1 and entry > self._ordered_after
        if is_first or is_only:
            return backlog.Age(seconds, "delivery_time")
        return backlog.Age(seconds, "lower_bound")

    def _is_out_of_order(self, entry: Id, deliveries: int, since: float) -> bool:
        """Return whether entries were delivered in another order since the previous scrape."""
        if self._entry is None:
            return False
        # XCLAIM and XAUTOCLAIM with JUSTID start the idle time again, and do not count a delivery.
        is_same = entry == self._entry and deliveries == self._deliveries
        return entry < self._entry or (is_same and since - self._since > _TOLERANCE)
