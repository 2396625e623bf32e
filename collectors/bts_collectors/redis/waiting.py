"""Limits the age of a queue's first message by when the queue was last empty and the message first seen."""

from __future__ import annotations

from typing import Any

from bts_exporter import backlog

#: Seconds by which a message's time may be wrong, because clocks are read one after another.
_TOLERANCE = 1.0
#: Seconds: the age of a message that was added at this moment. 0 would mean that no message waits.
_LEAST = 0.001


class Waiting:
    """When a queue was last empty, and since when its messages were seen.

    Messages are identified by position, an id or a time. Positions of one queue are comparable.
    """

    __slots__ = ("_empty", "_end", "_first", "_last", "_since")

    def __init__(self) -> None:
        """Begin without observations."""
        self._empty: float | None = None
        self._end: Any = None
        self._since = 0.0
        self._first: Any = None
        self._last: Any = None

    def clear(self, now: float, end: Any = None) -> None:
        """Note that the queue is empty at `now` (monotonic); later messages have positions after `end`."""
        self._empty, self._end = now, end
        self._first = self._last = None

    def age(self, now: float, first: Any, last: Any, claimed: float | None) -> backlog.Age | None:
        """Return the age of the next message, at position `first`; `last` is the newest waiting one.

        `claimed` is the age in seconds by the message's own time, None if that is unknown. If it is
        impossible, the age is a lower bound: the time since the message was first seen.
        """
        if self._first is None or not self._first <= first <= self._last:
            self._since, self._first, self._last = now, first, last
        seen = now - self._since
        most = None if self._empty is None else now - self._empty
        if self._end is not None and first <= self._end:
            most = None  # older than the empty queue: the group was set back
        if claimed is not None and (most is None or claimed <= most + _TOLERANCE):
            seconds = claimed if most is None else min(claimed, most)
            return backlog.Age(max(seconds, _LEAST), "message_time")
        return backlog.Age(seen, "lower_bound") if seen > 0 else None
