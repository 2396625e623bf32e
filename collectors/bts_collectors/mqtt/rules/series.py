"""The series that rules make: created by messages, shown by collections, gone when they fall silent.

The network thread alone writes, and a collection may see it between any two steps: neither waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bts_collectors.mqtt.rules.config import Measure, Rule
from bts_exporter import HistogramAccumulator, Metric, Scrape

Labels = tuple[str, ...]


class Series:
    """The last value; None while there is none to show."""

    __slots__ = ("expire", "gone", "owner", "seen", "topic", "value")

    def __init__(self, owner: str, expire: float, now: float) -> None:
        """Give the rule that it counts for, and after how many seconds without a message it is gone."""
        #: Whether it was removed: who holds it has to look for another.
        self.gone = False
        #: The one topic that it is from; "" if there are several, None before the first.
        self.topic: str | None = None
        self.owner = owner
        self.expire = expire
        self.seen = now
        self.value: float | None = None

    def belong(self, topic: str) -> None:
        """Take note that a topic has this series."""
        self.topic = topic if self.topic in {None, topic} else ""

    def update(self, value: float) -> None:
        """Take the value of a message."""
        self.value = value

    def emit(self, scrape: Scrape, metric: Metric, labels: Labels) -> None:
        """Emit what there is."""
        if self.value is not None:
            scrape.emit(metric, self.value, *labels)


class Count(Series):
    """The number of messages."""

    __slots__ = ()

    value: float

    def __init__(self, owner: str, expire: float, now: float) -> None:
        """Begin at 0, so that the first message is an increase."""
        super().__init__(owner, expire, now)
        self.value = 0

    def update(self, value: float) -> None:  # noqa: ARG002  # Series
        """Count a message, whatever its value."""
        self.value += 1


class HistogramSeries(Series):
    """The distribution of values."""

    __slots__ = ("_distribution",)

    def __init__(self, owner: str, expire: float, now: float, bounds: tuple[float, ...]) -> None:
        """Give the upper bounds of the buckets."""
        super().__init__(owner, expire, now)
        self._distribution = HistogramAccumulator(bounds)

    def update(self, value: float) -> None:
        """Count a value."""
        self._distribution.observe(value)

    def emit(self, scrape: Scrape, metric: Metric, labels: Labels) -> None:
        """Emit the buckets."""
        self._distribution.emit(scrape, metric, *labels)


@dataclass(slots=True)
class Family:
    """All series of one metric."""

    metric: Metric
    measure: Measure
    series: dict[Labels, Series] = field(default_factory=dict)

    @property
    def cost(self) -> int:
        """Return how many series of Prometheus one of ours is."""
        # Those of the buckets, one without end among them, the sum and the count.
        return len(self.measure.buckets) + 3 if self.measure.type == "histogram" else 1

    def create(self, labels: Labels, owner: str, expire: float, now: float) -> Series:
        """Add a series."""
        if self.measure.type == "histogram":
            made: Series = HistogramSeries(owner, expire, now, self.measure.buckets)
        else:
            made = (Count if self.measure.counts_messages else Series)(owner, expire, now)
        self.series[labels] = made
        return made

    def emit(self, scrape: Scrape, now: float) -> None:
        """Emit all series that are not silent for too long."""
        for labels, series in list(self.series.items()):
            if now - series.seen <= series.expire:
                series.emit(scrape, self.metric, labels)

    def drop_silent(self, owner: str, now: float) -> int:
        """Remove the series of a rule that are silent for too long; return how many."""
        silent = [
            labels
            for labels, series in self.series.items()
            if series.owner == owner and now - series.seen > series.expire
        ]
        for labels in silent:
            self.remove(labels)
        return len(silent)

    def remove(self, labels: Labels) -> None:
        """Remove a series."""
        self.series.pop(labels).gone = True


class SeriesStore(dict[str, Family]):
    """All metrics of all rules, by name: rules with the same metric share it."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        """Declare the metrics; there are no series yet."""
        super().__init__()
        for metric, measure in declared(rules):
            self[metric.name] = Family(metric, measure)

    def emit(self, scrape: Scrape, now: float) -> None:
        """Emit all series; `now` is on the clock of `time.monotonic`."""
        for family in self.values():
            family.emit(scrape, now)


def declared(rules: Mapping[str, Rule]) -> Iterator[tuple[Metric, Measure]]:
    """Yield each metric of the rules once, as the first rule that names it declares it."""
    seen: set[str] = set()
    for rule in rules.values():
        for name, measure in rule.metrics.items():
            if name not in seen:
                seen.add(name)
                yield rule.metric(name), measure
