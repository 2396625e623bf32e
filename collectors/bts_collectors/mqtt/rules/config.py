"""Settings of rules: topics, metrics, and how payloads are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from msgspec import Meta, field

from bts_collectors.mqtt import names
from bts_collectors.mqtt.client.topics import Pattern, explain
from bts_collectors.mqtt.rules.event_time import EventTime
from bts_collectors.mqtt.rules.payloads import MAX_LABEL, Conversion, Format, Path, Read, as_text
from bts_exporter import CollectorConfig, Duration, Kind, Metric

_DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WHOLE = Path("$", ())
#: Formats whose payload is one value.
_SINGLE = {"number", "text"}


@dataclass(frozen=True, slots=True)
class Choice:
    """A set of allowed values, compared as text."""

    texts: frozenset[str]

    example: ClassVar[str] = "[A, B]"

    @classmethod
    def setting_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what `from_setting` accepts."""
        value = {"type": ["string", "number", "boolean"]}
        return {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Parse one value or a list of values; ValueError for anything else."""
        values = raw if isinstance(raw, list) else [raw]
        if not values or not all(isinstance(value, str | int | float) for value in values):
            msg = f"expected a text or number, or a list of them, got {raw!r}"
            raise ValueError(msg)
        return cls(frozenset(as_text(value) for value in values))

    def __str__(self) -> str:
        return " or ".join(sorted(map(repr, self.texts)))


class Measure(CollectorConfig, frozen=True):
    """Settings of one metric of a rule."""

    #: Type of the metric.
    type: Literal["gauge", "counter", "histogram", "info"] = "gauge"
    #: Help of the metric.
    help: str = ""
    #: Path of the value; a counter without a path counts messages.
    path: Path | None = None
    #: Searched for in a text; the value is the first group, or the whole match.
    regex: re.Pattern[str] | None = None
    #: Decimal separator of numbers in texts.
    decimal: Literal[".", ","] = "."
    #: Numbers for texts; null for texts without a number.
    map: dict[str, float | None] = field(default_factory=dict)
    #: Factor of the value.
    scale: float = 1.0
    #: Added to the value, after `scale`.
    offset: float = 0.0
    #: Labels of the rule that this metric has; all of them if None.
    labels: tuple[str, ...] | None = None
    #: Labels of this metric only, from the payload.
    payload_labels: dict[str, Path] = field(default_factory=dict)
    #: Constant labels of this metric.
    const_labels: dict[str, str] = field(default_factory=dict)
    #: Upper bounds of a histogram, without +Inf.
    buckets: tuple[float, ...] = _DEFAULT_BUCKETS
    #: What happens to the series when a message has no valid value: it keeps the last one, or is
    #: dropped until the next one.
    on_error: Literal["keep", "drop"] = "keep"

    @property
    def counts_messages(self) -> bool:
        """Return whether the metric counts messages and reads no value."""
        return self.type == "counter" and self.path is None

    @property
    def own_labels(self) -> tuple[str, ...]:
        """Return the names of the labels that only this metric has."""
        wild = self.path.labels if self.path else ()
        return (*self.payload_labels, *wild, *self.const_labels)

    @property
    def conversion(self) -> Conversion:
        """Return the conversion of values in payloads to numbers."""
        return Conversion(
            mapping=self.map,
            scale=self.scale,
            offset=self.offset,
            regex=self.regex,
            decimal=self.decimal,
            total=self.type == "counter",
        )


class Rule(CollectorConfig, frozen=True):
    """Settings of one rule: the topics it matches, and the metrics it makes of their messages."""

    #: Topic pattern; named levels become labels.
    topic: Pattern
    #: Topics to exclude.
    ignore_topics: tuple[Pattern, ...] = ()
    #: Regular expressions that named levels must match as a whole.
    levels: dict[str, re.Pattern[str]] = field(default_factory=dict)
    #: QoS of the subscription.
    qos: Literal[0, 1, 2] = 0
    #: Format of the payload.
    format: Format = "json"
    #: Names of CSV columns.
    columns: tuple[str, ...] = ()
    #: Separator of CSV columns.
    separator: Annotated[str, Meta(extra_json_schema={"pattern": r'^[^"\r\n]$'})] = ","
    #: Values that a payload must have, by path.
    where: dict[str, Choice] = field(default_factory=dict)
    #: Labels from the payload, by name.
    payload_labels: dict[str, Path] = field(default_factory=dict)
    #: Labels from user properties (MQTT 5).
    property_labels: dict[str, str] = field(default_factory=dict)
    #: By metric name.
    metrics: dict[str, Measure] = field(default_factory=dict)
    event_time: EventTime | None = None
    #: Whether to emit messages, bytes and the time of the last message by topic.
    per_topic: bool = False
    #: Time without a message after which a series is dropped; 0 keeps it.
    expire: Duration = Duration(3600)
    #: Maximum number of series of the rule.
    max_series: Annotated[int, Meta(extra_json_schema={"minimum": 1})] = 10_000

    def __post_init__(self) -> None:
        """Check combinations of settings; ValueError lists all problems."""
        problems = [
            *self._general_problems(),
            *self._filter_problems(),
            *names.check("metrics", self.metrics),
        ]
        for name, measure in self.metrics.items():
            problems += [
                f"metrics.{name}: {problem}" for problem in self._metric_problems(name, measure)
            ]
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels of all metrics of the rule that do not restrict them with `labels`."""
        return (*self.topic.labels, *self.payload_labels, *self.property_labels)

    def _general_problems(self) -> Iterator[str]:
        if self.max_series < 1:
            yield f"max_series: must be at least 1, got {self.max_series}"
        if len(self.separator) != 1 or self.separator in '"\r\n':
            yield f"separator: {self.separator!r} is not a valid separator (expected one character)"
        if self.columns and self.format != "csv":
            yield "columns: only valid with format: csv"
        if self.event_time is not None:
            yield from self._path_problems(self.event_time.path, "event_time.path: ")
        for name, path in self.payload_labels.items():
            yield from self._path_problems(path, f"payload_labels.{name}: ")
        for where in ("payload_labels", "property_labels"):
            yield from names.check(where, getattr(self, where))

    def _filter_problems(self) -> Iterator[str]:
        if unknown := sorted(set(self.levels) - set(self.topic.labels)):
            known = ", ".join(self.topic.labels) or "none"
            yield f"levels: {', '.join(unknown)} not found in topic, which has: {known}"
        for text in self.where:
            try:
                path = self._path(text)
            except ValueError as error:
                yield f"where: {error}"
            else:
                yield from self._path_problems(path, f"where.{text}: ")

    def _metric_problems(self, name: str, measure: Measure) -> Iterator[str]:
        if unknown := sorted(set(measure.labels or ()) - set(self.labels)):
            known = ", ".join(self.labels) or "none"
            yield f"labels: {', '.join(unknown)} not found among the rule's labels: {known}"
        elif problem := _name_problem(name, measure, self.labels_of(measure)):
            yield problem
        for where in ("payload_labels", "const_labels"):
            yield from names.check(where, getattr(measure, where))
        for label, path in measure.payload_labels.items():
            yield from self._path_problems(path, f"payload_labels.{label}: ")
        for label, text in measure.const_labels.items():
            if len(text) > MAX_LABEL:
                yield f"const_labels.{label}: a label value has at most {MAX_LABEL} characters"
        if measure.type == "histogram" and not _rising(measure.buckets):
            yield "buckets: expected numbers in strictly rising order"
        yield from self._value_problems(measure)

    def _value_problems(self, measure: Measure) -> Iterator[str]:
        if measure.type == "info":
            if measure.path or measure.regex:
                yield "path, regex: an info metric has no value, only labels: use payload_labels"
        elif measure.path is not None:
            yield from self._path_problems(measure.path, "path: ", wild=True)
        elif self.format not in _SINGLE and not measure.counts_messages:
            yield "path is missing: the path of the value, or $ for the whole payload"

    def _path_problems(self, path: Path, where: str, *, wild: bool = False) -> Iterator[str]:
        steps = path.steps
        if self.format in _SINGLE and steps:
            yield f"{where}a payload of format {self.format} has a single value, its path is $"
        elif path.is_wild and not wild:
            yield f"{where}expected a path without wildcards, got {path}"
        if self.format == "csv" and not (
            len(steps) == 1 and (isinstance(steps[0], int) or steps[0] in self.columns)
        ):
            known = ", ".join(self.columns) or "none"
            yield f"{where}expected a column number, from 0, or one of columns ({known}), got {path}"

    def resolve(self, path: Path | None) -> Path:
        """Return the path in decoded payloads: names of CSV columns become numbers."""
        if path is None:
            return _WHOLE
        if self.format == "csv" and isinstance(column := path.steps[0], str):
            return Path(path.text, (self.columns.index(column),))
        return path

    def _path(self, text: str) -> Path:
        return Path.from_setting(int(text) if self.format == "csv" and text.isdigit() else text)

    def conditions(self) -> list[tuple[Path, Choice]]:
        """Return the paths and allowed values of `where`."""
        return [(self.resolve(self._path(text)), choice) for text, choice in self.where.items()]

    def reader(self, measure: Measure) -> Read:
        """Return a function that reads the metric's value from a decoded payload."""
        return measure.conversion.reader(self.resolve(measure.path))

    def labels_of(self, measure: Measure) -> tuple[str, ...]:
        """Return all label names of a metric."""
        shared = self.labels if measure.labels is None else measure.labels
        return (*shared, *measure.own_labels)

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the labels from a topic, or None if the rule does not match it."""
        values = self.topic.match(topic)
        if values is None or any(
            pattern.match(topic) is not None for pattern in self.ignore_topics
        ):
            return None
        labels = dict(zip(self.topic.labels, values, strict=True))
        fits = (regex.fullmatch(labels[name]) for name, regex in self.levels.items())
        return labels if all(fits) else None

    def why_not(self, topic: str) -> str:
        """Return why the rule does not match a topic; "" if it does."""
        values = self.topic.match(topic)
        if values is None:
            return explain(self.topic, topic)
        for pattern in self.ignore_topics:
            if pattern.match(topic) is not None:
                return f"ignore_topics has {pattern}"
        for name, value in zip(self.topic.labels, values, strict=True):
            if name in self.levels and not self.levels[name].fullmatch(value):
                return (
                    f"levels: {name} is {value!r}, which does not match {self.levels[name].pattern}"
                )
            if len(value) > MAX_LABEL:
                return (
                    f"{name} has {len(value)} characters, but a label value has at most {MAX_LABEL}"
                )
        return ""

    def metric(self, name: str) -> Metric:
        """Return the declaration of a metric: the same object for equal declarations."""
        measure = self.metrics[name]
        text = measure.help or f"From messages of {self.topic}."
        return _metric(name, text, _kind(measure), self.labels_of(measure))


def check(rules: Mapping[str, Rule]) -> Iterator[str]:
    """Yield the problems of names, and of metrics that several rules declare differently."""
    yield from names.check("rules", rules)
    owners: dict[str, tuple[str, tuple[object, ...]]] = {}
    for title, rule in rules.items():
        for name, measure in rule.metrics.items():
            shape = (measure.type, rule.labels_of(measure), measure.buckets)
            owner, known = owners.setdefault(name, (title, shape))
            if shape != known:
                yield f"rules.{title}.metrics.{name}: type, labels or buckets differ from rule {owner}"


def _kind(measure: Measure) -> Kind:
    return Kind.GAUGE if measure.type == "info" else Kind(measure.type)


@cache
def _metric(name: str, text: str, kind: Kind, labels: tuple[str, ...]) -> Metric:
    return Metric(name, text, kind, labels)


def _name_problem(name: str, measure: Measure, labels: tuple[str, ...]) -> str:
    try:
        Metric(name, "", _kind(measure), labels)
    except ValueError as error:
        return str(error)
    return ""


def _rising(bounds: tuple[float, ...]) -> bool:
    return bool(bounds) and all(a < b for a, b in pairwise(bounds))
