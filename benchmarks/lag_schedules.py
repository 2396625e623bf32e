"""What happens to the queues of the measurement of lags, and what was true at every moment."""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

#: Messages per second, by the share of the run that has passed.
Speed = Callable[[float], float]


@dataclass(frozen=True)
class Schedule:
    """How a queue is used; times are shares of the run."""

    name: str
    publish: Speed
    consume: Speed
    consumers: int = 1
    #: When the queue is emptied, or deleted and created again.
    purges: tuple[float, ...] = ()
    redeclarations: tuple[float, ...] = ()
    #: When a consumer takes messages that it returns after a while.
    requeues: tuple[float, ...] = ()
    #: How long messages live.
    ttl: float | None = None
    #: Whether every second delivered message is moved to another queue.
    dead_letters: bool = False


SCHEDULES = (
    Schedule("steady", lambda _: 4, lambda _: 3.5),
    Schedule("burst", lambda at: 30 if at % 0.5 < 0.06 else 0, lambda _: 5),
    Schedule("stopped", lambda _: 4, lambda at: 0 if 0.2 < at < 0.5 else 12),
    Schedule("slow", lambda _: 4, lambda _: 1),
    Schedule("several", lambda _: 6, lambda at: 7 if at > 0.5 else 5, consumers=3),
    Schedule("purge", lambda _: 4, lambda _: 1, purges=(0.4, 0.75)),
    Schedule("ttl", lambda at: 4 if at < 0.8 else 0, lambda _: 1, ttl=0.12),
    Schedule("requeue", lambda _: 4, lambda _: 2, requeues=(0.2, 0.4, 0.6, 0.8)),
    Schedule("dead-letter", lambda _: 4, lambda _: 3, dead_letters=True),
    Schedule("redeclare", lambda _: 4, lambda _: 1, redeclarations=(0.5,)),
)


class Bounds(NamedTuple):
    """The least and the greatest correct answer about a queue."""

    least: float
    most: float


class Truth:
    """When the messages of one queue arrived and left; one thread writes, another reads."""

    def __init__(self, now: float) -> None:
        self._lock = threading.Lock()
        self._arrivals: list[float] = []
        self._heap: list[int] = []
        self._waiting: set[int] = set()
        #: Arrival of the oldest waiting message, since a time; None if none waits.
        self._heads: list[tuple[float, float | None]] = [(now, None)]

    @property
    def waiting(self) -> int:
        """Return how many messages wait."""
        return len(self._waiting)

    def arrive(self, now: float) -> int:
        """Note a new message; return its number."""
        with self._lock:
            self._arrivals.append(now)
            number = len(self._arrivals) - 1
            self._add(number, now)
            return number

    def leave(self, number: int, now: float) -> None:
        """Note that a message was delivered, or is gone."""
        with self._lock:
            self._waiting.discard(number)
            self._note(now)

    def give_back(self, number: int, now: float) -> None:
        """Note that a delivered message waits again, at its old position."""
        with self._lock:
            self._add(number, now)

    def clear(self, now: float) -> None:
        """Note that no message waits any more."""
        with self._lock:
            self._waiting.clear()
            self._note(now)

    def expire(self, before: float, now: float) -> list[int]:
        """Note that the messages that arrived before a time are gone; return their numbers."""
        with self._lock:
            gone = [number for number in self._waiting if self._arrivals[number] < before]
            if gone:
                self._waiting.difference_update(gone)
                self._note(now)
            return gone

    def age(self, now: float) -> float:
        """Return the age of the oldest message that waited at `now`; 0 if none did."""
        with self._lock:
            index = bisect_right(self._heads, now, key=lambda head: head[0]) - 1
            arrival = self._heads[max(index, 0)][1]
        return 0.0 if arrival is None else now - arrival

    def bounds(self, since: float, now: float) -> Bounds:
        """Return what may be said at `now` by who looked at any time from `since` on.

        A message that waited then may be said to have waited until now.
        """
        with self._lock:
            first = max(bisect_right(self._heads, since, key=lambda head: head[0]) - 1, 0)
            last = bisect_right(self._heads, now, key=lambda head: head[0])
            shown = self._heads[first:last]
        seen: list[float] = []
        for (begin, arrival), (end, _) in zip(shown, [*shown[1:], (now, None)], strict=True):
            if arrival is None:
                seen.append(0.0)
            else:
                seen += [max(begin, since) - arrival, end - arrival, now - arrival]
        return Bounds(min(seen, default=0.0), max(seen, default=0.0))

    def _add(self, number: int, now: float) -> None:
        self._waiting.add(number)
        heapq.heappush(self._heap, number)
        self._note(now)

    def _note(self, now: float) -> None:
        while self._heap and self._heap[0] not in self._waiting:
            heapq.heappop(self._heap)
        head = self._arrivals[self._heap[0]] if self._heap else None
        if head != self._heads[-1][1]:
            self._heads.append((now, head))
