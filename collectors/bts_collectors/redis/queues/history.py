"""A queue from scrape to scrape: the age of its next message, and the time until it is empty."""

from __future__ import annotations

from math import inf, isfinite

from bts_collectors.redis.lists.ages import NO_AGE
from bts_collectors.redis.lists.list_age import ListAge
from bts_collectors.redis.queues.queue_library import Depth, total
from bts_collectors.redis.streams.lag import age_seconds
from bts_collectors.redis.waiting import Waiting
from bts_exporter import backlog


class QueueHistory:
    """The previous scrapes of one queue."""

    __slots__ = ("_hidden", "_length", "_rate", "_taken", "_waiting", "lists")

    def __init__(self) -> None:
        """Begin without a previous scrape."""
        self._waiting = Waiting()
        self._length: int | None = None
        #: Messages that were removed, as far as they were seen, and when some may not have been seen.
        self._taken = 0
        self._hidden = -inf
        self._rate: backlog.Rate | None = None
        #: The lists whose messages have no time, by key.
        self.lists: dict[bytes, ListAge] = {}

    def age(
        self, depth: Depth, length: int | None, ticks: float, now: int | None
    ) -> backlog.Age | None:
        """Return the age of the next message; None if it is unknown.

        `length` is the number of waiting messages, `ticks` a monotonic clock in seconds, `now` the
        server's clock in milliseconds.
        """
        if length == 0:
            self._waiting.clear(ticks)
        if not depth.timed or length is None:
            return None
        if length == 0:
            return NO_AGE
        oldest = depth.oldest
        if oldest is None or not isfinite(oldest):  # producers write it
            return None
        claimed = age_seconds((int(oldest * 1000), 0), now)
        return self._waiting.age(ticks, oldest, oldest, claimed)

    def drain(self, length: int | None, ticks: float) -> float | None:
        """Return the seconds until the queue is empty, at the rate at which messages were removed.

        Where its lists do not know how many were removed, they are seen if the queue became shorter, and new
        messages hide them: of a queue that does not become shorter, the rate is then unknown.
        """
        before, self._length = self._length, length
        if length is None:
            self._rate = None
            return None
        if length == 0 and self._rate is None:
            return 0
        if self._rate is None or before is None:
            self._rate = backlog.Rate()
        removed = total(each.removed for each in self.lists.values()) if self.lists else None
        if removed is None:
            self._hidden = ticks
        self._taken += max((before or 0) - length, removed or 0)
        rate = self._rate.observe(ticks, self._taken)
        if length == 0:
            return 0
        if rate == 0 and ticks - self._hidden >= 2 * backlog.RATE_SECONDS:
            return inf
        return length / rate if rate else None
