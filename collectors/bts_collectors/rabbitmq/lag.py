"""How far behind the consumers of a queue are, from counts that RabbitMQ takes at different times.

The depth of a queue may be ten seconds older than the counts of messages published and delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import pairwise
from math import inf
from time import monotonic
from typing import NamedTuple

from bts_collectors.rabbitmq.queues import head_timestamp
from bts_collectors.rabbitmq.shapes import CLASSIC, STREAM, Key, MessageStats, Queue, known
from bts_exporter import backlog

#: How much older than the counts a depth may be, in seconds: two intervals of the broker's statistics.
DEPTH_DELAY = 10.0


class Lag(NamedTuple):
    """How far behind the consumers of a queue are; None where that is unknown."""

    #: Of the oldest message that waits for delivery.
    age: backlog.Age | None = None
    #: Seconds until what waits will have been consumed.
    drain: float | None = None


class Flow(NamedTuple):
    """The broker's counts of the messages that came in, and of those delivered, each once."""

    published: float
    delivered: float


class Lags:
    """The lags of all queues; what is known of them grows with each collection."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Begin without any; `clock` never goes back."""
        self._clock = clock
        self._histories: dict[Key, History] = {}

    def observe(
        self, queues: Iterable[Queue], now: float, unlisted: Collection[str] = ()
    ) -> dict[Key, Lag]:
        """Return the lag of each queue; `now` is Unix time.

        A queue that is not among `queues` is forgotten, unless its virtual host is `unlisted`.
        """
        ticks = self._clock()
        before = self._histories
        self._histories = {key: before[key] for key in before if key[0] in unlisted}
        lags = {}
        for queue in queues:
            if queue.type != STREAM:
                key = (queue.vhost, queue.name)
                history = self._histories[key] = before.get(key) or History()
                age = exacter(queue, history.age(queue, ticks), now)
                lags[key] = Lag(age, history.drain(queue, ticks))
        return lags


class History:
    """What was seen of one queue."""

    __slots__ = ("_empty", "_order", "_rate", "_timeline")

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._order: Order | None = None
        self._timeline = backlog.Timeline()
        self._rate = backlog.Rate()
        #: What waits came in after this.
        self._empty = -inf

    def drain(self, queue: Queue, now: float) -> float | None:
        """Return in how many seconds what waits will have been consumed at the recent rate."""
        ready, count = known(queue.messages_ready), consumed(queue)
        if count is None:
            self._rate = backlog.Rate()
            rate = 0.0 if queue.consumers == 0 else None
        else:
            rate = self._rate.observe(now, count)
        if not ready:
            return ready
        return None if rate is None else ready / rate if rate else inf

    def age(self, queue: Queue, now: float) -> backlog.Age | None:
        """Return the age of the oldest message that waits, after taking in what is known now."""
        ready = known(queue.messages_ready)
        if ready is None and queue.state not in {None, "running"}:
            return None
        if ready == 0 and queue.messages_unacknowledged == 0:
            self._empty = now - DEPTH_DELAY
        flow = flow_of(queue)
        if flow is None:
            self._order = None
            return None
        if self._order is None or not self._order.precedes(flow):
            self._order = Order(ready, flow)
            self._timeline = backlog.Timeline()
        self._order.observe(ready, flow, now)
        self._timeline.observe(now, self._order.arrived)
        if not ready:
            return None if ready is None else backlog.Age(0.0, "interpolation")
        age = self._timeline.age(self._order.head, now)
        oldest = backlog.Age(now - self._empty, "interpolation")
        return None if age is None else min(age, oldest)


class Order:
    """Messages in the order in which they came in, and where in it the oldest is that waits."""

    __slots__ = ("_flow", "_looks", "_missing", "_taken", "arrived")

    def __init__(self, ready: float | None, flow: Flow) -> None:
        """Begin with the messages that wait."""
        self._flow = flow
        waiting = max(flow.published - flow.delivered, 0.0)
        #: Messages that came in: those that waited at the beginning, and since then.
        self.arrived = waiting if flow.published or ready is None else ready
        #: Messages delivered since the beginning, each once.
        self._taken = 0.0
        #: Messages that came in and neither wait nor were delivered: they expired, or the queue
        #: was purged. Negative where delivered ones wait again, or where some came in uncounted.
        self._missing = 0.0
        #: When so many had arrived, and so many had been taken.
        self._looks: list[tuple[float, float, float]] = []

    @property
    def head(self) -> float:
        """Return how many came in before the oldest that waits."""
        return self._taken + self._missing

    def precedes(self, flow: Flow) -> bool:
        """Return whether `flow` may be later: counts begin anew with a broker, and with a queue."""
        before = self._flow
        return before.published <= flow.published and before.delivered <= flow.delivered

    def observe(self, ready: float | None, flow: Flow, now: float) -> None:
        """Take in what came in and what went out."""
        self._taken += flow.delivered - self._flow.delivered
        if flow.published:
            self.arrived += flow.published - self._flow.published
        elif ready is not None:
            # Dead letters are counted nowhere else than in the depth.
            self.arrived = max(self.arrived, self.head + ready)
        self._flow = flow
        self._looks.append((now, self.arrived, self._taken))
        while len(self._looks) > 1 and self._looks[1][0] <= now - DEPTH_DELAY:
            del self._looks[0]
        if ready is not None and self._looks[0][0] <= now - DEPTH_DELAY:
            self._check(ready)

    def _check(self, ready: float) -> None:
        """Let others be missing if the queue was never as deep, whatever came first between looks."""
        pairs = list(pairwise(self._looks))
        least = min(before[1] - after[2] for before, after in pairs)
        most = max(after[1] - before[2] for before, after in pairs)
        if not least <= ready + self._missing <= most:
            self._missing = (least + most) / 2 - ready


def exacter(queue: Queue, age: backlog.Age | None, now: float) -> backlog.Age | None:
    """Return the more exact of `age` and that by the message's own time; `now` is Unix time.

    The time is that of the oldest message which is not acknowledged: it may not wait any more.
    """
    published = head_timestamp(queue) if queue.type == CLASSIC else None
    if published is None or queue.messages_ready == 0:
        return age
    by_time = backlog.Age(max(now - published, 0.0), "message_time")
    if age is None or age.method == "lower_bound" or queue.messages_unacknowledged == 0:
        return by_time
    return min(age, by_time)


def consumed(queue: Queue) -> float | None:
    """Return how many messages were taken out of the queue for good; None if none are counted."""
    stats = queue.message_stats
    if not isinstance(stats, MessageStats):
        return None
    counts = [known(count) for count in (stats.ack, stats.deliver_no_ack, stats.get_no_ack)]
    there = [count for count in counts if count is not None]
    return sum(there) if there else None


def flow_of(queue: Queue) -> Flow | None:
    """Return the counts of a queue, None where messages go over protocols not counted by queue."""
    stats = queue.message_stats
    if not isinstance(stats, MessageStats):
        stats = MessageStats()
    published = known(stats.publish) or 0.0
    delivered = (known(stats.deliver_get) or 0.0) - (known(stats.redeliver) or 0.0)
    if published or delivered or queue.consumers == 0 or not queue.messages_ready:
        return Flow(published, delivered)
    return None
