"""The lag of queues in seconds, from the history of their counts and depths."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from math import inf
from time import monotonic
from typing import NamedTuple, Self

import msgspec

from bts_collectors.rabbitmq.api.models import (
    QUORUM,
    STREAM,
    Key,
    MessageStats,
    Queue,
    is_live,
    known,
)
from bts_collectors.rabbitmq.metrics import in_flight, standstill
from bts_collectors.rabbitmq.metrics.in_flight import InFlight
from bts_collectors.rabbitmq.metrics.message_time import MessageTimes
from bts_collectors.rabbitmq.metrics.policy_changes import NO_CHANGES, PolicyChanges
from bts_collectors.rabbitmq.metrics.queue_limits import NO_LIMITS, Limits, limits_of
from bts_collectors.rabbitmq.metrics.queue_order import (
    DEPTH_DELAY_SECONDS,
    MAX_GAP_SECONDS,
    NO_FLOW,
    Depth,
    Flow,
    Order,
    OrderState,
)
from bts_collectors.rabbitmq.metrics.requeued import Requeued
from bts_collectors.rabbitmq.metrics.standstill import Standstill
from bts_collectors.rabbitmq.metrics.stored_times import restored, stored
from bts_exporter import Restored, backlog

#: Queues that are stored; those with the most ready messages first.
MOST_STORED = 10_000


class Lag(NamedTuple):
    """The lag of a queue; None if unknown."""

    #: Age of the oldest ready message.
    age: backlog.Age | None = None
    #: Seconds until the ready messages are consumed, infinite without consumption.
    drain: float | None = None
    #: Time since the oldest delivery that is not acknowledged.
    in_flight: backlog.Age | None = None
    limits: Limits = NO_LIMITS


class HistoryState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The history of one queue as it is stored; the fields are those of the history."""

    vhost: str
    name: str
    order: OrderState | None = None
    before: OrderState | None = None
    may_be_recreated: bool = False
    rate: backlog.RateState | None = None
    limits: Limits = NO_LIMITS
    has_wrong_times: bool | None = None
    empty: float | None = None
    standstill: Standstill | None = None
    is_certain: bool = True
    is_outdated: bool = False
    in_flight: in_flight.InFlightState | None = None
    undelivered: float | None = None
    changes: PolicyChanges = NO_CHANGES


class LagState(msgspec.Struct, frozen=True):
    """The histories of a cluster's queues as they are stored."""

    queues: list[HistoryState]


class Lags:
    """The lags of all queues; each collection adds to their history."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Start without history; `clock` is monotonic, in seconds."""
        self._clock = clock
        self._histories: dict[Key, History] = {}
        #: Returns what was stored for a cluster.
        self.restore: Callable[[str], Restored | None] = lambda _: None
        #: The cluster and the source of its counts; empty while unknown.
        self.identity = ""

    def identify(self, identity: str) -> None:
        """Restore the histories of this cluster; those of another one are dropped."""
        if identity == self.identity:
            return
        if self.identity:
            self._histories.clear()
        self.identity = identity
        found = self.restore(identity)
        if found is not None:
            self._continue(found)

    def save(self) -> LagState:
        """Return what is to be stored, of at most MOST_STORED queues."""
        found = [pair for pair in self._histories.items() if not pair[1].is_new]
        if len(found) > MOST_STORED:
            found.sort(key=lambda pair: -pair[1].ready)
        return LagState([history.save(*key) for key, history in found[:MOST_STORED]])

    def _continue(self, stored: Restored) -> None:
        """Continue stored histories; they go back further than those that there are.

        Without counts, the same depth after a long time may be that of other messages.
        """
        for state in stored.state.queues:
            key = (state.vhost, state.name)
            history = History.restored(state, stored.shift)
            if history.is_counted or stored.downtime <= MAX_GAP_SECONDS:
                self._histories[key] = history

    def observe(
        self, queues: Iterable[Queue], now: float, unlisted: Collection[str] = ()
    ) -> dict[Key, Lag]:
        """Return the lag of each queue; `now` is Unix time.

        The history of a queue that is not in `queues` is dropped, unless its virtual host is `unlisted`.
        """
        monotonic_now = self._clock()
        before = self._histories
        self._histories = {key: before[key] for key in before if key[0] in unlisted}
        lags = {}
        for queue in queues:
            if queue.type != STREAM:
                key = (queue.vhost, queue.name)
                history = self._histories[key] = before.get(key) or History()
                lags[key] = Lag(
                    history.age(queue, monotonic_now, now),
                    history.drain(queue, monotonic_now),
                    history.in_flight(queue, monotonic_now),
                    history.limits,
                )
        return lags


class History:
    """The observations of one queue."""

    __slots__ = (
        "_before",
        "_changes",
        "_empty",
        "_idle",
        "_in_flight",
        "_is_certain",
        "_is_outdated",
        "_limits",
        "_may_be_recreated",
        "_order",
        "_rate",
        "_requeued",
        "_standstill",
        "_times",
        "_undelivered",
    )

    def __init__(self) -> None:
        """Start without observations."""
        self._order: Order | None = None
        #: The order from before a reset of the counts, until it is known whether it is still valid.
        self._before: Order | None = None
        #: Whether the queue may have been recreated at the reset: its messages were published since.
        self._may_be_recreated = False
        self._rate: backlog.Rate | None = None
        self._limits = NO_LIMITS
        self._changes = NO_CHANGES
        self._times: MessageTimes | None = None
        #: Time of the last observation of a queue that has no counts and no ready messages so far.
        self._idle: float | None = None
        #: All ready messages arrived after this time.
        self._empty = -inf
        self._standstill: Standstill | None = None
        #: Whether no message was with a consumer uncounted, and no counts were lost, since the queue was empty.
        self._is_certain = True
        #: Whether messages may have left since the last counts.
        self._is_outdated = False
        self._requeued: Requeued | None = None

        self._in_flight: InFlight | None = None
        #: Time of the last observation without a delivery, until the first one.
        self._undelivered: float | None = None

    @property
    def limits(self) -> Limits:
        """Return the limits of the queue at the last observation."""
        return self._limits

    @property
    def is_new(self) -> bool:
        """Return whether there is nothing to store."""
        return self._order is None and self._standstill is None and self._in_flight is None

    @property
    def ready(self) -> float:
        """Return the number of ready messages at the last observation, 0 if unknown."""
        return self._order.ready if self._order else 0.0

    def save(self, vhost: str, name: str) -> HistoryState:
        """Return what `restored` needs, with the name of the queue."""
        return HistoryState(
            vhost=vhost,
            name=name,
            order=None if self._order is None else self._order.save(),
            before=None if self._before is None else self._before.save(),
            may_be_recreated=self._may_be_recreated,
            rate=None if self._rate is None else self._rate.save(),
            limits=self._limits,
            has_wrong_times=None if self._times is None else self._times.is_wrong,
            empty=stored(self._empty),
            standstill=self._standstill,
            is_certain=self._is_certain,
            is_outdated=self._is_outdated,
            in_flight=None if self._in_flight is None else self._in_flight.save(),
            undelivered=self._undelivered,
            changes=self._changes,
        )

    @classmethod
    def restored(cls, state: HistoryState, shift: float) -> Self:
        """Return a stored history, with `shift` added to its times."""
        history = cls()
        if state.order is not None:
            history._order = Order.restored(state.order, shift)
        if state.before is not None:
            history._before = Order.restored(state.before, shift)
        if state.rate is not None:
            history._rate = backlog.Rate.restored(state.rate, shift)
        if state.has_wrong_times is not None:
            history._times = MessageTimes(is_wrong=state.has_wrong_times)
        if state.standstill is not None:
            history._standstill = state.standstill.shifted(shift)
        if state.in_flight is not None:
            history._in_flight = InFlight.restored(state.in_flight, shift)
        if state.undelivered is not None:
            history._undelivered = state.undelivered + shift
        history._may_be_recreated = state.may_be_recreated
        history._limits = NO_LIMITS if state.limits == NO_LIMITS else state.limits
        history._empty = restored(state.empty, shift)
        history._changes = (
            NO_CHANGES if state.changes == NO_CHANGES else state.changes.shifted(shift)
        )
        history._is_certain, history._is_outdated = state.is_certain, state.is_outdated
        return history

    def drain(self, queue: Queue, now: float) -> float | None:
        """Return the seconds until the ready messages are consumed at the recent rate; None if unknown."""
        ready, count = known(queue.messages_ready), consumed(queue)
        if count is None:
            self._rate = None
            rate = 0.0 if queue.consumers == 0 or self._stands_still(queue, now) else None
        else:
            self._rate = self._rate or backlog.Rate()
            rate = self._rate.observe(now, count)
        if not ready:
            return ready
        return None if rate is None else ready / rate if rate else inf

    def age(self, queue: Queue, now: float, unix: float) -> backlog.Age | None:
        """Add an observation, and return the age of the oldest ready message; None if unknown.

        Missing values do not change the history. `now` is monotonic time, `unix` is Unix time.
        """
        ready = known(queue.messages_ready)
        if ready is None and not is_live(queue):
            return None
        self._take_limits(queue, now)
        if ready == 0 and queue.messages_unacknowledged == 0:
            self._empty = now - DEPTH_DELAY_SECONDS
            self._is_certain = True
        age = self._by_counts(queue, ready, now)
        if ready == 0:
            return backlog.Age(0.0, "interpolation")
        if ready is None or self._limits.priorities or queue.head_message_timestamp is None:
            return age
        self._times = self._times or MessageTimes()
        return self._times.refine(queue, age, unix, self._max_age(now))

    def in_flight(self, queue: Queue, now: float) -> backlog.Age | None:
        """Return the time since the oldest delivery that is not acknowledged; None if unknown."""
        stats, unacked = queue.message_stats, queue.messages_unacknowledged
        is_idle = self._in_flight is None and unacked == 0
        if is_idle and isinstance(stats, MessageStats) and not stats.deliver and not stats.get:
            self._undelivered = now  # most queues
            # Messages acknowledged automatically are never in flight, however many wait in a consumer.
            return None if stats.deliver_no_ack or stats.get_no_ack else in_flight.NOTHING
        return self._in_flight_by_counts(known(unacked), in_flight.deliveries(queue), now)

    def _in_flight_by_counts(
        self, unacked: float | None, delivered: float | None, now: float
    ) -> backlog.Age | None:
        if self._in_flight is None:
            if not unacked and not delivered:
                self._undelivered = now if delivered == 0 else None
                return None if unacked is None else in_flight.NOTHING
            self._in_flight = InFlight()
            if self._undelivered is not None:
                self._in_flight.observe(0.0, 0.0, self._undelivered)
        self._in_flight.observe(unacked, delivered, now)
        if not unacked:
            return None if unacked is None else in_flight.NOTHING
        return None if delivered is None else self._in_flight.age(delivered, now)

    def _by_counts(self, queue: Queue, ready: float | None, now: float) -> backlog.Age | None:
        depth = Depth(ready, known(queue.messages_unacknowledged))
        flow = flow_of(queue)
        if flow == NO_FLOW and self._order is not None and self._order.was_counted:
            flow = None  # missing counts are not zero
        if flow == NO_FLOW and ready == 0 and self._order is None:
            # Most queues of a large broker: only the time of the observation is kept.
            if not _may_be_unacked(queue):
                self._idle = now
            return None
        if flow == NO_FLOW and ready is None and (self._order or self._idle is not None):
            return None  # without counts, only the depth shows what arrives
        if flow == NO_FLOW and self._order is not None and not self._order.has_depth:
            self._order = None
        self._standstill = standstill.observe(self._standstill, depth, flow, now)
        if flow is not None:
            self._is_outdated = False
            self._observe(depth, flow, now)
        elif queue.consumers != 0 and not self._stands_still(queue, now):
            self._is_outdated = True
        if flow is None or (flow == NO_FLOW and ready is not None):
            self._is_certain &= self.is_counted or not (flow is None or _may_be_unacked(queue))
        return self._by_order(queue, flow, ready, now) if ready else None

    def _by_order(
        self, queue: Queue, flow: Flow | None, ready: float, now: float
    ) -> backlog.Age | None:
        order = None if self._is_outdated else self._order
        stands_still = self._stands_still(queue, now)
        # Without consumers and counts, the messages that were ready before are still ready.
        still_has = order is not None and queue.consumers == 0 and order.still_has(ready)
        if order is not None and (flow is not None or still_has or stands_still):
            # After a reset of the counts, they may be.
            is_certain = flow is not None and self._before is None and self._is_certain
            is_certain &= not self._changes.may_reject(self._limits)
            age = order.age(ready, now, self._limits, is_certain=is_certain)
            age = None if age is None else self._plausible(age, now)
            if age is not None:
                return (
                    age._replace(method="lower_bound")
                    if self._may_be_overtaken(queue, now)
                    else age
                )
        seconds = self._standstill.seconds(now) if self._standstill and stands_still else None
        return None if seconds is None else backlog.Age(seconds, "lower_bound")

    def _may_be_overtaken(self, queue: Queue, now: float) -> bool:
        """Return whether an older message may wait behind the one at the head."""
        if queue.type != QUORUM:
            return False
        self._requeued = self._requeued or Requeued()
        return self._requeued.may_wait(queue, now)

    @property
    def is_counted(self) -> bool:
        """Return whether the broker has counted messages of the queue."""
        return self._order is not None and self._order.was_counted

    def _stands_still(self, queue: Queue, now: float) -> bool:
        """Return whether nothing arrived in the queue or left it for some time.

        The broker has no counts of a queue after it lost its statistics, until something happens. Expired and dropped
        messages may be replaced by dead letters: none of this is counted.
        """
        if self._standstill is None or self._standstill.seconds(now) is None:
            return False
        if self._limits.ttl is not None or self._limits.length is not None:
            return False
        was_counted = self.is_counted and self._standstill.was_counted
        return queue.consumers == 0 or (
            was_counted and isinstance(queue.message_stats, MessageStats)
        )

    def _plausible(self, age: backlog.Age, now: float) -> backlog.Age | None:
        """Return `age`, limited by the last time when the queue was empty; None if that refutes it."""
        if age.method == "lower_bound" and age.seconds >= now - self._empty - DEPTH_DELAY_SECONDS:
            return None  # a bound from before the queue was empty says nothing about later messages
        seconds = min(age.seconds, self._max_age(now))
        return backlog.Age(seconds, age.method) if seconds > 0 else None

    def _observe(self, depth: Depth, flow: Flow, now: float) -> None:
        """Add an observation."""
        if self._order is None and self._idle is not None:
            self._order = Order(0.0, NO_FLOW)
            self._order.observe(Depth(0.0, 0.0), NO_FLOW, self._idle, self._limits)
        if self._order is None:
            self._order = Order(depth.ready, flow)
        elif self._order.fell(flow):
            if depth.ready is None:
                return  # the messages are not known yet
            self._restart_counts(self._order, depth.ready, flow, now)
        limits = self._changes.apply(self._limits, has_ttl=self._has_ttl())
        self._changes = self._changes.applied()
        for order in (self._order, self._before):
            if order is not None:
                order.observe(depth, flow, now, limits)
        if self._before is not None and self._order.excess is not None:
            # More messages are ready than arrived since: the broker was restarted and kept the queue.
            if self._order.excess:
                self._order = self._before
            elif self._may_be_recreated:
                self._is_certain = True
            self._before = None

    def _restart_counts(self, order: Order, ready: float, flow: Flow, now: float) -> None:
        """Continue with counts that are lower than before."""
        before = self._before or order
        if self._standstill is not None and self._standstill.seconds(now) is not None:
            # Nothing happened in the queue: the broker lost its statistics, and may count some messages again.
            before.rebase(flow)
            self._is_certain = False
            if not flow.published:
                self._order, self._before = before, None
                return
        elif before.skip_unseen():
            self._is_certain = False
        self._before = before
        self._order, self._may_be_recreated = Order(ready, flow), flow.published > 0
        self._order.succeed(before)

    def _take_limits(self, queue: Queue, now: float) -> None:
        """Take the limits of an observation, and note whether a policy has changed them."""
        before, self._limits = self._limits, limits_of(queue, self._limits)
        is_first = self.is_new and self._idle is None
        if self._limits != before and not is_first:
            depth = max(self.ready, known(queue.messages_ready) or 0.0)
            self._changes = self._changes.after(queue, before, self._limits, depth, now)

    def _has_ttl(self) -> bool:
        """Return whether the TTL applies to all ready messages.

        The broker gives a message its TTL when it arrives. One from before a change keeps what it had, and no
        message expires behind it.
        """
        changed = self._changes.ttl
        if changed is None or self._empty >= changed:
            return True
        since = changed + DEPTH_DELAY_SECONDS
        return self._order is not None and self._order.has_passed(since)

    def _max_age(self, now: float) -> float:
        """Return the largest possible age of a message."""
        ttl = self._limits.ttl if self._has_ttl() else None
        return now - self._empty if ttl is None else min(now - self._empty, ttl)


def consumed(queue: Queue) -> float | None:
    """Return the number of messages removed by consumers; None if it is not counted."""
    stats = queue.message_stats
    if not isinstance(stats, MessageStats):
        return None
    counts = [known(count) for count in (stats.ack, stats.deliver_no_ack, stats.get_no_ack)]
    present = [count for count in counts if count is not None]
    return sum(present) if present else None


def flow_of(queue: Queue) -> Flow | None:
    """Return the counts of a queue; None if its messages use protocols that are not counted by queue."""
    stats = queue.message_stats
    if not isinstance(stats, MessageStats):
        stats = MessageStats()
    published, redelivered = known(stats.publish) or 0.0, known(stats.redeliver) or 0.0
    delivered = (known(stats.deliver_get) or 0.0) - redelivered
    if published or delivered or queue.consumers == 0 or not queue.messages_ready:
        return Flow(published, delivered, redelivered)
    return None


def _may_be_unacked(queue: Queue) -> bool:
    """Return whether messages may be with a consumer; over AMQP, their number is unknown."""
    unacked = known(queue.messages_unacknowledged)
    return queue.consumers != 0 if unacked is None else unacked != 0
