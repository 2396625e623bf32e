"""THE CONTRACT between the engine and a collector: what a plug-in author may rely on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from time import monotonic
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, final

import msgspec

from bts_exporter.errors import DeadlineExceeded, reason_of, text_of
from bts_exporter.immutable import Immutable, make
from bts_exporter.matches import Match
from bts_exporter.scrape_state import ScrapeState

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


class CollectorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of a collector's settings: frozen, typed, unknown keys refused.

    The keys that all collectors share (name, labels, interval, timeout, max_series, optional,
    metrics) belong to the engine and are taken out before.
    """

    #: Where keys belong that users may expect here, by key; part of the error about such a key.
    advice: ClassVar[Mapping[str, str]] = MappingProxyType({})


_NO_SAMPLES: dict[Key, float] = {}
_NUMBERS = {int, float}
#: What the keys of a compound metric's samples begin with, and those of them that end in a bound.
_SUFFIXES = {Kind.HISTOGRAM: {"_bucket", "_sum", "_count"}, Kind.SUMMARY: {"", "_sum", "_count"}}
_BOUNDED = {Kind.HISTOGRAM: {"_bucket"}, Kind.SUMMARY: {""}}


class Scrape(ScrapeState):
    """What one collection of one collector writes its samples to; not for use by several threads.

    A collector cannot replace its attributes: the engine reads them after the collection.
    """

    __slots__ = (
        "_allows",
        "_chooses",
        "_denies",
        "_room",
    )

    def __init__(
        self,
        deadline: float,
        *,
        max_series: int = 10_000_000,
        allows: re.Pattern[str] | None = None,
        denies: re.Pattern[str] | None = None,
    ) -> None:
        """Give `deadline` on the clock of `time.monotonic`."""
        super().__init__(deadline)
        self._room = max_series
        self._allows = allows
        self._denies = denies
        self._chooses = allows is not None or denies is not None

    def remaining(self) -> float:
        """Return the seconds left until the deadline, for I/O time-outs; at least a millisecond."""
        return max(self._deadline - monotonic(), 0.001)

    def emit(self, metric: Metric, value: float, *labels: str) -> None:
        """Add one sample; a wrong one is left out and makes the collection a failure.

        DeadlineExceeded once the scrape is over.
        """
        if len(labels) != metric.width or metric.compound:
            self._reject_shape(metric, labels)
            return
        self._put(metric, labels, value)

    def emit_all(self, metric: Metric, samples: Mapping[Key, float]) -> None:
        """Add many samples of one metric by their label values, for a fraction of `emit`'s time each.

        As with `emit` wrong ones are left out; of one emitted twice the latter is served.
        """
        if self._chooses and not self._wants(metric):
            return
        sound = (
            set(map(type, samples)) == {tuple}
            and set(map(len, samples)) == {metric.width}
            and set(map(type, samples.values())) <= _NUMBERS
            and type(metric) is Metric
            and not metric.compound
            and not self._closed
            and len(samples) <= self._room
        )
        if not sound:  # one by one, to tell what is wrong and keep the others
            for key, value in samples.items():
                if isinstance(key, tuple):
                    self.emit(metric, value, *key)
                else:
                    self._reject(f"{metric.name}: {key!r} is no tuple of labels")
            return
        there = self._samples.setdefault(metric, {})
        together = len(there) + len(samples)
        there.update(samples)
        self._room -= len(samples)
        if len(there) != together:
            self._reject(f"{metric.name}: emitted twice with the same labels")

    def emit_histogram(
        self, metric: Metric, buckets: Iterable[tuple[float, float]], total: float, *labels: str
    ) -> None:
        """Add one histogram: `(upper bound, cumulative count)` rising to +Inf, and the sum of all values."""
        if len(labels) != metric.width or metric.kind is not Kind.HISTOGRAM:
            self._reject_shape(metric, labels)
            return
        rows: list[tuple[Key, float]] = []
        count = 0.0
        bound = 0.0
        for bound, count in buckets:
            rows.append((("_bucket", *labels, number(bound)), count))
        if bound != float("inf"):
            rows.append((("_bucket", *labels, "+Inf"), count))
        rows += ((("_sum", *labels), total), (("_count", *labels), count))
        self._put_all(metric, rows)

    def emit_summary(
        self,
        metric: Metric,
        quantiles: Iterable[tuple[float, float]],
        total: float | None,
        count: float,
        *labels: str,
    ) -> None:
        """Add one summary: `(quantile, value)`, the sum of all values (None: unknown), their count."""
        if len(labels) != metric.width or metric.kind is not Kind.SUMMARY:
            self._reject_shape(metric, labels)
            return
        rows: list[tuple[Key, float]] = [
            (("", *labels, number(quantile)), value) for quantile, value in quantiles
        ]
        if total is not None:
            rows.append((("_sum", *labels), total))
        rows.append((("_count", *labels), count))
        self._put_all(metric, rows)

    def emit_family(self, metric: Metric, samples: Iterable[tuple[Key, float]]) -> None:
        """Add the samples of one metric as another exporter served them: `(key, value)` pairs.

        A key has the label values. Of a histogram or summary it begins with the suffix of the
        sample's name, such as `_bucket`, and ends with the bound of a bucket or quantile.
        """
        if not metric.compound:
            for key, value in samples:
                self.emit(metric, value, *key)
            return
        distributions: dict[Key, list[tuple[Key, float]]] = {}
        for key, value in samples:
            suffix = key[0] if key else None
            width = 1 + metric.width + (suffix in _BOUNDED[metric.kind])
            if len(key) == width and suffix in _SUFFIXES[metric.kind]:
                distributions.setdefault(key[1 : 1 + metric.width], []).append((key, value))
            else:
                self._reject(f"{metric.name}: {key!r} is not the key of a {metric.kind}")
        for rows in distributions.values():
            self._put_all(metric, rows)

    def replace(self, metric: Metric, value: float, *labels: str) -> None:
        """Set the value of a sample that may have been emitted before; at no moment is there none.

        DeadlineExceeded once the scrape is over.
        """
        samples = self._samples.get(metric)
        if samples is None or labels not in samples or self._closed:
            self.emit(metric, value, *labels)
        else:
            samples[labels] = float(value)

    def has(self, metric: Metric, *labels: str) -> bool:
        """Return whether `metric` has a sample: with these label values, or any if none are given."""
        samples = self._samples.get(metric, _NO_SAMPLES)
        return labels in samples if labels else bool(samples)

    def discard(self, metric: Metric, *labels: str) -> None:
        """Remove the sample with these label values, or all of `metric`; nothing if there is none.

        DeadlineExceeded once the scrape is over.
        """
        self._check_open()
        samples = self._samples.get(metric, _NO_SAMPLES)
        gone = [labels] if labels else list(samples)
        for key in gone:
            if samples.pop(key, None) is not None:
                self._room += 1
        if not samples:
            self._samples.pop(metric, None)

    def report(self, error: Exception) -> None:
        """Count `error` as a loss of this collection, which goes on.

        The collection is a failure; all of its losses are part of the message, and their reasons
        are counted. For what ends the collection, raise the error instead.
        """
        self._lose(reason_of(error), text_of(error))

    def _put_all(self, metric: Metric, rows: Sequence[tuple[Key, float]]) -> None:
        """Add the samples of one distribution; if `max_series` leaves no room for all, none of them."""
        if len(rows) > self._room and not self._closed:
            if not self._chooses or self._wants(metric):
                self._dropped += len(rows)
            return
        samples = self._samples.get(metric, _NO_SAMPLES)
        for key, value in rows:
            usual = type(value) is int or type(value) is float
            if samples and usual and key not in samples and not self._closed:
                self._room -= 1
                samples[key] = value
            else:  # the first one, or there is something wrong with it
                self._put(metric, key, value)
                samples = self._samples.get(metric, _NO_SAMPLES)

    def _put(self, metric: Metric, key: Key, value: float) -> None:
        """Add the sample `key` of `metric`."""
        self._check_open()
        samples = self._samples.get(metric)
        if samples is None:
            if self._chooses and not self._wants(metric):
                return
            if type(metric) is not Metric:
                self._reject(f"{type(metric).__name__} is not a metric")
                return
            samples = self._samples[metric] = {}
        if type(value) is not float and type(value) is not int:
            try:
                value = float(value)
            except (TypeError, ValueError):
                self._reject(f"{metric.name}: {value!r} is no number")
                return
        if key in samples:
            self._reject(f"{metric.name}: emitted twice with labels {key!r}")
        elif self._room > 0 or metric.availability:
            self._room -= 1
            samples[key] = value
        else:
            self._dropped += 1

    def _check_open(self) -> None:
        """DeadlineExceeded once the scrape is over."""
        if self._closed:
            msg = "the scrape was over before this collection was"
            raise DeadlineExceeded(msg)

    def _reject(self, message: str) -> None:
        """Count a sample that is left out as a loss."""
        self._lose("invalid_sample", message)

    def _reject_shape(self, metric: Metric, labels: Sequence[str]) -> None:
        if len(labels) != metric.width:
            what = f"takes {metric.width} labels ({', '.join(metric.labels)}), got {len(labels)}"
        else:
            what = f"is a {metric.kind} and not emitted that way"
        self._reject(f"{metric.name} {what}")

    def _wants(self, metric: Metric) -> bool:
        if metric in self._unwanted:
            return False
        denied = self._denies is not None and self._denies.fullmatch(metric.name)
        allowed = self._allows is None or metric.availability or self._allows.fullmatch(metric.name)
        if denied or not allowed:
            self._unwanted.add(metric)
            return False
        return True


class Command(NamedTuple):
    """A command of a collector type, for people: `bts-exporter TYPE-NAME ARGUMENT...`."""

    help: str
    #: What it takes, in this order, all of it needed: name -> help.
    arguments: Mapping[str, str]
    #: Called with the type's blocks of settings and the arguments; yields the lines to print, and
    #: raises ValueError with what is wrong.
    run: Callable[..., Iterable[str]]


class Collector:
    """Base of a collector: override `Config`, declare metrics as class attributes, write `collect`.

    An instance lives as long as its settings do not change. All but `__init__` may do I/O.
    """

    #: The type of this collector's block of settings.
    Config: ClassVar[type[CollectorConfig]] = CollectorConfig
    #: Name of one of several collectors that one block of settings builds; empty for the type's.
    name: ClassVar[str] = ""
    #: True if it reads kernel files and answers at once: it shares a thread with others like it.
    local: ClassVar[bool] = False
    #: `max_series` where the settings do not give it: above what it serves within its own bounds.
    default_max_series: ClassVar[int] = 100_000
    #: Commands of this type by name; they are offered as `bts-exporter TYPE-NAME`.
    commands: ClassVar[Mapping[str, Command]] = MappingProxyType({})
    #: Whether it serves metrics that it cannot declare, such as those of files or of another exporter.
    open_ended: bool = False
    #: Success and duration under the names of the exporter that it is compatible with, by `collector`.
    outcome_metrics: ClassVar[tuple[Metric, Metric] | None] = None

    config: Any

    def __init__(self, config: Any) -> None:
        """Keep the settings; no I/O here."""
        self.config = config

    @classmethod
    def build(cls, config: Any) -> Sequence[Collector]:
        """Return the collectors that one block of settings asks for; no I/O here."""
        return [cls(config)]

    @classmethod
    def declared(cls) -> Iterator[Metric | Template]:
        """Yield every metric that this type can emit, each once."""
        seen: set[Metric | Template] = set()
        for owner in reversed(cls.__mro__):
            for value in vars(owner).values():
                for metric in _metrics_in(value):
                    if metric not in seen:
                        seen.add(metric)
                        yield metric

    @classmethod
    def declared_by(cls, config: Any) -> Iterator[Metric]:  # noqa: ARG003  # for those that override it
        """Yield the metrics that only a block of settings names, the same objects at each call."""
        yield from ()

    def matches(self, samples: Mapping[Metric, Mapping[Key, float]]) -> Iterable[Match]:  # noqa: ARG002  # as above
        """Return what each pattern of the settings matched; `samples` are those of a collection just ended."""
        return ()

    def start(self) -> None:
        """Begin what runs between scrapes, such as a subscription; a dead target is no error here."""

    def stop(self) -> None:
        """End what `start` began and close connections; called from another thread than `collect`."""

    def collect(self, scrape: Scrape) -> None:
        """Emit samples to `scrape`; anything raised is a failure of this collection alone."""
        raise NotImplementedError


def _metrics_in(value: object) -> Iterator[Metric | Template]:
    """Yield the metrics in a class attribute: one, or a table of them, nested as it may be."""
    if isinstance(value, Metric | Template):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _metrics_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _metrics_in(item)


@lru_cache(maxsize=1024, typed=True)  # the same bounds and quantiles at each scrape
def number(value: float) -> str:
    """Return a number as label values and samples spell it: `0.5`, `+Inf`, `NaN`."""
    if value != value:  # noqa: PLR0124  # the definition of NaN
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
