"""A queue from scrape to scrape: the age of its next message, and the time until it is empty."""

from __future__ import annotations

from math import isfinite

from bts_collectors.redis.lists.ages import NO_AGE
from bts_collectors.redis.lists.list_age import ListAge
from bts_collectors.redis.queues.queue_library import Depth
from bts_collectors.redis.streams.lag import age_seconds
from bts_collectors.redis.waiting import Waiting
from bts_exporter import backlog


class QueueHistory:
    """The previous scrapes of one queue."""

    __slots__ = ("_length", "_rate", "_taken", "_waiting", "lists")

    def __init__(self) -> None:
        """Begin without a previous scrape."""
        self._waiting = Waiting()
        self._length: int | None = None
        #: Sum of all decreases of the length from one scrape to the next.
        self._taken = 0
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
        """Return the seconds until the queue is empty, at the rate at which it became shorter.

        New messages hide removed ones: of a queue that does not become shorter, the rate is unknown.
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
        return length / rate if rate else None
