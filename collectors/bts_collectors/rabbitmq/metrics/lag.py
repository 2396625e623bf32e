"""How far behind the consumers of a queue are: what was seen of it, and what that means."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from math import inf
from time import monotonic
from typing import NamedTuple

from bts_collectors.rabbitmq.api.models import (
    STREAM,
    Key,
    MessageStats,
    Queue,
    is_live,
    known,
)
from bts_collectors.rabbitmq.metrics.message_time import MessageTimes
from bts_collectors.rabbitmq.metrics.queue_limits import NONE, limits_of
from bts_collectors.rabbitmq.metrics.queue_order import (
    DEPTH_DELAY_SECONDS,
    NO_FLOW,
    Depth,
    Flow,
    Order,
)
from bts_exporter import backlog


class Lag(NamedTuple):
    """How far behind the consumers of a queue are; None where that is unknown."""

    #: Of the oldest message that waits for delivery.
    age: backlog.Age | None = None
    #: Seconds until what waits will have been consumed.
    drain: float | None = None


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
                lags[key] = Lag(history.age(queue, ticks, now), history.drain(queue, ticks))
        return lags


class History:
    """What was seen of one queue."""

    __slots__ = ("_before", "_empty", "_idle", "_limits", "_order", "_rate", "_reset", "_times")

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._order: Order | None = None
        #: The order from before the counts began again, until it is known whether it still holds.
        self._before: Order | None = None
        #: When the counts began again.
        self._reset = 0.0
        self._rate: backlog.Rate | None = None
        self._limits = NONE
        self._times: MessageTimes | None = None
        #: When the queue was seen last of which nothing was counted yet, and nothing waited.
        self._idle: float | None = None
        #: What waits came in after this.
        self._empty = -inf

    def drain(self, queue: Queue, now: float) -> float | None:
        """Return in how many seconds what waits will have been consumed at the recent rate."""
        ready, count = known(queue.messages_ready), consumed(queue)
        if count is None:
            self._rate = None
            rate = 0.0 if queue.consumers == 0 else None
        else:
            self._rate = self._rate or backlog.Rate()
            rate = self._rate.observe(now, count)
        if not ready:
            return ready
        return None if rate is None else ready / rate if rate else inf

    def age(self, queue: Queue, now: float, unix: float) -> backlog.Age | None:
        """Return the age of the oldest message that waits, after taking in what is known now.

        What is not known now is unknown, and what was known before is kept. `unix` is the time of
        day at `now`.
        """
        ready = known(queue.messages_ready)
        if ready is None and not is_live(queue):
            return None
        self._limits = limits_of(queue, self._limits)
        if ready == 0 and queue.messages_unacknowledged == 0:
            self._empty = now - DEPTH_DELAY_SECONDS
        age = self._by_counts(queue, ready, now)
        if ready == 0:
            return backlog.Age(0.0, "interpolation")
        if ready is None or self._limits.priorities or queue.head_message_timestamp is None:
            return age
        self._times = self._times or MessageTimes()
        return self._times.refine(queue, age, unix, self._oldest(now))

    def _by_counts(self, queue: Queue, ready: float | None, now: float) -> backlog.Age | None:
        flow = flow_of(queue)
        if flow == NO_FLOW and self._order is not None and self._order.was_counted:
            flow = None  # counts that are missing are not zero
        if flow == NO_FLOW and ready == 0 and self._order is None:
            # As most queues of a large broker are: nothing is kept of it but when that was.
            self._idle = now
            return None
        if flow is not None:
            self._observe(Depth(ready, known(queue.messages_unacknowledged)), flow, now)
        order = self._order
        if not ready or order is None:
            return None
        if flow is None and not (queue.consumers == 0 and order.still_has(ready)):
            return None
        # Where the counts are missing nobody takes anything: what waited before still does. Where
        # they began again, it may be that what waited before does.
        sure = flow is not None and self._before is None
        age = order.age(ready, now, self._limits, sure=sure)
        return None if age is None else self._plausible(age, now)

    def _plausible(self, age: backlog.Age, now: float) -> backlog.Age | None:
        """Return an age as far as the queue was not seen empty since then."""
        if age.method == "lower_bound" and age.seconds >= now - self._empty - DEPTH_DELAY_SECONDS:
            return None  # a bound from before that says nothing of what came later
        seconds = min(age.seconds, self._oldest(now))
        return backlog.Age(seconds, age.method) if seconds > 0 else None

    def _observe(self, depth: Depth, flow: Flow, now: float) -> None:
        """Take in what came in and what went out."""
        if self._order is None and self._idle is not None:
            self._order = Order(0.0, NO_FLOW)
            self._order.observe(Depth(0.0, 0.0), NO_FLOW, self._idle, self._limits)
        if self._order is None:
            self._order = Order(depth.ready, flow)
        elif self._order.fell(flow):
            if depth.ready is None:
                return  # what became of the messages is not known yet
            self._before = self._before or self._order
            self._order, self._reset = Order(depth.ready, flow), now
        for order in (self._order, self._before):
            if order is not None:
                order.observe(depth, flow, now, self._limits)
        if self._before is not None and self._order.excess is not None:
            # More waits than came in since: the broker was started again, and the queue is the same.
            if self._order.excess:
                self._order = self._before
            self._before = None

    def _oldest(self, now: float) -> float:
        """Return how old a message may be at most."""
        ttl = self._limits.ttl
        return now - self._empty if ttl is None else min(now - self._empty, ttl)


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
    published, again = known(stats.publish) or 0.0, known(stats.redeliver) or 0.0
    delivered = (known(stats.deliver_get) or 0.0) - again
    if published or delivered or queue.consumers == 0 or not queue.messages_ready:
        return Flow(published, delivered, again)
    return None
