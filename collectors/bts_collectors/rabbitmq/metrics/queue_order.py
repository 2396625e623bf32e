"""Positions of messages in their order of arrival, from counts and depths of different times.

The depth of a queue may be ten seconds older than the counts of published and delivered messages.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import NamedTuple, Self

import msgspec

from bts_collectors.rabbitmq.metrics.queue_limits import Limits
from bts_collectors.rabbitmq.metrics.stored_times import restored, stored
from bts_exporter import backlog

#: Maximum age of a depth relative to the counts: two intervals of the broker's statistics.
DEPTH_DELAY_SECONDS = 10.0
#: With a longer gap between two observations, the time of arrival between them is unknown.
MAX_GAP_SECONDS = 90.0
#: Restarts of the exporter that an order remembers separately.
MAX_RESTARTS = 8
#: Seconds for which a queue that reached its limit may reject messages, and for which messages may
#: be requeued after a redelivery.
RECENT_SECONDS = 3 * DEPTH_DELAY_SECONDS
#: Share of its limit from which on a queue may reject messages.
FULL = 0.98


class Flow(NamedTuple):
    """The broker's counts of published messages, and of delivered ones without redeliveries."""

    published: float
    delivered: float
    #: Redeliveries.
    redelivered: float = 0.0


NO_FLOW = Flow(0.0, 0.0)


class Depth(NamedTuple):
    """Ready and unacknowledged messages, up to DEPTH_DELAY_SECONDS ago; None if unknown."""

    ready: float | None
    unacked: float | None


class _Observation(NamedTuple):
    """Numbers of messages that had arrived and left at a time."""

    time: float
    arrived: float
    left: float
    #: Messages published by then, including rejected ones.
    published: float


class OrderState(msgspec.Struct, frozen=True):
    """An order as it is stored; the fields are those of the order."""

    flow: Flow
    arrived: float
    out: float
    missing: float
    tail: float
    ready: float
    unacked: float
    max_unseen: float
    max_lost: float | None
    doubt: float | None
    last_redelivery: float | None
    last_full: float | None
    observations: list[_Observation]
    timeline: backlog.TimelineState
    restarts: list[tuple[float, float]]
    excess: float | None


class Order:
    """How many messages arrived and left, and when."""

    __slots__ = (
        "_doubt",
        "_flow",
        "_in",
        "_last_full",
        "_last_redelivery",
        "_max_lost",
        "_max_unseen",
        "_missing",
        "_observations",
        "_out",
        "_ready",
        "_restarts",
        "_tail",
        "_timeline",
        "_unacked",
        "_unseen_since",
        "excess",
    )

    def __init__(self, ready: float | None, flow: Flow) -> None:
        """Start with the ready messages."""
        self._flow = flow
        initial = max(flow.published - flow.delivered, 0.0)
        #: Arrived messages by the counts: ready ones at the start, and those published since.
        self._in = initial if flow.published or ready is None else ready
        #: Messages delivered since the start, without redeliveries.
        self._out = 0.0
        #: Messages that left uncounted: expired, dropped or purged. Negative if delivered messages
        #: were requeued.
        self._missing = 0.0
        #: Messages that arrived uncounted, such as dead letters; negative if counted ones were
        #: rejected.
        self._tail = 0.0
        self._ready = ready or 0.0
        self._unacked = 0.0
        #: Maximum number of messages that may have left unnoticed.
        self._max_unseen = 0.0
        #: Maximum number of messages that may have left without being counted here: their counts were
        #: lost, or are newer than the depth.
        self._max_lost = inf if flow.delivered and not flow.published else 0.0
        #: Time until which other messages may have replaced all ready ones.
        self._doubt = -inf
        #: Time of the last redelivery.
        self._last_redelivery = -inf
        #: Time when the queue last reached its limit.
        self._last_full = -inf
        self._observations: list[_Observation] = []
        self._timeline = backlog.Timeline()
        #: Start and end of times in which the exporter did not run.
        self._restarts: list[tuple[float, float]] = []
        #: Start of such a time, until the first observation after it.
        self._unseen_since: float | None = None
        #: Ready messages that the counts do not explain, at the latest conclusive observation.
        self.excess: float | None = None

    def save(self) -> OrderState:
        """Return what `restored` needs."""
        return OrderState(
            flow=self._flow,
            arrived=self._in,
            out=self._out,
            missing=self._missing,
            tail=self._tail,
            ready=self._ready,
            unacked=self._unacked,
            max_unseen=self._max_unseen,
            max_lost=stored(self._max_lost),
            doubt=stored(self._doubt),
            last_redelivery=stored(self._last_redelivery),
            last_full=stored(self._last_full),
            observations=self._observations.copy(),
            timeline=self._timeline.save(),
            restarts=self._restarts.copy(),
            excess=self.excess,
        )

    @classmethod
    def restored(cls, state: OrderState, shift: float) -> Self:
        """Return a stored order, with `shift` added to its times."""
        order = cls(state.ready, state.flow)
        order._in, order._out = state.arrived, state.out
        order._missing, order._tail = state.missing, state.tail
        order._unacked, order._max_unseen = state.unacked, state.max_unseen
        order._max_lost = inf if state.max_lost is None else state.max_lost
        order._doubt = restored(state.doubt, shift)
        order._last_redelivery = restored(state.last_redelivery, shift)
        order._last_full = restored(state.last_full, shift)
        order._observations = [seen._replace(time=seen.time + shift) for seen in state.observations]
        order._timeline = backlog.Timeline.restored(state.timeline, shift)
        order._restarts = [(start + shift, end + shift) for start, end in state.restarts]
        order._unseen_since = order._timeline.last_time
        order.excess = state.excess
        return order

    @property
    def _arrived(self) -> float:
        """Return how many messages arrived."""
        return self._in + self._tail

    @property
    def _position(self) -> float:
        """Return the position of the oldest ready message: how many arrived before it."""
        return min(self._out + self._missing, self._arrived)

    @property
    def was_counted(self) -> bool:
        """Return whether the broker has counted any message."""
        return self._flow != NO_FLOW

    @property
    def has_depth(self) -> bool:
        """Return whether the depth has been known."""
        return bool(self._observations)

    @property
    def ready(self) -> float:
        """Return the number of ready messages at the last observation."""
        return self._ready

    def still_has(self, ready: float) -> bool:
        """Return whether all messages that were ready may still be."""
        return self.excess is not None and ready >= self._arrived - self._position > 0

    def has_passed(self, then: float) -> bool:
        """Return whether all messages have left that arrived until `then`."""
        count = self._timeline.count(then)
        return count is not None and self._position >= count

    def fell(self, flow: Flow) -> bool:
        """Return whether the counts were reset: the broker was restarted, or the queue recreated."""
        before = self._flow
        return flow.published < before.published or flow.delivered < before.delivered

    def rebase(self, flow: Flow) -> None:
        """Continue from other counts, without messages that arrived or left."""
        self._flow = flow

    def succeed(self, before: Order) -> None:
        """Start after a reset of the counts: messages may have left since the depth.

        At most as many as in the period of the observations before.
        """
        passed = before.passed
        self._max_lost = inf if passed is None else passed

    @property
    def passed(self) -> float | None:
        """Return how many messages left in the period of the observations; None without a period."""
        if len(self._observations) < 2:  # noqa: PLR2004
            return None
        return self._observations[-1].left - self._observations[0].left

    def skip_unseen(self) -> bool:
        """Count messages as passed whose counts may be lost; return whether there are any.

        Before a reset, at most as many as in the period of the observations passed in a similar time.
        """
        passed = self.passed
        self._max_lost = inf if passed is None else self._max_lost + passed
        if passed is None:
            return True
        self._in += passed
        self._out += passed
        return passed > 0

    def observe(self, depth: Depth, flow: Flow, now: float, limits: Limits) -> None:
        """Add an observation of counts and depth."""
        self._note_restart(now)
        before = self._flow
        if self.fell(flow):
            before = NO_FLOW
            self._doubt = now
        self._out += flow.delivered - before.delivered
        came = flow.published - before.published
        self._in += came
        if flow.redelivered > before.redelivered:
            self._last_redelivery = now
        self._flow = flow
        self._expire(depth, now, limits)
        self._apply_length_limit(limits, came, now)
        if depth.ready is not None:
            self._compare_with_depth(depth.ready, depth.unacked or 0.0, now, limits)
            self._ready = depth.ready
        if depth.unacked is not None:
            self._unacked = depth.unacked
        self._timeline.lower(self._arrived)
        self._timeline.observe(now, self._arrived)

    def age(
        self, ready: float, now: float, limits: Limits, *, is_certain: bool
    ) -> backlog.Age | None:
        """Return the age of the oldest of `ready` messages; None if unknown.

        It is only a lower bound unless `is_certain`: the counts are current and belong to this queue.
        """
        # The depth shows a ready message, which is at least as old as the newest one.
        position = min(self._position, self._arrived - 1)
        age = self._timeline.age(position, now)
        if age is None:
            return None
        arrival = self._timeline.arrival(position)
        # A message that was overtaken is at least as old as without that. During a gap in the
        # observations, the time of arrival is unknown.
        gap = arrival is not None and self._is_unseen(arrival)
        if limits.priorities and limits.rejects:
            return None  # neither the arrivals nor the departures are known
        if limits.priorities or gap or not is_certain or age.method == "lower_bound":
            if limits.priorities or not is_certain:
                ready = min(ready, self._least_ready(ready))  # the others may be dead letters
            return self._bound(ready, now)
        return age

    def _note_restart(self, now: float) -> None:
        """Remember since when the exporter did not run, at the first observation after that."""
        if self._unseen_since is None:
            return
        self._restarts.append((self._unseen_since, now))
        self._unseen_since = None
        if len(self._restarts) > MAX_RESTARTS:
            (start, _), (_, end), *others = self._restarts
            self._restarts = [(start, end), *others]

    def _is_unseen(self, arrival: backlog.Arrival) -> bool:
        """Return whether the exporter did not look while a message may have arrived."""
        if arrival.gap > MAX_GAP_SECONDS:
            return True
        return any(
            arrival.earliest < end and start < arrival.latest for start, end in self._restarts
        )

    def _least_ready(self, default: float) -> float:
        """Return how many messages are ready at least by the counts, at any time that the depth may be from."""
        pairs = pairwise(self._observations)
        return min((before.arrived - after.left for before, after in pairs), default=default)

    def _bound(self, ready: float, now: float) -> backlog.Age | None:
        """Return a lower bound of the age of the oldest ready message; None if there is none.

        All ready messages have arrived by now, so the oldest one is at least as old as the message
        at that distance from the end.
        """
        left = self._out + self._missing + self._max_lost
        position = max(left, self._arrived - ready)
        if self._tail < 0:  # rejected messages are as uncertain as those that left unnoticed
            position += self._max_unseen
        if position >= self._arrived:
            return None  # the oldest message arrived uncounted
        arrival = self._timeline.arrival(position)
        age = self._timeline.age(position, now)
        if arrival is not None:
            seconds = now - arrival.latest
        elif age is not None and age.method == "lower_bound":
            seconds = age.seconds
        else:
            return None
        seconds = min(seconds, now - self._doubt)
        return backlog.Age(seconds, "lower_bound") if seconds > 0 else None

    def _expire(self, depth: Depth, now: float, limits: Limits) -> None:
        """Count messages as gone that arrived before the queue was empty, or that exceed the TTL."""
        gone = None
        if depth.ready == 0 and depth.unacked == 0:
            self._max_lost = 0.0
            gone = self._timeline.count(now - DEPTH_DELAY_SECONDS)
        elif limits.ttl is not None:
            # Without counts, arrivals are known only from the depth, which is late.
            delay = 0.0 if self._flow.published else DEPTH_DELAY_SECONDS / 2
            gone = self._timeline.count(now - delay - limits.ttl)
        if gone is not None:
            self._missing += max(gone - self._position, 0.0)

    def _apply_length_limit(self, limits: Limits, came: float, now: float) -> None:
        """Apply the length limit: the oldest messages are dropped, or the newest rejected.

        What was in the queue before the limit is not rejected.
        """
        if limits.length is None:
            return
        excess = self._arrived - self._out - self._missing - limits.length
        if excess > 0 and limits.rejects:
            self._tail -= min(excess, came) if self._observations else excess
            self._last_full = now
        elif excess > 0:
            self._missing += excess
            self._max_lost = max(self._max_lost, self._max_unseen)

    def _compare_with_depth(self, ready: float, unacked: float, now: float, limits: Limits) -> None:
        """Compare the counts with the depth, once their times certainly overlap."""
        if not self._flow.published:
            self._add_dead_letters(ready)
        if limits.length is not None and ready >= FULL * limits.length:
            self._last_full = now
        self._observations.append(
            _Observation(now, self._arrived, self._out + self._missing, self._in)
        )
        while (
            len(self._observations) > 1 and self._observations[1].time <= now - DEPTH_DELAY_SECONDS
        ):
            del self._observations[0]
        if self._may_be_replaced(ready, now, limits):
            self._doubt = now
        if len(self._observations) > 1 and self._observations[0].time <= now - DEPTH_DELAY_SECONDS:
            self._correct(ready, unacked, now, limits)

    def _add_dead_letters(self, ready: float) -> None:
        """Count messages that only the depth shows."""
        more = max(self._out + self._missing + ready - self._arrived, 0.0)
        self._tail += more
        if more and self.passed:  # the depth may still include the delivered ones
            self._max_lost = max(self._max_lost, self.passed)

    def _may_be_replaced(self, ready: float, now: float, limits: Limits) -> bool:
        """Return whether all messages may be other ones than before.

        Dead letters can replace those of a full queue, unless it rejects new ones; published
        messages can after a purge. A decrease without deliveries may be a purge.
        """
        published = self._in - self._observations[0].published
        is_full = self._last_full == now and (not limits.rejects or published >= ready)
        return is_full or self._ready - ready > (self.passed or 0.0)

    def _correct(self, ready: float, unacked: float, now: float, limits: Limits) -> None:
        """Count the messages that explain a difference between the counts and the depth."""
        pairs = list(pairwise(self._observations))
        lowest = self._least_ready(ready)
        highest = max(after.arrived - before.left for before, after in pairs)
        self.excess = max(ready - highest, 0.0)
        self._max_unseen = max(self._max_unseen, highest - lowest)
        if self._max_lost == inf:
            self._max_lost = highest - lowest
        elif not lowest <= ready <= highest:
            self._max_lost = max(self._max_lost, highest - lowest)
        if ready > highest:
            self._add(ready - (lowest + highest) / 2, unacked, now)
        elif ready < lowest:
            # The decrease of the depth beyond what the counts explain, within the possible range.
            before, after = self._observations[-2:]
            flow = (after.arrived - before.arrived) - (after.left - before.left)
            fell = self._ready - ready + flow
            self._remove(min(max(fell, lowest - ready), highest - ready), ready, now, limits)

    def _add(self, more: float, unacked: float, now: float) -> None:
        """Count messages that were requeued, or arrived uncounted."""
        redelivered_recently = now - self._last_redelivery <= RECENT_SECONDS
        back = more if redelivered_recently else min(more, max(self._unacked - unacked, 0.0))
        if more > back and self._flow.published:
            self._doubt = now
        self._shift(more - back, -back)

    def _remove(self, less: float, ready: float, now: float, limits: Limits) -> None:
        """Count messages that were rejected, or left uncounted."""
        left = less
        was_full = limits.may_be_full or now - self._last_full <= RECENT_SECONDS
        if limits.rejects and was_full:
            # Rejection does not shorten the queue: a decrease without deliveries has another cause.
            delivered = self._observations[-1].left - self._observations[0].left
            dropped = max(self._ready - ready - delivered, 0.0)
            left = less if dropped > less / 2 else dropped
        self._doubt = now
        self._shift(left - less, left)

    def _shift(self, tail: float, missing: float) -> None:
        """Count messages that arrived or left before the observations that are kept."""
        self._tail += tail
        self._missing += missing
        self._observations = [
            _Observation(time, arrived + tail, left + missing, published)
            for time, arrived, left, published in self._observations
        ]
