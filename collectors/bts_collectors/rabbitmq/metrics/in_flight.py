"""How long a consumer has held a message of a queue, from the counts of deliveries and the unacknowledged messages.

Of `n` unacknowledged messages, one was delivered before the latest `n` deliveries. Consumers may
acknowledge in any order, so this is a lower bound, unless all messages delivered since the queue had no
unacknowledged ones are still unacknowledged. A redelivery counts as a delivery, since the broker's
consumer_timeout starts again with it.
"""

from __future__ import annotations

from typing import Self

import msgspec

from bts_collectors.rabbitmq.api.models import MessageStats, Queue, known
from bts_collectors.rabbitmq.metrics.queue_order import DEPTH_DELAY_SECONDS, MAX_GAP_SECONDS
from bts_exporter import backlog

NOTHING = backlog.Age(0.0, "interpolation")


class InFlightState(msgspec.Struct, frozen=True):
    """The observations as they are stored; the fields are those of `InFlight`."""

    timeline: backlog.TimelineState
    none: float | None


class InFlight:
    """The observations of the unacknowledged messages of one queue."""

    __slots__ = ("_depths", "_none", "_timeline")

    def __init__(self) -> None:
        """Start without observations."""
        #: Deliveries that consumers must acknowledge.
        self._timeline = backlog.Timeline()
        #: Times and numbers of unacknowledged messages of the last DEPTH_DELAY_SECONDS, and one before.
        self._depths: list[tuple[float, float]] = []
        #: Time when the queue last had no unacknowledged messages.
        self._none: float | None = None

    def save(self) -> InFlightState:
        """Return what `restored` needs."""
        return InFlightState(self._timeline.save(), self._none)

    @classmethod
    def restored(cls, state: InFlightState, shift: float) -> Self:
        """Return stored observations, with `shift` added to their times; depths are observed again."""
        made = cls()
        made._timeline = backlog.Timeline.restored(state.timeline, shift)
        made._none = None if state.none is None else state.none + shift
        return made

    def observe(self, unacked: float | None, delivered: float | None, now: float) -> None:
        """Add an observation; None stands for an unknown number."""
        if delivered is not None:
            self._timeline.observe(now, delivered)
        if unacked is None:
            return
        if unacked == 0:
            self._none = now
        self._depths.append((now, unacked))
        while len(self._depths) > 1 and self._depths[1][0] <= now - DEPTH_DELAY_SECONDS:
            del self._depths[0]

    def age(self, delivered: float, now: float) -> backlog.Age | None:
        """Return the time since the oldest delivery that is not acknowledged; None if unknown."""
        # The number of unacknowledged messages may be newer than the count of deliveries, which then
        # lacks some of them: only those that were there for some time are certainly counted.
        least = min((number for _, number in self._depths), default=0.0)
        if not least or self._depths[0][0] > now - DEPTH_DELAY_SECONDS:
            return None
        position, settled = delivered - least, self._settled()
        is_certain = settled is not None and position <= settled
        if settled is not None and is_certain:
            position = settled
        age, arrival = self._timeline.age(position, now), self._timeline.arrival(position)
        if arrival is None:  # delivered before the first observation, or not counted yet
            return age if age is not None and age.method == "lower_bound" else None
        if is_certain and arrival.gap <= MAX_GAP_SECONDS:
            return age
        seconds = now - arrival.latest
        return backlog.Age(seconds, "lower_bound") if seconds > 0 else None

    def _settled(self) -> float | None:
        """Return how many deliveries, at least, were acknowledged or requeued when none was open; None if unknown."""
        began = self._timeline.began
        if self._none is None or began is None or self._none < began:
            return None
        count = self._timeline.count(self._none - DEPTH_DELAY_SECONDS)
        if count is None and self._timeline.count(began) == 0:
            return 0.0
        return count


def deliveries(queue: Queue) -> float | None:
    """Return the number of deliveries that consumers must acknowledge; None if it is not counted."""
    stats = queue.message_stats
    if not isinstance(stats, MessageStats):
        return None
    return (known(stats.deliver) or 0.0) + (known(stats.get) or 0.0)
