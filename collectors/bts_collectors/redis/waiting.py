"""What was seen of a queue limits what the time of its first message may claim."""

from __future__ import annotations

from typing import Any

from bts_exporter import backlog

#: Seconds by which a message's time may be off without being wrong: clocks are read one after another.
_TOLERANCE = 1.0
#: The age of a message that came at this moment: 0 would say that none waits.
_LEAST = 0.001


class Waiting:
    """When a queue was seen empty last, and which messages were seen waiting since when.

    Messages are told apart by their position: an id, or a time. Positions of one queue compare.
    """

    __slots__ = ("_empty", "_end", "_first", "_last", "_since")

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._empty: float | None = None
        self._end: Any = None
        self._since = 0.0
        self._first: Any = None
        self._last: Any = None

    def clear(self, now: float, end: Any = None) -> None:
        """Note that nothing waits at `now` (monotonic); what comes later has a position behind `end`."""
        self._empty, self._end = now, end
        self._first = self._last = None

    def age(self, now: float, first: Any, last: Any, claimed: float | None) -> backlog.Age | None:
        """Return the age of the message at `first`, which is next; `last` is the newest that waits.

        `claimed` is its age in seconds by its own time, None if that is not known. Where that cannot
        be, the age is at least the time since the message was seen first.
        """
        if self._first is None or not self._first <= first <= self._last:
            self._since, self._first, self._last = now, first, last
        seen = now - self._since
        most = None if self._empty is None else now - self._empty
        if self._end is not None and first <= self._end:
            most = None  # it was there before: the group was set back
        if claimed is not None and (most is None or claimed <= most + _TOLERANCE):
            seconds = claimed if most is None else min(claimed, most)
            return backlog.Age(max(seconds, _LEAST), "message_time")
        return backlog.Age(seen, "lower_bound") if seen > 0 else None
