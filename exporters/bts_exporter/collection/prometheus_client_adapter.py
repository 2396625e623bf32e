"""Custom collectors written for prometheus_client, used as plug-ins without changes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Protocol, cast

import msgspec

from bts_exporter.errors import PluginError, TargetError
from bts_exporter.metric import Key, Kind, Metric
from bts_exporter.plugin import Collector, CollectorConfig
from bts_exporter.scrape import Scrape

_KINDS = {
    "counter": Kind.COUNTER,
    "histogram": Kind.HISTOGRAM,
    "summary": Kind.SUMMARY,
    "unknown": Kind.UNTYPED,
    "untyped": Kind.UNTYPED,
}
#: Sample names that stand for the samples themselves, not for when a series was created.
_SUFFIXES = {
    Kind.HISTOGRAM: ("_bucket", "_sum", "_count"),
    Kind.SUMMARY: ("", "_sum", "_count"),
}


class _Sample(Protocol):
    name: str
    labels: dict[str, str]
    value: float


class _Family(Protocol):
    name: str
    documentation: str
    type: str
    samples: list[_Sample]


class _IgnoringRegistry:
    """Replaces the registry of a collector that registers itself."""

    def register(self, collector: object) -> None:
        """Do nothing."""


class Adapted(Collector):
    """Runs a prometheus_client collector; its constructor's arguments are its settings."""

    foreign: type[Any]
    open_ended = True

    def __init__(self, config: CollectorConfig) -> None:
        """Keep the arguments."""
        super().__init__(config)
        self._foreign: Any = None
        self._metrics: dict[tuple[str, Kind, tuple[str, ...]], Metric] = {}

    def collect(self, scrape: Scrape) -> None:
        """Emit every sample of every family that the foreign collector yields."""
        if self._foreign is None:
            self._foreign = self._make()
        for family in cast("Iterable[_Family]", self._foreign.collect()):
            kind = _KINDS.get(family.type, Kind.GAUGE)
            emit = self._emit_compound if kind in _SUFFIXES else self._emit_simple
            try:
                emit(scrape, family, kind)
            except ValueError as error:  # a name that we do not serve: the others stay
                scrape.report(TargetError("invalid_sample", str(error)))

    def _make(self) -> Any:
        # Not before the first collection: its constructor may open connections and start threads,
        # which cannot be ended, and a reload creates each collector only to compare its settings.
        arguments = msgspec.structs.asdict(self.config)
        if "registry" in inspect.signature(self.foreign).parameters:
            arguments["registry"] = _IgnoringRegistry()
        return self.foreign(**arguments)

    def _emit_simple(self, scrape: Scrape, family: _Family, kind: Kind) -> None:
        # The suffixes of counters and infos are part of our metrics' names.
        by_name: dict[str, list[_Sample]] = {}
        for sample in family.samples:
            if kind is not Kind.COUNTER or sample.name != f"{family.name}_created":
                by_name.setdefault(sample.name, []).append(sample)
        for name, samples in by_name.items():
            labels = _union(samples)
            metric = self._metric(name, family.documentation, kind, labels)
            pairs = [(_values(sample, labels), sample.value) for sample in samples]
            scrape.emit_family(metric, pairs)

    def _emit_compound(self, scrape: Scrape, family: _Family, kind: Kind) -> None:
        bound = "le" if kind is Kind.HISTOGRAM else "quantile"
        labels = tuple(label for label in _union(family.samples) if label != bound)
        metric = self._metric(family.name, family.documentation, kind, labels)
        pairs: list[tuple[Key, float]] = []
        for sample in family.samples:
            suffix = sample.name.removeprefix(family.name)
            if suffix in _SUFFIXES[kind]:
                ends = (sample.labels[bound],) if bound in sample.labels else ()
                pairs.append(((suffix, *_values(sample, labels), *ends), sample.value))
        scrape.emit_family(metric, pairs)

    def _metric(self, name: str, text: str, kind: Kind, labels: tuple[str, ...]) -> Metric:
        key = (name, kind, labels)
        if key not in self._metrics:
            self._metrics[key] = Metric(name, text, kind, labels)
        return self._metrics[key]


@cache
def adapt(loaded: object) -> type[Collector]:
    """Return `loaded` as a collector type; PluginError if it is neither."""
    if inspect.isclass(loaded) and issubclass(loaded, Collector):
        return loaded
    if not inspect.isclass(loaded) or not callable(getattr(loaded, "collect", None)):
        msg = f"{loaded!r} is neither a Collector nor a class with a collect method"
        raise PluginError(msg)
    members = {
        "__doc__": loaded.__doc__,
        "__module__": loaded.__module__,  # which errors name
        "foreign": loaded,
        "Config": _settings_of(loaded),
    }
    return type(loaded.__name__, (Adapted,), members)


def _settings_of(foreign: type[Any]) -> type[CollectorConfig]:
    """Return the constructor's arguments as settings, without types."""
    fields: list[Any] = []
    for name, parameter in inspect.signature(foreign).parameters.items():
        open_ended = parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
        if open_ended or name == "registry":
            continue
        if parameter.default is parameter.empty:
            fields.append((name, Any))
        else:
            fields.append((name, Any, msgspec.field(default_factory=_giver(parameter.default))))
    return cast(
        "type[CollectorConfig]",
        msgspec.defstruct(
            f"{foreign.__name__}Config", fields, bases=(CollectorConfig,), frozen=True, kw_only=True
        ),
    )


def _giver(default: object) -> Any:
    return lambda: default


def _values(sample: _Sample, labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(sample.labels.get(label, "") for label in labels)


def _union(samples: Sequence[_Sample]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for sample in samples for label in sample.labels))
