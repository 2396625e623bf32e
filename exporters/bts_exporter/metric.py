"""How metrics are declared: name, help, kind and label names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import final

from bts_exporter.immutable import Immutable, make

METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_RESERVED_LABELS = {"histogram": "le", "summary": "quantile"}

#: The key of a sample within its metric: the label values; histograms and summaries have the
#: suffix of the sample's name in front, and buckets and quantiles their bound behind.
Key = tuple[str, ...]


class Kind(StrEnum):
    """The type of a metric, spelled as the exposition formats spell it."""

    GAUGE = "gauge"
    COUNTER = "counter"
    UNTYPED = "untyped"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


def is_label_name(label: object) -> bool:
    """Return whether a collector may have a label with this name."""
    return isinstance(label, str) and _LABEL_NAME.fullmatch(label) is not None


@final
class Metric(Immutable):
    """A metric's name, help, kind and label names; two are the same only if they are one object."""

    __slots__ = ("availability", "compound", "help", "kind", "labels", "name", "width")

    name: str
    help: str
    kind: Kind
    labels: tuple[str, ...]
    width: int
    #: Whether one value consists of several samples (buckets, quantiles, sum, count).
    compound: bool
    #: Whether it says if a target is up: `max_series` never drops it, and only a `deny` that
    #: names it removes it, since its alert would otherwise go silent.
    availability: bool

    def __new__(cls, name: str, help: str, kind: Kind, labels: Sequence[str] = ()) -> Metric:  # noqa: A002  # the field's word
        """Check the names; ValueError where the data model does not allow one."""
        if not isinstance(name, str) or not METRIC_NAME.fullmatch(name):
            msg = f"{name!r} is not a metric name"
            raise ValueError(msg)
        if not isinstance(help, str):
            msg = f"{name}: the help must be a text, got {help!r}"
            raise ValueError(msg)  # noqa: TRY004  # as the other mistakes
        labels = (labels,) if isinstance(labels, str) else tuple(labels)
        for label in labels:
            if not is_label_name(label) or label == _RESERVED_LABELS.get(kind):
                msg = f"{name}: {label!r} cannot be the name of a label"
                raise ValueError(msg)
        if len(set(labels)) != len(labels):
            msg = f"{name}: a label is named twice: {', '.join(labels)}"
            raise ValueError(msg)
        return make(
            cls,
            # Exact strings: a subclass of str could change its text later.
            name=str.__str__(name),
            help=str.__str__(help),
            kind=Kind(kind),
            labels=tuple(map(str.__str__, labels)),
            width=len(labels),
            compound=kind in _RESERVED_LABELS,
            availability=name.endswith("_up"),
        )

    def __init_subclass__(cls) -> None:
        """Refuse: what a subclass adds would be lost, and what it changes would break the page."""
        msg = "Metric cannot be subclassed"
        raise TypeError(msg)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}{{{','.join(self.labels)}}}>"


@final
class Template(Immutable):
    """Metrics whose names come from the source, such as `node_memory_{field}_bytes`.

    The placeholder is `{field}`, in the name and, where wanted, in the help.
    """

    __slots__ = ("_metrics", "help", "kind", "labels", "name")

    name: str
    help: str
    kind: Kind
    labels: tuple[str, ...]
    _metrics: dict[str, Metric]

    def __new__(cls, name: str, help: str, kind: Kind, labels: Sequence[str] = ()) -> Template:  # noqa: A002  # the field's word
        """Check the names; ValueError where the data model does not allow one."""
        labels = (labels,) if isinstance(labels, str) else tuple(labels)
        made = make(cls, name=name, help=help, kind=Kind(kind), labels=labels, _metrics={})
        made.of("field")
        return made

    def of(self, field: str) -> Metric:
        """Return the metric for `field`, the same object at each call; ValueError if it spells no name."""
        metric = self._metrics.get(field)
        if metric is None:
            metric = Metric(
                self.name.replace("{field}", field),
                self.help.replace("{field}", field),
                self.kind,
                self.labels,
            )
            self._metrics[field] = metric
        return metric

    def has(self, metric: Metric) -> bool:
        """Return whether `metric` came from this template."""
        return metric in self._metrics.values()


def gauge(name: str, help: str, labels: Sequence[str] = ()) -> Metric:  # noqa: A002
    """Declare a value that can go up and down."""
    return Metric(name, help, Kind.GAUGE, labels)


def counter(name: str, help: str, labels: Sequence[str] = ()) -> Metric:  # noqa: A002
    """Declare a value that only goes up, or starts again at 0; its name ends in `_total`."""
    return Metric(name, help, Kind.COUNTER, labels)


def untyped(name: str, help: str, labels: Sequence[str] = ()) -> Metric:  # noqa: A002
    """Declare a value of which it is not known whether it is a counter or a gauge."""
    return Metric(name, help, Kind.UNTYPED, labels)


def histogram(name: str, help: str, labels: Sequence[str] = ()) -> Metric:  # noqa: A002
    """Declare a distribution in buckets; emitted with `Scrape.emit_histogram`."""
    return Metric(name, help, Kind.HISTOGRAM, labels)


def summary(name: str, help: str, labels: Sequence[str] = ()) -> Metric:  # noqa: A002
    """Declare a distribution in quantiles; emitted with `Scrape.emit_summary`."""
    return Metric(name, help, Kind.SUMMARY, labels)


def label_problem(metric: Metric, key: Key) -> str:
    """Return why the label values in the key of a sample cannot be served; empty if they can."""
    bound = _RESERVED_LABELS.get(metric.kind, "")
    for label, value in zip((*metric.labels, bound), key[metric.compound :], strict=False):
        if not isinstance(value, str):
            kind = type(value).__name__
            return f"{metric.name}: the value of label {label} is of type {kind} (expected str)"
    return ""


@lru_cache(maxsize=1024, typed=True)  # the same bounds and quantiles at each scrape
def number(value: float) -> str:
    """Return a number as label values and samples spell it: `0.5`, `+Inf`, `NaN`."""
    if value != value:  # noqa: PLR0124  # the definition of NaN
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
