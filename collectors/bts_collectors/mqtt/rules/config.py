"""Settings of rules: which topics become which metrics, and how a payload is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal, Self

from msgspec import field

from bts_collectors.mqtt import names
from bts_collectors.mqtt.client.topics import Pattern, explain
from bts_collectors.mqtt.rules.event_time import EventTime
from bts_collectors.mqtt.rules.payloads import MAX_LABEL, Conversion, Format, Path, Read, spelled
from bts_exporter import CollectorConfig, Duration, Kind, Metric

_DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WHOLE = Path("$", ())
#: Formats whose payload is one value.
_SINGLE = {"number", "text"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Texts of which a value has to be one."""

    texts: frozenset[str]

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the choice that one value or a list of them spells; ValueError if it spells none."""
        values = raw if isinstance(raw, list) else [raw]
        if not values or not all(isinstance(value, str | int | float) for value in values):
            msg = f"expected a text or number, or a list of them, got {raw!r}"
            raise ValueError(msg)
        return cls(frozenset(spelled(value) for value in values))

    def __str__(self) -> str:
        return " or ".join(sorted(map(repr, self.texts)))


class Measure(CollectorConfig, frozen=True):
    """A metric of a rule."""

    type: Literal["gauge", "counter", "histogram", "info"] = "gauge"
    help: str = ""
    #: Where the value is; a counter without it counts messages.
    path: Path | None = None
    #: What is searched for in a text; its first group, if it has one, is the value.
    regex: re.Pattern[str] | None = None
    #: What stands before the decimals of numbers in texts.
    decimal: Literal[".", ","] = "."
    #: Texts that stand for numbers, or for none.
    map: dict[str, float | None] = field(default_factory=dict)
    scale: float = 1.0
    offset: float = 0.0
    #: Those of the rule's that the metric has; all if None.
    labels: tuple[str, ...] | None = None
    #: Labels of its own: from the payload, and constant ones.
    payload_labels: dict[str, Path] = field(default_factory=dict)
    const_labels: dict[str, str] = field(default_factory=dict)
    buckets: tuple[float, ...] = _DEFAULT_BUCKETS
    #: Whether the series keeps its value when a message gives none, or is gone until one does.
    on_error: Literal["keep", "drop"] = "keep"

    @property
    def counts_messages(self) -> bool:
        """Return whether it needs no value of the payload."""
        return self.type == "counter" and self.path is None

    @property
    def own_labels(self) -> tuple[str, ...]:
        """Return the names of the labels that are not the rule's."""
        wild = self.path.labels if self.path else ()
        return (*self.payload_labels, *wild, *self.const_labels)

    @property
    def conversion(self) -> Conversion:
        """Return how a value is made of what is found."""
        return Conversion(
            mapping=self.map,
            scale=self.scale,
            offset=self.offset,
            regex=self.regex,
            decimal=self.decimal,
            total=self.type == "counter",
        )


class Rule(CollectorConfig, frozen=True):
    """What becomes of the messages of some topics."""

    topic: Pattern
    #: Topics that it does not take, and what levels have to look like.
    ignore_topics: tuple[Pattern, ...] = ()
    levels: dict[str, re.Pattern[str]] = field(default_factory=dict)
    qos: Literal[0, 1, 2] = 0
    format: Format = "json"
    #: Names of the columns of CSV.
    columns: tuple[str, ...] = ()
    separator: str = ","
    #: What a payload has to have, by path.
    where: dict[str, Choice] = field(default_factory=dict)
    #: Labels from the payload, and from MQTT 5's user properties.
    payload_labels: dict[str, Path] = field(default_factory=dict)
    property_labels: dict[str, str] = field(default_factory=dict)
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
        wrong = [*self._wrong(), *self._wrong_filters(), *names.check("metrics", self.metrics)]
        for name, measure in self.metrics.items():
            wrong += [f"metrics.{name}: {problem}" for problem in self._wrong_of(name, measure)]
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the labels that all metrics have, unless they choose among them."""
        return (*self.topic.labels, *self.payload_labels, *self.property_labels)

    def _wrong(self) -> Iterator[str]:
        if self.max_series < 1:
            yield f"max_series: at least 1, got {self.max_series}"
        if len(self.separator) != 1 or self.separator in '"\r\n':
            yield f"separator: expected one character, got {self.separator!r}"
        if self.columns and self.format != "csv":
            yield "columns: only csv has them"
        if self.event_time is not None:
            yield from self._wrong_path(self.event_time.path, "event_time.path: ")
        for name, path in self.payload_labels.items():
            yield from self._wrong_path(path, f"payload_labels.{name}: ")
        for where in ("payload_labels", "property_labels"):
            yield from names.check(where, getattr(self, where))

    def _wrong_filters(self) -> Iterator[str]:
        if strange := sorted(set(self.levels) - set(self.topic.labels)):
            known = ", ".join(self.topic.labels) or "none"
            yield f"levels: {', '.join(strange)} is not in topic, which has: {known}"
        for text in self.where:
            try:
                path = self._path(text)
            except ValueError as error:
                yield f"where: {error}"
            else:
                yield from self._wrong_path(path, f"where.{text}: ")

    def _wrong_of(self, name: str, measure: Measure) -> Iterator[str]:
        if strange := sorted(set(measure.labels or ()) - set(self.labels)):
            known = ", ".join(self.labels) or "none"
            yield f"labels: {', '.join(strange)} is not in topic, nor another label of the rule, which has: {known}"
        elif problem := _wrong_name(name, measure, self.labels_of(measure)):
            yield problem
        for where in ("payload_labels", "const_labels"):
            yield from names.check(where, getattr(measure, where))
        for label, path in measure.payload_labels.items():
            yield from self._wrong_path(path, f"payload_labels.{label}: ")
        for label, text in measure.const_labels.items():
            if len(text) > MAX_LABEL:
                yield f"const_labels.{label}: at most {MAX_LABEL} characters"
        if measure.type == "histogram" and not _rising(measure.buckets):
            yield "buckets: expected numbers, each greater than the one before"
        yield from self._wrong_value(measure)

    def _wrong_value(self, measure: Measure) -> Iterator[str]:
        if measure.type == "info":
            if measure.path or measure.regex:
                yield "path, regex: an info has no value, its texts are payload_labels"
        elif measure.path is not None:
            yield from self._wrong_path(measure.path, "path: ", wild=True)
        elif self.format not in _SINGLE and not measure.counts_messages:
            yield "path is missing: where the value is, $ for the payload itself"

    def _wrong_path(self, path: Path, where: str, *, wild: bool = False) -> Iterator[str]:
        steps = path.steps
        if self.format in _SINGLE and steps:
            yield f"{where}a payload of format {self.format} is one value: $"
        elif path.is_wild and not wild:
            yield f"{where}expected a path to one value, without wildcards, got {path}"
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

    def _path(self, text: str) -> Path:
        return Path.from_setting(int(text) if self.format == "csv" and text.isdigit() else text)

    def conditions(self) -> list[tuple[Path, Choice]]:
        """Return what a payload has to have, and where."""
        return [(self.resolve(self._path(text)), choice) for text, choice in self.where.items()]

    def reader(self, measure: Measure) -> Read:
        """Return what reads the value of a metric from decoded payloads."""
        return measure.conversion.reader(self.resolve(measure.path))

    def labels_of(self, measure: Measure) -> tuple[str, ...]:
        """Return the names of the labels of a metric."""
        shared = self.labels if measure.labels is None else measure.labels
        return (*shared, *measure.own_labels)

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the labels that a topic gives; None where the rule does not take it."""
        values = self.topic.match(topic)
        if values is None or any(one.match(topic) is not None for one in self.ignore_topics):
            return None
        labels = dict(zip(self.topic.labels, values, strict=True))
        fits = (regex.fullmatch(labels[name]) for name, regex in self.levels.items())
        return labels if all(fits) else None

    def why_not(self, topic: str) -> str:
        """Return why the rule does not take a topic; "" where it does."""
        values = self.topic.match(topic)
        if values is None:
            return explain(self.topic, topic)
        for one in self.ignore_topics:
            if one.match(topic) is not None:
                return f"ignore_topics has {one}"
        for name, value in zip(self.topic.labels, values, strict=True):
            if name in self.levels and not self.levels[name].fullmatch(value):
                return f"levels: {name} is {value!r}, and has to match {self.levels[name].pattern}"
            if len(value) > MAX_LABEL:
                return f"{name} has {len(value)} characters, and a label has {MAX_LABEL} at most"
        return ""

    def metric(self, name: str) -> Metric:
        """Return a metric of this rule, the same object for the same declaration."""
        measure = self.metrics[name]
        text = measure.help or f"From messages of {self.topic}."
        return _metric(name, text, _kind(measure), self.labels_of(measure))


def check(rules: Mapping[str, Rule]) -> Iterator[str]:
    """Yield what is wrong with rules beside each other."""
    yield from names.check("rules", rules)
    owners: dict[str, tuple[str, tuple[object, ...]]] = {}
    for title, rule in rules.items():
        for name, measure in rule.metrics.items():
            shape = (measure.type, rule.labels_of(measure), measure.buckets)
            owner, known = owners.setdefault(name, (title, shape))
            if shape != known:
                yield f"rules.{title}.metrics.{name}: of another type, labels or buckets than in {owner}"


def _kind(measure: Measure) -> Kind:
    return Kind.GAUGE if measure.type == "info" else Kind(measure.type)


@cache
def _metric(name: str, text: str, kind: Kind, labels: tuple[str, ...]) -> Metric:
    return Metric(name, text, kind, labels)


def _wrong_name(name: str, measure: Measure, labels: tuple[str, ...]) -> str:
    try:
        Metric(name, "", _kind(measure), labels)
    except ValueError as error:
        return str(error)
    return ""


def _rising(bounds: tuple[float, ...]) -> bool:
    return bool(bounds) and all(a < b for a, b in pairwise(bounds))
