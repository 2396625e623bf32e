"""Settings of rules: which topics become which metrics, and how a payload is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Literal

from msgspec import field

from bts_collectors.mqtt.eventtime import EventTime
from bts_collectors.mqtt.patterns import Pattern
from bts_collectors.mqtt.payloads import Format, Path, Read, reader
from bts_exporter import CollectorConfig, Duration, Kind, Metric

_DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WHOLE = Path("$", ())
#: Formats whose payload is one value.
_SINGLE = {"number", "text"}


class Measure(CollectorConfig, frozen=True):
    """A metric of a rule."""

    type: Literal["gauge", "counter", "histogram"] = "gauge"
    help: str = ""
    #: Where the value is; a counter without it counts messages.
    path: Path | None = None
    #: Texts that stand for numbers, or for none.
    map: dict[str, float | None] = field(default_factory=dict)
    scale: float = 1.0
    offset: float = 0.0
    #: Those of the topic's that the metric has; all if None.
    labels: tuple[str, ...] | None = None
    buckets: tuple[float, ...] = _DEFAULT_BUCKETS
    #: Whether the series keeps its value when a message gives none, or is gone until one does.
    on_error: Literal["keep", "drop"] = "keep"

    @property
    def counts_messages(self) -> bool:
        """Return whether it needs nothing of the payload."""
        return self.type == "counter" and self.path is None


class Rule(CollectorConfig, frozen=True):
    """What becomes of the messages of some topics."""

    topic: Pattern
    format: Format = "json"
    #: Names of the columns of CSV.
    columns: tuple[str, ...] = ()
    separator: str = ","
    #: By name.
    metrics: dict[str, Measure] = field(default_factory=dict)
    event_time: EventTime | None = None
    #: Whether messages, bytes and the time of the last one are shown for each topic.
    per_topic: bool = False
    #: Series without a message for so long are gone; 0 keeps them.
    expire: Duration = Duration(3600)
    max_series: int = 10_000

    def __post_init__(self) -> None:
        """Check what the types cannot; ValueError with all that is wrong."""
        wrong = list(self._wrong())
        for name, measure in self.metrics.items():
            wrong += [f"metrics.{name}: {problem}" for problem in self._wrong_of(name, measure)]
        if wrong:
            raise ValueError("; ".join(wrong))

    def _wrong(self) -> Iterator[str]:
        if self.max_series < 1:
            yield f"max_series: at least 1, got {self.max_series}"
        if len(self.separator) != 1 or self.separator in '"\r\n':
            yield f"separator: expected one character, got {self.separator!r}"
        if self.columns and self.format != "csv":
            yield "columns: only csv has them"
        if self.event_time is not None:
            yield from self._wrong_path(self.event_time.path, "event_time.path: ")

    def _wrong_of(self, name: str, measure: Measure) -> Iterator[str]:
        if strange := sorted(set(measure.labels or ()) - set(self.topic.labels)):
            known = ", ".join(self.topic.labels) or "none"
            yield f"labels: {', '.join(strange)} is not in topic, which has: {known}"
        elif problem := _wrong_name(name, measure.type, measure.labels or self.topic.labels):
            yield problem
        if measure.type == "histogram" and not _rising(measure.buckets):
            yield "buckets: expected numbers, each greater than the one before"
        if measure.path is not None:
            yield from self._wrong_path(measure.path, "path: ")
        elif self.format not in _SINGLE and not measure.counts_messages:
            yield "path is missing: where the value is, $ for the payload itself"

    def _wrong_path(self, path: Path, where: str) -> Iterator[str]:
        steps = path.steps
        if self.format in _SINGLE and steps:
            yield f"{where}a payload of format {self.format} is one value: $"
        if self.format == "csv" and not (
            len(steps) == 1 and (isinstance(steps[0], int) or steps[0] in self.columns)
        ):
            known = ", ".join(self.columns) or "none"
            yield f"{where}expected a column's number, from 0, or one of columns ({known}), got {path}"

    def resolve(self, path: Path | None) -> Path:
        """Return where decoded payloads have what is at `path`: CSV's columns have numbers there."""
        if path is None:
            return _WHOLE
        if self.format == "csv" and isinstance(column := path.steps[0], str):
            return Path(path.text, (self.columns.index(column),))
        return path

    def reader(self, measure: Measure) -> Read:
        """Return what reads the value of a metric from decoded payloads."""
        return reader(self.resolve(measure.path), measure.map, measure.scale, measure.offset)

    def labels_of(self, measure: Measure) -> tuple[str, ...]:
        """Return the names of the labels of a metric."""
        return self.topic.labels if measure.labels is None else measure.labels

    def metric(self, name: str) -> Metric:
        """Return a metric of this rule, the same object for the same declaration."""
        measure = self.metrics[name]
        text = measure.help or f"From messages of {self.topic}."
        return _metric(name, text, Kind(measure.type), self.labels_of(measure))


def check(rules: Mapping[str, Rule]) -> Iterator[str]:
    """Yield what is wrong with rules beside each other."""
    owners: dict[str, tuple[str, tuple[object, ...]]] = {}
    for title, rule in rules.items():
        for name, measure in rule.metrics.items():
            shape = (measure.type, rule.labels_of(measure), measure.buckets)
            owner, known = owners.setdefault(name, (title, shape))
            if shape != known:
                yield f"rules.{title}.metrics.{name}: of another type, labels or buckets than in {owner}"


@cache
def _metric(name: str, text: str, kind: Kind, labels: tuple[str, ...]) -> Metric:
    return Metric(name, text, kind, labels)


def _wrong_name(name: str, kind: str, labels: tuple[str, ...]) -> str:
    try:
        Metric(name, "", Kind(kind), labels)
    except ValueError as error:
        return str(error)
    return ""


def _rising(bounds: tuple[float, ...]) -> bool:
    return bool(bounds) and all(a < b for a, b in pairwise(bounds))
