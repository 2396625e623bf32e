"""The series of rules: created by messages, emitted by collections, dropped after `expire`.

Only the network thread writes. Collections read without a lock, between any two of its steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bts_collectors.mqtt.rules.config import Measure, Rule
from bts_exporter import HistogramAccumulator, Metric, Scrape

Labels = tuple[str, ...]


class Series:
    """A gauge or a device's counter: the last value, or None."""

    __slots__ = ("expire_seconds", "gone", "owner", "seen", "topic", "value")

    def __init__(self, owner: str, expire_seconds: float, now: float) -> None:
        """Take the rule that owns it, and the seconds without a message after which it is dropped."""
        #: Whether it was removed: a reader that refers to it must look it up again.
        self.gone = False
        #: Its only topic; "" if there are several, None before the first.
        self.topic: str | None = None
        self.owner = owner
        self.expire_seconds = expire_seconds
        self.seen = now
        self.value: float | None = None

    def add_topic(self, topic: str) -> None:
        """Record that messages of a topic update this series."""
        self.topic = topic if self.topic in {None, topic} else ""

    def update(self, value: float) -> None:
        """Set the value."""
        self.value = value

    def emit(self, scrape: Scrape, metric: Metric, labels: Labels) -> None:
        """Emit the value, if there is one."""
        if self.value is not None:
            scrape.emit(metric, self.value, *labels)


class Count(Series):
    """A counter of messages."""

    __slots__ = ()

    value: float

    def __init__(self, owner: str, expire_seconds: float, now: float) -> None:
        """Start at 0, so that the first message is an increase."""
        super().__init__(owner, expire_seconds, now)
        self.value = 0

    def update(self, value: float) -> None:  # noqa: ARG002  # Series
        """Count a message, whatever its value."""
        self.value += 1


class HistogramSeries(Series):
    """A histogram of values."""

    __slots__ = ("_accumulator",)

    def __init__(
        self, owner: str, expire_seconds: float, now: float, bounds: tuple[float, ...]
    ) -> None:
        """Take the upper bounds of the buckets as well."""
        super().__init__(owner, expire_seconds, now)
        self._accumulator = HistogramAccumulator(bounds)

    def update(self, value: float) -> None:
        """Observe a value."""
        self._accumulator.observe(value)

    def emit(self, scrape: Scrape, metric: Metric, labels: Labels) -> None:
        """Emit the histogram."""
        self._accumulator.emit(scrape, metric, *labels)


@dataclass(slots=True)
class Family:
    """All series of one metric."""

    metric: Metric
    measure: Measure
    series: dict[Labels, Series] = field(default_factory=dict)

    @property
    def cost(self) -> int:
        """Return the number of Prometheus series per label set."""
        # One per bucket, and +Inf, sum and count.
        return len(self.measure.buckets) + 3 if self.measure.type == "histogram" else 1

    def create(self, labels: Labels, owner: str, expire_seconds: float, now: float) -> Series:
        """Add a series."""
        if self.measure.type == "histogram":
            made: Series = HistogramSeries(owner, expire_seconds, now, self.measure.buckets)
        else:
            made = (Count if self.measure.counts_messages else Series)(owner, expire_seconds, now)
        self.series[labels] = made
        return made

    def emit(self, scrape: Scrape, now: float) -> None:
        """Emit all series that have not expired."""
        for labels, series in list(self.series.items()):
            if now - series.seen <= series.expire_seconds:
                series.emit(scrape, self.metric, labels)

    def drop_expired(self, owner: str, now: float) -> int:
        """Remove the expired series of a rule; return their number."""
        expired = [
            labels
            for labels, series in self.series.items()
            if series.owner == owner and now - series.seen > series.expire_seconds
        ]
        for labels in expired:
            self.remove(labels)
        return len(expired)

    def remove(self, labels: Labels) -> None:
        """Remove a series."""
        self.series.pop(labels).gone = True


class SeriesStore(dict[str, Family]):
    """The metric families of all rules, by name; rules with the same metric share its family."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        """Create the families, without series."""
        super().__init__()
        for metric, measure in declared(rules):
            self[metric.name] = Family(metric, measure)

    def emit(self, scrape: Scrape, now: float) -> None:
        """Emit all series; `now` is on the clock of `time.monotonic`."""
        for family in self.values():
            family.emit(scrape, now)


def declared(rules: Mapping[str, Rule]) -> Iterator[tuple[Metric, Measure]]:
    """Yield each metric of the rules once, with the settings of the first rule that has it."""
    seen: set[str] = set()
    for rule in rules.values():
        for name, measure in rule.metrics.items():
            if name not in seen:
                seen.add(name)
                yield rule.metric(name), measure
