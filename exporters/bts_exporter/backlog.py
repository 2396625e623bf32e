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
from bts_exporter.scrape import Scrape

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
    " event_time (the time in the payload), interpolation (of the count of published messages) or"
    " lower_bound (the message was there before the exporter looked first).",
    (*LABELS, "method"),
)
DRAIN_SECONDS = gauge(
    "messaging_drain_seconds",
    "Backlog divided by the recent rate of consumption; +Inf when nothing is consumed, absent when that is not known.",
    LABELS,
)
PUBLISHED = counter("messaging_published_messages_total", "Messages that came in.", LABELS)
CONSUMED = counter("messaging_consumed_messages_total", "Messages consumed.", LABELS)
IN_FLIGHT_OLDEST = gauge(
    "messaging_in_flight_oldest_seconds",
    "Time since the delivery of the message that a consumer has held the longest without an"
    " acknowledgement; 0 when no message is with a consumer.",
    LABELS,
)
IN_FLIGHT_METHOD = gauge(
    "messaging_in_flight_method_info",
    "How messaging_in_flight_oldest_seconds is found: delivery_time (the broker's own time of the"
    " delivery), interpolation (of the count of deliveries) or lower_bound (a message may have been"
    " with its consumer for longer).",
    (*LABELS, "method"),
)
ACK_TIMEOUT = gauge(
    "messaging_ack_timeout_seconds",
    "Time within which a consumer must acknowledge a message before the broker closes its channel;"
    " only while a message is with a consumer.",
    LABELS,
)
LIMIT = gauge(
    "messaging_limit_messages",
    "Number of waiting messages from which on messages are removed, or new ones rejected.",
    LABELS,
)
RETENTION = gauge(
    "messaging_retention_seconds",
    "Age from which on waiting messages are removed.",
    LABELS,
)
OVERFLOW = gauge(
    "messaging_overflow_info",
    "What happens to messages at messaging_limit_messages (cause limit) or at"
    " messaging_retention_seconds (cause retention): drop_oldest, reject_new or dead_letter (they move"
    " to another queue); and whether the limit is a setting or was observed.",
    (*LABELS, "cause", "effect", "known_by"),
)
LOST = counter(
    "messaging_entries_lost_total",
    "Messages removed before they were delivered to the consumer group, since the exporter started;"
    " at least so many.",
    LABELS,
)

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
    IN_FLIGHT_OLDEST,
    IN_FLIGHT_METHOD,
    ACK_TIMEOUT,
    LIMIT,
    RETENTION,
    OVERFLOW,
    LOST,
)


class Age(NamedTuple):
    """How old a message or a delivery is, and how that is known: a value of the label `method`."""

    seconds: float
    method: Literal["message_time", "event_time", "delivery_time", "interpolation", "lower_bound"]


class Arrival(NamedTuple):
    """When a count passed a position, as far as observations show it, in seconds of the timeline's clock."""

    earliest: float
    latest: float
    #: The longest time between two observations around it.
    gap: float


class TimelineState(msgspec.Struct, frozen=True):
    """A timeline as it is stored: two arrays of doubles, and two of floats."""

    times: bytes
    counts: bytes
    gaps: bytes
    errors: bytes


class RateState(msgspec.Struct, frozen=True):
    """A rate as it is stored: two observations, each with its time."""

    base: tuple[float, float] | None
    next: tuple[float, float] | None


def emit_lag(scrape: Scrape, age: Age | None, system: str, destination: str, group: str) -> None:
    """Emit the lag in seconds, and how it is known unless nothing waits; nothing for an unknown age."""
    if age is not None:
        scrape.emit(LAG_SECONDS, age.seconds, system, destination, group)
        if age.seconds:
            scrape.emit(LAG_METHOD, 1, system, destination, group, age.method)


class Timeline:
    """When a count of published messages passed a position: a clock for messages without a time.

    Of a queue that is first in, first out, the message at position `n` was published when the
    count rose above `n`. Between two observations the count is taken to rise evenly. Old ones are
    thinned out where that changes a message's age least, in proportion to the age. What that costs
    is kept: an observation that was dropped was within a known time of the line.
    """

    __slots__ = ("_counts", "_errors", "_gaps", "_times")

    def __init__(self) -> None:
        """Begin without observations."""
        self._times = array("d")
        self._counts = array("d")
        # For the line from each observation to the one before: the longest time between observations that it
        # replaces, and how far from it they were at most, in seconds.
        self._gaps = array("f")
        self._errors = array("f")

    @property
    def last_time(self) -> float | None:
        """Return the time of the last observation; None before the first one."""
        return self._times[-1] if self._times else None

    def save(self) -> TimelineState:
        """Return what `restored` needs, for the state of a collector."""
        arrays = (self._times, self._counts, self._gaps, self._errors)
        return TimelineState(*(values.tobytes() for values in arrays))

    @classmethod
    def restored(cls, state: TimelineState, shift: float) -> Self:
        """Return a stored timeline, with `shift` added to its times; ValueError if it is not one."""
        times, counts = array("d", state.times), array("d", state.counts)
        gaps, errors = array("f", state.gaps), array("f", state.errors)
        if (
            len({len(times), len(counts), len(gaps), len(errors)}) != 1
            or len(times) > MOST_OBSERVED
        ):
            msg = f"not a timeline: {len(times)} times, {len(counts)} counts"
            raise ValueError(msg)
        timeline = cls()
        timeline._times.extend(time + shift for time in times)
        timeline._counts.extend(counts)
        timeline._gaps.extend(gaps)
        timeline._errors.extend(errors)
        return timeline

    def observe(self, now: float, count: float) -> None:
        """Add the count at `now`, in seconds of any clock; a count that decreases resets the timeline."""
        times, counts = self._times, self._counts
        if counts and (count < counts[-1] or now < times[-1]):
            del times[:], counts[:], self._gaps[:], self._errors[:]
        gap = now - times[-1] if times else 0.0
        if len(counts) > 1 and counts[-2] == counts[-1] == count:
            times[-1] = now  # the first and last observation of a constant count are enough
            self._gaps[-1] = max(self._gaps[-1], gap)
            return
        if len(counts) == MOST_OBSERVED:
            self._thin_out(now)
        times.append(now)
        counts.append(count)
        self._gaps.append(gap)
        self._errors.append(0.0)

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

    @property
    def began(self) -> float | None:
        """Return the time of the first observation; None if there is none."""
        return self._times[0] if self._times else None

    def count(self, then: float) -> float | None:
        """Return a lower bound of the count at `then`; None before the first observation."""
        after = bisect_right(self._times, then)
        return self._counts[after - 1] if after else None

    def lower(self, count: float) -> None:
        """Limit all observed counts to `count`: the messages beyond it were never published."""
        times, counts = self._times, self._counts
        for index in range(bisect_right(counts, count), len(counts)):
            counts[index] = count
            if index:  # which of the messages were not published is unknown
                self._errors[index] = times[index] - times[index - 1]

    def arrival(self, position: float) -> Arrival | None:
        """Return when the count passed `position`; None if not seen."""
        times = self._times
        after = bisect_right(self._counts, position)
        if after == 0 or after == len(times):
            return None
        line = self._passed(position, after - 1, after)
        error = self._errors[after] + self._gaps[after]
        return Arrival(
            max(times[after - 1], line - error), min(times[after], line + error), self._gaps[after]
        )

    def _passed(self, position: float, before: int, after: int) -> float:
        """Return when the count was at `position`, on the line between two observations."""
        times, counts = self._times, self._counts
        share = (position - counts[before]) / (counts[after] - counts[before])
        return times[before] + share * (times[after] - times[before])

    def _thin_out(self, now: float) -> None:
        """Drop a quarter of the observations, no two adjacent: those closest to the line between their neighbours."""
        times, counts, gaps, errors = self._times, self._counts, self._gaps, self._errors

        def error(index: int) -> float:
            """Return how far from the line between its neighbours the observations here are at most."""
            before = max(errors[index], errors[index + 1])
            if counts[index - 1] == counts[index + 1]:
                return before  # within a standstill, which `lower` can make as well
            return before + abs(self._passed(counts[index], index - 1, index + 1) - times[index])

        def harm(index: int) -> float:
            return error(index) / (now - times[index] + error(index) + 1)

        inner = sorted(range(1, len(counts) - 1, 2), key=harm)
        for index in sorted(inner[: MOST_OBSERVED // 4], reverse=True):
            errors[index + 1] = error(index)
            gaps[index + 1] = max(gaps[index], gaps[index + 1])
            for values in (times, counts, gaps, errors):
                del values[index]


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
