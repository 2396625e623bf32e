"""The messages of a queue in the order in which they came in, from counts that are not taken together.

The depth of a queue may be ten seconds older than the counts of messages published and delivered.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import NamedTuple

from bts_collectors.rabbitmq.metrics.queue_limits import Limits
from bts_exporter import backlog

#: How much older than the counts a depth may be, in seconds: two intervals of the broker's statistics.
DEPTH_DELAY_SECONDS = 10.0
#: A message came in between two observations: farther apart than these seconds, nobody knows when.
MAX_GAP_SECONDS = 90.0
#: Seconds after which a queue that was at its limit refuses no more messages, and one to which
#: messages went back gets no more of them.
RECENT_SECONDS = 3 * DEPTH_DELAY_SECONDS
#: The part of its limit from which on a queue may refuse messages.
FULL = 0.98


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


class _Observation(NamedTuple):
    """When so many had come in, and so many had left."""

    time: float
    came: float
    went: float


class Order:
    """Positions: how many messages came in, how many of them left, and when."""

    __slots__ = (
        "_again",
        "_flow",
        "_full",
        "_in",
        "_max_unseen",
        "_missing",
        "_observations",
        "_out",
        "_ready",
        "_tail",
        "_timeline",
        "_unacked",
        "excess",
    )

    def __init__(self, ready: float | None, flow: Flow) -> None:
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
        self._ready = ready or 0.0
        self._unacked = 0.0
        #: Messages that may have left without its being seen, at most.
        self._max_unseen = 0.0
        #: When messages were delivered for the second time last.
        self._again = -inf
        #: When the queue was at its limit last.
        self._full = -inf
        self._observations: list[_Observation] = []
        self._timeline = backlog.Timeline()
        #: How many more waited than the counts explain, at the latest look that could tell.
        self.excess: float | None = None

    @property
    def _arrived(self) -> float:
        """Return how many came in."""
        return self._in + self._tail

    @property
    def _position(self) -> float:
        """Return how many came in before the oldest that waits."""
        return min(self._out + self._missing, self._arrived)

    @property
    def was_counted(self) -> bool:
        """Return whether the broker counted anything so far."""
        return self._flow != NO_FLOW

    def still_has(self, ready: float) -> bool:
        """Return whether all that waited may still do so."""
        return self.excess is not None and ready >= self._arrived - self._position > 0

    def fell(self, flow: Flow) -> bool:
        """Return whether the counts begin again: the broker was restarted, or the queue made again."""
        before = self._flow
        return flow.published < before.published or flow.delivered < before.delivered

    def observe(self, depth: Depth, flow: Flow, now: float, limits: Limits) -> None:
        """Take in what came in and what went out."""
        before = NO_FLOW if self.fell(flow) else self._flow
        self._out += flow.delivered - before.delivered
        self._in += flow.published - before.published
        if flow.again > before.again:
            self._again = now
        self._flow = flow
        self._expire(depth, now, limits)
        self._apply_length_limit(limits, now)
        if depth.ready is not None:
            self._compare_with_depth(depth.ready, depth.unacked or 0.0, now, limits)
            self._ready = depth.ready
        if depth.unacked is not None:
            self._unacked = depth.unacked
        self._timeline.lower(self._arrived)
        self._timeline.observe(now, self._arrived)

    def age(self, ready: float, now: float, limits: Limits, *, sure: bool) -> backlog.Age | None:
        """Return the age of the oldest message where `ready` wait, None if it is unknown.

        If the counts are not `sure` to be of now, and of this queue, no more than a lower bound.
        """
        # The depth says that something waits: it is as old as the newest, at least.
        head = min(self._position, self._arrived - 1)
        age = self._timeline.age(head, now)
        if age is None:
            return None
        window = self._timeline.window(head)
        # Where others overtook it, a message is at least as old as if they had not; where nobody
        # looked, or there were no counts, it came in some time between.
        gap = window is not None and window[1] - window[0] > MAX_GAP_SECONDS
        if limits.priorities and limits.rejects:
            return None  # neither what came in is known nor which of it left
        if limits.priorities or gap or not sure or age.method == "lower_bound":
            return self._bound(head, ready, now)
        return age

    def _bound(self, head: float, ready: float, now: float) -> backlog.Age | None:
        """Return how old the oldest message is at least.

        All that the depth shows had come in by now, so the oldest of them is at least as old as the
        message at that distance from the end.
        """
        position = max(head, min(self._arrived - ready, self._arrived - 1))
        if self._tail < 0:  # what was refused is known no better than what left unseen
            position = min(position + self._max_unseen, self._arrived - 1)
        window = self._timeline.window(position)
        if window is not None:
            return backlog.Age(now - window[1], "lower_bound") if now > window[1] else None
        age = self._timeline.age(position, now)
        return age if age is not None and age.method == "lower_bound" else None

    def _expire(self, depth: Depth, now: float, limits: Limits) -> None:
        """Count as gone what came in before the queue was empty, or longer ago than messages may wait."""
        gone = None
        if depth.ready == 0 and depth.unacked == 0:
            gone = self._timeline.count(now - DEPTH_DELAY_SECONDS)
        elif limits.ttl is not None:
            # Where only the depth tells what came in, it is older than now.
            late = 0.0 if self._flow.published else DEPTH_DELAY_SECONDS / 2
            gone = self._timeline.count(now - late - limits.ttl)
        if gone is not None:
            self._missing += max(gone - self._position, 0.0)

    def _apply_length_limit(self, limits: Limits, now: float) -> None:
        """Let no more wait than the queue takes: the oldest are dropped, or the newest refused."""
        if limits.length is None:
            return
        excess = self._arrived - self._out - self._missing - limits.length
        if excess > 0 and limits.rejects:
            self._tail -= excess
            self._full = now
        elif excess > 0:
            self._missing += excess

    def _compare_with_depth(self, ready: float, unacked: float, now: float, limits: Limits) -> None:
        """Compare the counts with the depth, as soon as they are of the same time for sure."""
        if not self._flow.published:
            # Dead letters are counted nowhere else than in the depth.
            self._tail += max(self._out + self._missing + ready - self._arrived, 0.0)
        if limits.length is not None and ready >= FULL * limits.length:
            self._full = now
        self._observations.append(_Observation(now, self._arrived, self._out + self._missing))
        while (
            len(self._observations) > 1 and self._observations[1].time <= now - DEPTH_DELAY_SECONDS
        ):
            del self._observations[0]
        if len(self._observations) > 1 and self._observations[0].time <= now - DEPTH_DELAY_SECONDS:
            pairs = list(pairwise(self._observations))
            least = min(before.came - after.went for before, after in pairs)
            most = max(after.came - before.went for before, after in pairs)
            self.excess = max(ready - most, 0.0)
            self._max_unseen = max(self._max_unseen, most - least)
            if ready > most:
                self._add(ready - (least + most) / 2, unacked, now)
            elif ready < least:
                # By how much the depth fell beyond the flow of the time between, if that may be.
                before, after = self._observations[-2:]
                flow = (after.came - before.came) - (after.went - before.went)
                fell = self._ready - ready + flow
                self._remove(min(max(fell, least - ready), most - ready), ready, now, limits)

    def _add(self, more: float, unacked: float, now: float) -> None:
        """Count messages that were delivered and wait again, or came in uncounted."""
        again = now - self._again <= RECENT_SECONDS
        back = more if again else min(more, max(self._unacked - unacked, 0.0))
        self._shift(more - back, -back)

    def _remove(self, less: float, ready: float, now: float, limits: Limits) -> None:
        """Count messages that were refused, or left uncounted."""
        left = less
        if limits.rejects and now - self._full <= RECENT_SECONDS:
            # What is refused makes the queue no shorter: that, and no delivery, is something else.
            delivered = self._observations[-1].went - self._observations[0].went
            dropped = max(self._ready - ready - delivered, 0.0)
            left = less if dropped > less / 2 else dropped
        self._shift(left - less, left)

    def _shift(self, tail: float, missing: float) -> None:
        """Count messages that came in or left some time before the looks that are kept."""
        self._tail += tail
        self._missing += missing
        self._observations = [
            _Observation(time, came + tail, went + missing)
            for time, came, went in self._observations
        ]
