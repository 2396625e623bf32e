"""How long the oldest pending entry of a group has been with its consumer, and whether others have it for longer."""

from __future__ import annotations

from bts_collectors.redis.streams.state import Id
from bts_exporter import backlog

#: Seconds by which two idle times may differ from the time between them, because clocks differ.
_TOLERANCE = 1.0
#: Seconds: the age of an entry that was delivered at this moment. 0 would mean that no entry is pending.
_LEAST = 0.001


class Held:
    """The pending entry with the lowest id, as it was in the previous scrape.

    Entries are first delivered in the order of their ids. So the one with the lowest id was delivered
    first, unless it was delivered again, or the group was set back.
    """

    __slots__ = ("_deliveries", "_entry", "_is_ordered", "_since")

    def __init__(self) -> None:
        """Begin without a pending entry."""
        self._entry: Id | None = None
        self._deliveries = 0
        #: When the entry was delivered (monotonic).
        self._since = 0.0
        self._is_ordered = True

    def clear(self) -> None:
        """Note that no entry is pending."""
        self._entry, self._is_ordered = None, True

    def age(
        self, entry: Id, idle_seconds: float, deliveries: int, now: float, *, is_only: bool
    ) -> backlog.Age:
        """Return the time since the delivery of the entry that was delivered first; `now` is monotonic.

        It is a lower bound if the order of deliveries is unknown, unless the entry is the only one.
        """
        since = now - idle_seconds
        if self._entry is not None:
            # XCLAIM and XAUTOCLAIM with JUSTID start the idle time again, and do not count a delivery.
            claimed = entry == self._entry and deliveries == self._deliveries
            if entry < self._entry or (claimed and since - self._since > _TOLERANCE):
                self._is_ordered = False
        self._entry, self._deliveries, self._since = entry, deliveries, since
        is_first = deliveries == 1 and self._is_ordered
        seconds = max(idle_seconds, _LEAST)
        if is_first or is_only:
            return backlog.Age(seconds, "delivery_time")
        return backlog.Age(seconds, "lower_bound")
