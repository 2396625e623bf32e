"""The common vocabulary of queue depth and consumer lag, shared by every broker's collector.

A collector uses it by holding these objects as class attributes and emitting to them:
`(system, destination, group)` are the broker's kind (`redis`, `rabbitmq`, `mqtt`, `kafka`, ...),
the stream, key or queue, and the consumer group or an empty string.
An unknown value is not emitted: 0 means that there is nothing.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Literal, NamedTuple, Self

import msgspec

from bts_exporter.metric import Metric, counter, gauge

#: Observations that a timeline keeps.
MOST_OBSERVED = 64
#: Seconds over which a rate is taken at least: counts of brokers come in steps of some seconds.
RATE_SECONDS = 30.0

LABELS = ("system", "destination", "group")

BACKLOG = gauge(
    "messaging_backlog_messages",
    "Messages waiting for the consumer or consumer group, not delivered yet.",
    LABELS,
)
IN_FLIGHT = gauge(
    "messaging_in_flight_messages",
    "Messages delivered to a consumer and not acknowledged yet.",
    LABELS,
)
CONSUMERS = gauge("messaging_consumers", "Consumers attached.", LABELS)
LAG_SECONDS = gauge(
    "messaging_lag_seconds",
    "Age of the oldest message that waits for delivery; 0 when none waits.",
    LABELS,
)
LAG_METHOD = gauge(
    "messaging_lag_method_info",
    "How messaging_lag_seconds is found: message_time (the broker's own time of the message),"
    " interpolation (of the count of published messages) or lower_bound (the message was there"
    " before the exporter looked first).",
    (*LABELS, "method"),
)
DRAIN_SECONDS = gauge(
    "messaging_drain_seconds",
    "Backlog divided by the recent rate of consumption; +Inf when nothing is consumed.",
    LABELS,
)
PUBLISHED = counter("messaging_published_messages_total", "Messages that came in.", LABELS)
CONSUMED = counter("messaging_consumed_messages_total", "Messages consumed.", LABELS)

#: All of the above, for a collector's class attribute.
VOCABULARY: tuple[Metric, ...] = (
    BACKLOG,
    IN_FLIGHT,
    CONSUMERS,
    LAG_SECONDS,
    LAG_METHOD,
    DRAIN_SECONDS,
    PUBLISHED,
    CONSUMED,
)


class Age(NamedTuple):
    """How old a message is, and how that is known: a value of the label `method`."""

    seconds: float
    method: Literal["message_time", "interpolation", "lower_bound"]


class TimelineState(msgspec.Struct, frozen=True):
    """A timeline as it is stored: two arrays of doubles."""

    times: bytes
    counts: bytes


class RateState(msgspec.Struct, frozen=True):
    """A rate as it is stored: two observations, each with its time."""

    base: tuple[float, float] | None
    next: tuple[float, float] | None


class Timeline:
    """When a count of published messages passed a position: a clock for messages without a time.

    Of a queue that is first in, first out, the message at position `n` was published when the
    count rose above `n`. Between two observations the count is taken to rise evenly. Old ones are
    thinned out where that changes a message's age least, in proportion to the age.
    """

    __slots__ = ("_counts", "_times")

    def __init__(self) -> None:
        """Begin without observations."""
        self._times = array("d")
        self._counts = array("d")

    @property
    def last_time(self) -> float | None:
        """Return the time of the last observation; None before the first one."""
        return self._times[-1] if self._times else None

    def save(self) -> TimelineState:
        """Return what `restored` needs, for the state of a collector."""
        return TimelineState(self._times.tobytes(), self._counts.tobytes())

    @classmethod
    def restored(cls, state: TimelineState, shift: float) -> Self:
        """Return a stored timeline, with `shift` added to its times; ValueError if it is not one."""
        times, counts = array("d", state.times), array("d", state.counts)
        if len(times) != len(counts) or len(times) > MOST_OBSERVED:
            msg = f"not a timeline: {len(times)} times, {len(counts)} counts"
            raise ValueError(msg)
        timeline = cls()
        timeline._times.extend(map(shift.__add__, times))
        timeline._counts.extend(counts)
        return timeline

    def observe(self, now: float, count: float) -> None:
        """Add the count at `now`, in seconds of any clock; a count that decreases resets the timeline."""
        times, counts = self._times, self._counts
        if counts and (count < counts[-1] or now < times[-1]):
            del times[:], counts[:]
        if len(counts) > 1 and counts[-2] == counts[-1] == count:
            times[-1] = now  # the first and last observation of a constant count are enough
            return
        if len(counts) == MOST_OBSERVED:
            self._thin_out(now)
        times.append(now)
        counts.append(count)

    def age(self, position: float, now: float) -> Age | None:
        """Return the age of the message that `position` others came in before; None if unknown.

        Of what was there before the first observation it is known only that it is older.
        """
        times, counts = self._times, self._counts
        after = bisect_right(counts, position)
        if after == 0:
            older = now - times[0] if times else 0.0
            return Age(older, "lower_bound") if older > 0 else None
        if after == len(counts):
            return Age(max(now - times[-1], 0.0), "interpolation")
        return Age(now - self._passed(position, after - 1, after), "interpolation")

    def count(self, then: float) -> float | None:
        """Return a lower bound of the count at `then`; None before the first observation."""
        after = bisect_right(self._times, then)
        return self._counts[after - 1] if after else None

    def lower(self, count: float) -> None:
        """Limit all observed counts to `count`: the messages beyond it were never published."""
        counts = self._counts
        for index in range(bisect_right(counts, count), len(counts)):
            counts[index] = count

    def window(self, position: float) -> tuple[float, float] | None:
        """Return the two observations between which the count passed `position`; None if not seen."""
        after = bisect_right(self._counts, position)
        if after == 0 or after == len(self._counts):
            return None
        return self._times[after - 1], self._times[after]

    def _passed(self, position: float, before: int, after: int) -> float:
        """Return when the count was at `position`, on the line between two observations."""
        times, counts = self._times, self._counts
        share = (position - counts[before]) / (counts[after] - counts[before])
        return times[before] + share * (times[after] - times[before])

    def _thin_out(self, now: float) -> None:
        """Drop a quarter of the observations, no two adjacent: those closest to the line between their neighbours."""
        times, counts = self._times, self._counts

        def harm(index: int) -> float:
            if counts[index - 1] == counts[index + 1]:
                return 0.0  # within a standstill, which `lower` can make as well
            there, line = times[index], self._passed(counts[index], index - 1, index + 1)
            return abs(line - there) / (now - min(line, there) + 1)

        inner = sorted(range(1, len(counts) - 1, 2), key=harm)
        for index in sorted(inner[: MOST_OBSERVED // 4], reverse=True):
            del times[index], counts[index]


class Rate:
    """How fast a count rises, over the last RATE_SECONDS to twice that."""

    __slots__ = ("_base", "_next")

    def __init__(self) -> None:
        """Begin without observations."""
        self._base: tuple[float, float] | None = None
        self._next: tuple[float, float] | None = None

    def save(self) -> RateState:
        """Return what `restored` needs, for the state of a collector."""
        return RateState(self._base, self._next)

    @classmethod
    def restored(cls, state: RateState, shift: float) -> Self:
        """Return a stored rate, with `shift` added to its times."""
        rate = cls()
        rate._base, rate._next = (
            None if seen is None else (seen[0] + shift, seen[1])
            for seen in (state.base, state.next)
        )
        return rate

    def observe(self, now: float, count: float) -> float | None:
        """Add the count at `now`, in seconds; return its rate per second, None while unknown."""
        if self._base is None or self._next is None or count < self._next[1] or now < self._next[0]:
            self._base = self._next = (now, count)
            return None
        if now - self._next[0] >= RATE_SECONDS:
            self._base, self._next = self._next, (now, count)
        since, before = self._base
        return (count - before) / (now - since) if now - since >= RATE_SECONDS else None
