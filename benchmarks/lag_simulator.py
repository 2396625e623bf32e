"""A simulated queue and its statistics as RabbitMQ reports them, so that the true lag is known.

Time goes in tenths of a second. Counts of messages are taken every five seconds. Depths are taken every
five seconds, too, at a moment of the queue's own, and are shown with the next counts: a scrape sees counts
up to five seconds old with depths up to ten seconds old, as on a broker as it is installed.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from bts_collectors.rabbitmq.api.models import Arguments, MessageStats, Queue

#: Interval of the statistics, in tenths of a second.
INTERVAL = 50
#: Maximum age of the statistics that a scrape gets, in tenths of a second.
OLDEST = 2 * INTERVAL


class Message(NamedTuple):
    """A message with its position and time of arrival."""

    place: int
    since: int


@dataclass
class Counts:
    """The broker's cumulative counts of a queue; each is absent before its first event."""

    publish: int = 0
    deliver_get: int = 0
    redeliver: int = 0
    ack: int = 0


class Depth(NamedTuple):
    """The depth of the queue at one moment."""

    ready: int
    unacked: int
    #: Timestamp set by the publisher of the oldest unacknowledged message.
    head: int | None


@dataclass
class SimulatedQueue:
    """A queue with its settings, its messages and their history."""

    ttl: int | None = None
    max_length: int | None = None
    overflow: str = "drop-head"
    priorities: bool = False
    #: Error of the publishers' clocks in tenths of a second; None: messages have no timestamp.
    skew: int | None = None
    #: Receives messages that are rejected, expired or dropped.
    dead_letters: Callable[[int], None] | None = None
    consumers: int = 1
    phase: int = 0
    counts: Counts = field(default_factory=Counts)
    #: Counts from before the broker lost its statistics.
    _lost: Counts = field(default_factory=Counts)
    #: Resets of the counts so far, and at the time of the shown counts.
    resets: int = 0
    shown_resets: int = 0
    _waiting: deque[Message] = field(default_factory=deque)
    _unacked: list[Message] = field(default_factory=list)
    _delivered: set[int] = field(default_factory=set)
    _place: int = 0
    _now: int = 0
    #: For each tenth of a second, the age of the oldest ready message; 0 if there is none.
    ages: list[int] = field(default_factory=list)
    waited: list[bool] = field(default_factory=list)
    _shown: list[tuple[int, Counts, Depth]] = field(default_factory=list)
    _depths: list[tuple[int, Depth]] = field(default_factory=list)

    # Events in the current tenth of a second.

    def publish(self, count: int, *, counted: bool = True) -> None:
        """Add messages; dead letters of other queues are not counted."""
        for _ in range(count):
            self.counts.publish += counted
            if self.max_length is not None and len(self._waiting) >= self.max_length:
                if self.overflow != "drop-head":
                    continue
                self._waiting.popleft()
                self._leave(1)
            self._waiting.append(Message(self._place, self._now))
            self._place += 1

    def take(self, count: int, random: Random | None = None) -> int:
        """Deliver messages, the oldest first, or random ones with priorities. Return how many."""
        count = min(count, len(self._waiting))
        for _ in range(count):
            if random is not None and self.priorities:
                index = random.randrange(len(self._waiting))
                message = self._waiting[index]
                del self._waiting[index]
            else:
                message = self._waiting.popleft()
            self.counts.deliver_get += 1
            self.counts.redeliver += message.place in self._delivered
            self._delivered.add(message.place)
            self._unacked.append(message)
        return count

    def acknowledge(self, count: int | None = None) -> None:
        """Acknowledge the first delivered messages, all without `count`."""
        done = len(self._unacked) if count is None else min(count, len(self._unacked))
        self.counts.ack += done
        for message in self._unacked[:done]:
            self._delivered.discard(message.place)
        del self._unacked[:done]

    def consume(self, count: int, random: Random | None = None) -> None:
        """Deliver and acknowledge."""
        self.take(count, random)
        self.acknowledge()

    def reject(self, count: int | None = None) -> None:
        """Reject the first delivered messages without requeueing them."""
        gone = len(self._unacked) if count is None else min(count, len(self._unacked))
        del self._unacked[:gone]
        self._leave(gone)

    def requeue(self) -> None:
        """Return unacknowledged messages to their positions: the consumer failed."""
        waiting = list(self._waiting)
        for message in self._unacked:
            insort(waiting, message)
        self._waiting = deque(waiting)
        self._unacked.clear()

    def purge(self) -> None:
        """Remove all ready messages."""
        self._waiting.clear()

    def forget(self) -> None:
        """Reset the counts, as a restart of the broker does."""
        self.requeue()
        self.counts = Counts()
        self._lost = Counts()
        self.resets += 1

    def lose_statistics(self, *fields: str) -> None:
        """Show these counts from zero, as after a reset of the statistics or a restart of the management plugin.

        Those of open channels return as they were.
        """
        for name in fields:
            setattr(self._lost, name, getattr(self.counts, name))
        self.resets += 1

    def remake(self) -> None:
        """Delete and recreate the queue."""
        self._waiting.clear()
        self._unacked.clear()
        self.counts = Counts()
        self._lost = Counts()
        self.resets += 1

    def tick(self) -> None:
        """End the tenth of a second: expire messages, record the true lag, update the statistics."""
        while self.ttl and self._waiting and self._now - self._waiting[0].since >= self.ttl:
            self._waiting.popleft()
            self._leave(1)
        oldest = self._waiting[0].since if self._waiting else self._now
        self.ages.append(self._now - oldest)
        self.waited.append(bool(self._waiting))
        if self._now % INTERVAL == self.phase:
            self._depths.append((self._now, self._depth()))
        if self._now % INTERVAL == 0 and self._depths:
            lost = vars(self._lost)
            counts = Counts(**{name: n - lost[name] for name, n in vars(self.counts).items()})
            self.shown_resets = self.resets
            self._shown.append((self._now, counts, self._depths[-1][1]))
        self._now += 1

    # Views of the queue.

    def shown(self) -> Queue | None:
        """Return the broker's current statistics; None before the first ones."""
        if not self._shown:
            return None
        _, counts, depth = self._shown[-1]
        arguments = Arguments(
            max_length=self.max_length,
            overflow=self.overflow,
            message_ttl=None if self.ttl is None else self.ttl * 100,
            max_priority=10 if self.priorities else None,
        )
        return Queue(
            name="q",
            vhost="/",
            type="classic",
            state="running",
            consumers=self.consumers,
            arguments=arguments,
            messages_ready=depth.ready,
            messages_unacknowledged=depth.unacked,
            head_message_timestamp=None if depth.head is None else EPOCH + depth.head // 10,
            message_stats=_stats(counts),
        )

    def truths(self, slack: int = 0) -> tuple[float, float]:
        """Return the least and the greatest true age, in seconds, of the time that is shown.

        A lag is of some moment in it, and has grown since then.
        """
        first = max(len(self.ages) - 1 - OLDEST - slack, 0)
        now = len(self.ages) - 1
        ages = [
            (age + (now - first - index if self.waited[first + index] else 0)) / 10
            for index, age in enumerate(self.ages[first:])
        ]
        return min([self.ages[-1] / 10, *ages]), max(ages)

    @property
    def true_age(self) -> float:
        """Return the age of the oldest ready message, in seconds."""
        return self.ages[-1] / 10

    def waited_lately(self) -> bool:
        """Return whether there were ready messages during all of the time that the statistics cover."""
        return all(self.waited[-OLDEST - 1 :])

    def _depth(self) -> Depth:
        oldest = min([*self._unacked, *list(self._waiting)[:1]], default=None)
        head = None
        if oldest is not None and self.skew is not None:
            head = oldest.since + self.skew
        return Depth(len(self._waiting), len(self._unacked), head)

    def _leave(self, count: int) -> None:
        if self.dead_letters is not None:
            self.dead_letters(count)


#: Unix time of the start of a simulation.
EPOCH = 1_700_000_000


def _stats(counts: Counts) -> MessageStats:
    present: dict[str, Any] = {name: value for name, value in vars(counts).items() if value}
    return MessageStats(**present)
