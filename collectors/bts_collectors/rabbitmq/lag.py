"""How far behind the consumers of a queue are, from counts that RabbitMQ takes at different times.

The depth of a queue may be ten seconds older than the counts of messages published and delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import pairwise
from math import inf
from time import monotonic
from typing import NamedTuple

from bts_collectors.rabbitmq.messagetime import MessageTimes
from bts_collectors.rabbitmq.queuelimits import NONE, Limits, limits_of
from bts_collectors.rabbitmq.shapes import (
    STREAM,
    Key,
    MessageStats,
    Queue,
    is_live,
    known,
)
from bts_exporter import backlog

#: How much older than the counts a depth may be, in seconds: two intervals of the broker's statistics.
DEPTH_DELAY = 10.0
#: A message came in between two observations: farther apart than these seconds, nobody knows when.
LONGEST_GAP = 90.0
#: The part of what waited that must still be there for it to be the same queue.
KEPT = 0.9
#: Seconds after which a queue that was at its limit refuses no more messages.
LATELY = 3 * DEPTH_DELAY
#: The part of its limit from which on a queue may refuse messages.
FULL = 0.98


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
    #: Deliveries of messages that had been delivered before.
    again: float = 0.0


NO_FLOW = Flow(0.0, 0.0)


class Depth(NamedTuple):
    """Messages that wait, and those that are with consumers, as of some seconds ago."""

    ready: float | None
    unacked: float | None


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

    __slots__ = ("_empty", "_limits", "_order", "_rate", "_timeline", "_times")

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._order: Order | None = None
        self._timeline = backlog.Timeline()
        self._rate = backlog.Rate()
        self._limits = NONE
        self._times = MessageTimes()
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
            self._empty = now - DEPTH_DELAY
        age = self._by_counts(queue, ready, now)
        if ready == 0:
            return backlog.Age(0.0, "interpolation")
        if ready is None or self._limits.priorities:
            return age
        return self._times.refine(queue, age, unix, now - self._empty)

    def _by_counts(self, queue: Queue, ready: float | None, now: float) -> backlog.Age | None:
        flow = flow_of(queue)
        if flow == NO_FLOW and self._order is not None and self._order.was_counted:
            flow = None  # counts that are missing are not zero
        if flow is not None:
            self._observe(ready, known(queue.messages_unacknowledged), flow, now)
        if not ready or self._order is None:
            return None
        if flow is not None:
            return self._bounded(self._order, now)
        if queue.consumers == 0 and self._order.still_has(ready):
            # Nobody takes anything: what waited before the counts went missing still does.
            age = self._bounded(self._order, now)
            return None if age is None else age._replace(method="lower_bound")
        return None

    def _observe(self, ready: float | None, unacked: float | None, flow: Flow, now: float) -> None:
        order = self._order
        if order is not None and order.fell(flow) and ready is None:
            return  # what became of the messages is not known yet
        if order is None or (order.fell(flow) and order.is_another(ready or 0.0, flow)):
            if order is not None:  # what is in the new one came in since the last look
                self._empty = max(self._empty, order.seen)
            order = self._order = Order(ready, flow, now)
            self._timeline = backlog.Timeline()
        expired = None
        if self._limits.ttl is not None:
            # Where only the depth tells what came in, it is older than now.
            late = 0.0 if flow.published else DEPTH_DELAY / 2
            expired = self._timeline.count(now - late - self._limits.ttl)
        order.observe(Depth(ready, unacked), flow, now, self._limits, expired or 0.0)
        self._timeline.observe(now, order.arrived)

    def _bounded(self, order: Order, now: float) -> backlog.Age | None:
        """Return the age by the counts, as far as nothing else contradicts it."""
        head = order.head
        if head >= order.arrived:
            if order.is_exact and order.is_checked:
                return backlog.Age(0.0, "interpolation")  # what the older depth shows was delivered
            head = order.arrived - 1  # if anything waits, it is as old as the newest
        age = self._timeline.age(head, now)
        if age is None:
            return None
        window = self._timeline.window(head)
        if window is not None and window[1] - window[0] > LONGEST_GAP:
            # Nobody looked, or there were no counts: it came in some time between.
            age = backlog.Age(now - window[1], "lower_bound")
        if self._limits.priorities:
            # Those with a higher one overtook it: it is at least as old as if they had not.
            age = age._replace(method="lower_bound")
        seconds = min(age.seconds, now - self._empty)
        if self._limits.ttl is not None:
            seconds = min(seconds, self._limits.ttl)
        return age._replace(seconds=seconds) if seconds > 0 else None


class Order:
    """Messages in the order in which they came in, and where in it the oldest is that waits."""

    __slots__ = (
        "_again",
        "_flow",
        "_full",
        "_in",
        "_looks",
        "_missing",
        "_out",
        "_tail",
        "_unacked",
        "arrived",
        "is_checked",
        "is_exact",
        "seen",
    )

    def __init__(self, ready: float | None, flow: Flow, now: float) -> None:
        """Begin with the messages that wait."""
        self._flow = flow
        waiting = max(flow.published - flow.delivered, 0.0)
        #: Messages that came in by the counts: those that waited at the beginning, and since then.
        self._in = waiting if flow.published or ready is None else ready
        #: Messages delivered since the beginning, each once.
        self._out = 0.0
        #: Messages that left uncounted: they expired, were dropped, or the queue was purged.
        #: Negative where delivered ones wait again.
        self._missing = 0.0
        #: Messages that came in uncounted, as dead letters do; negative where counted ones were
        #: refused.
        self._tail = 0.0
        self._unacked = 0.0
        #: When messages were delivered for the second time last.
        self._again = -inf
        #: When the queue was at its limit last.
        self._full = -inf
        #: Whether the depth was compared with the counts, and never contradicted them.
        self.is_checked = False
        self.is_exact = True
        #: When so many had come in, and so many had left.
        self._looks: list[tuple[float, float, float]] = []
        #: Messages that came in; it never falls.
        self.arrived = self._in
        #: When it was observed last.
        self.seen = now

    @property
    def head(self) -> float:
        """Return how many came in before the oldest that waits."""
        return min(self._out + self._missing, self.arrived)

    @property
    def was_counted(self) -> bool:
        """Return whether the broker counted anything so far."""
        return self._flow != NO_FLOW

    def still_has(self, ready: float) -> bool:
        """Return whether all that waited may still do so."""
        return self.is_checked and ready >= self.arrived - self.head > 0

    def fell(self, flow: Flow) -> bool:
        """Return whether the counts begin again: the broker was restarted, or the queue made again."""
        before = self._flow
        return flow.published < before.published or flow.delivered < before.delivered

    def is_another(self, ready: float, flow: Flow) -> bool:
        """Return whether counts that begin again are those of a queue made again.

        With the broker they begin again, too: then what waited before still does.
        """
        since = max(flow.published - flow.delivered, 0.0)
        return ready <= since or ready < KEPT * (self.arrived - self.head)

    def observe(
        self, depth: Depth, flow: Flow, now: float, limits: Limits = NONE, expired: float = 0.0
    ) -> None:
        """Take in what came in and what went out; the first `expired` that came in are gone."""
        ready, unacked = depth
        before = NO_FLOW if self.fell(flow) else self._flow
        self._out += flow.delivered - before.delivered
        self._in += flow.published - before.published
        if flow.again > before.again:
            self._again = now
        self._missing += max(expired - self.head, 0.0)
        self._flow = flow
        self._keep_within(limits, now)
        if not flow.published and ready is not None:
            # Dead letters are counted nowhere else than in the depth.
            self._tail += max(self._out + self._missing + ready - self._in - self._tail, 0.0)
        if limits.length is not None and (ready or 0.0) >= FULL * limits.length:
            self._full = now
        self._looks.append((now, self._in + self._tail, self._out + self._missing))
        while len(self._looks) > 1 and self._looks[1][0] <= now - DEPTH_DELAY:
            del self._looks[0]
        self.is_checked = self._looks[0][0] <= now - DEPTH_DELAY
        if ready is not None and self.is_checked:
            self._check(ready, unacked or 0.0, limits)
        self._unacked = max(unacked or 0.0, self._unacked if unacked is None else 0.0)
        self.arrived = max(self.arrived, self._in + self._tail)
        self.seen = now

    def _keep_within(self, limits: Limits, now: float) -> None:
        """Let no more wait than the queue takes: the oldest are dropped, or the newest refused."""
        if limits.length is None:
            return
        excess = self._in + self._tail - self._out - self._missing - limits.length
        if excess > 0 and limits.rejects:
            self._tail -= excess
            self._full = now
        elif excess > 0:
            self._missing += excess

    def _check(self, ready: float, unacked: float, limits: Limits) -> None:
        """Believe the depth if the queue was never as deep, whatever came first between looks."""
        pairs = list(pairwise(self._looks))
        least = min(before[1] - after[2] for before, after in pairs)
        most = max(after[1] - before[2] for before, after in pairs)
        if least <= ready <= most:
            return
        self.is_exact = False
        more = ready - least
        if more > 0 or -more > most - least:  # a little less is no more than that
            more = ready - (least + most) / 2
        now = self._looks[-1][0]
        if more > 0:  # what was delivered waits again, or some came in uncounted
            recently = now - self._again <= LATELY
            back = more if recently else min(more, max(self._unacked - unacked, 0.0))
            self._shift(more - back, -back)
        elif limits.rejects and now - self._full <= LATELY:
            self._shift(more, 0.0)
        else:
            self._shift(0.0, -more)

    def _shift(self, tail: float, missing: float) -> None:
        """Count messages that came in or left some time before the looks that are kept."""
        self._tail += tail
        self._missing += missing
        self._looks = [(then, came + tail, went + missing) for then, came, went in self._looks]


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
