"""What was seen of a queue: how long its first message can have waited, and how fast it is emptied."""

from __future__ import annotations

from math import inf, isfinite

from bts_collectors.redis.queues.queue_library import Depth
from bts_collectors.redis.streams.lag import age_seconds
from bts_collectors.redis.waiting import Waiting
from bts_exporter import backlog

_NONE_WAITS = backlog.Age(0, "message_time")


class QueueHistory:
    """What was seen of one queue."""

    __slots__ = ("_length", "_rate", "_taken", "_waiting")

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._waiting = Waiting()
        self._length: int | None = None
        #: By how much the queue has become shorter from one look to the next, all in all.
        self._taken = 0
        self._rate: backlog.Rate | None = None

    def age(
        self, depth: Depth, length: int | None, ticks: float, now: int | None
    ) -> backlog.Age | None:
        """Return the age of the message that is next; None where it is not known.

        `length` is how many wait, `ticks` a clock that never goes back, `now` the server's in milliseconds.
        """
        if length == 0:
            self._waiting.clear(ticks)
        if not depth.timed or length is None:
            return None
        if length == 0:
            return _NONE_WAITS
        oldest = depth.oldest
        if oldest is None or not isfinite(oldest):  # the producer writes it
            return None
        claimed = age_seconds((int(oldest * 1000), 0), now)
        return self._waiting.age(ticks, oldest, oldest, claimed)

    def drain(self, length: int | None, ticks: float) -> float | None:
        """Return in how many seconds the queue will be empty at the rate at which it became shorter.

        What came in meanwhile counts against it: a queue that does not become shorter never will be empty.
        """
        before, self._length = self._length, length
        if length is None:
            self._rate = None
            return None
        if length == 0 and self._rate is None:
            return 0
        if self._rate is None or before is None:
            self._rate = backlog.Rate()
        self._taken += max((before or 0) - length, 0)
        rate = self._rate.observe(ticks, self._taken)
        if length == 0:
            return 0
        return None if rate is None else length / rate if rate else inf
