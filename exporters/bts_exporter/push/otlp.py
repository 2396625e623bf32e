"""OTLP over HTTP: OpenTelemetry's protobuf messages, gzipped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp

import bts_exporter
from bts_exporter.exposition.page import compress
from bts_exporter.metric import Kind
from bts_exporter.prometheus_text import Family, Sample
from bts_exporter.push.series import MAX_SAMPLES, Labels, Source, families, renamed

_BOUNDS = {Kind.HISTOGRAM: "le", Kind.SUMMARY: "quantile"}
_CUMULATIVE = otlp.AGGREGATION_TEMPORALITY_CUMULATIVE
#: Kinds whose values are counted since a start.
_COUNTED = {Kind.COUNTER, Kind.HISTOGRAM, Kind.SUMMARY}


class _Key(NamedTuple):
    """The identity of a data point."""

    name: str
    kind: Kind
    labels: Labels


class _Point(NamedTuple):
    """The samples of a data point: one, or those of a distribution; none if its series has ended."""

    key: _Key
    help: str
    samples: list[Sample]
    start: int = 0


class _Counted(NamedTuple):
    """Since when a value is counted (nanoseconds), its last value, and when it had that."""

    start: int
    value: float
    seen: int


class Otlp:
    """The encoder of OTLP."""

    method = "POST"
    headers: Mapping[str, str] = MappingProxyType(
        {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "gzip",
            "User-Agent": f"bts-exporter/{bts_exporter.__version__}",
        }
    )

    def __init__(self, source: Source) -> None:
        """Take the source, which becomes the resource service.name and service.instance.id."""
        self._source = source
        #: Every point of the page before, and since when it is counted.
        self._before: dict[_Key, _Counted] = {}

    def encode(self, page: bytes, timestamp: float) -> list[bytes]:
        """Return the bodies for a page; points that are gone since the page before are marked so."""
        now = _nanoseconds(timestamp)
        counted: dict[_Key, _Counted] = {}
        points = []
        for family in families(page):
            for point in _points(family):
                counted[point.key] = since = self._since(point, now)
                points.append(point._replace(start=since.start))
        gone = [_Point(key, "", []) for key in self._before if key not in counted]
        self._before = counted
        return self._bodies([*points, *gone], now)

    def end(self, timestamp: float) -> list[bytes]:
        """Return the bodies that mark every point as gone."""
        gone = [_Point(key, "", []) for key in self._before]
        self._before = {}
        return self._bodies(gone, _nanoseconds(timestamp))

    def rejected(self, response: bytes) -> tuple[int, str]:
        """Return the number of rejected points of a partial success, and the reason."""
        try:
            found = ExportMetricsServiceResponse.FromString(response).partial_success
        except DecodeError:  # some receivers answer in JSON, or with text
            return 0, ""
        return found.rejected_data_points, found.error_message

    def _since(self, point: _Point, now: int) -> _Counted:
        """Return since when a point is counted.

        That is the first time it was seen. If its value has fallen, it was reset: then it is counted
        since the collection before.
        """
        value = _progress(point)
        before = self._before.get(point.key)
        if before is None:
            return _Counted(now, value, now)
        start = before.seen if value < before.value else before.start
        return _Counted(start, value, now)

    def _bodies(self, points: list[_Point], now: int) -> list[bytes]:
        left = iter(points)
        bodies = []
        while part := list(islice(left, MAX_SAMPLES)):
            request = ExportMetricsServiceRequest()
            resource = request.resource_metrics.add()
            resource.resource.attributes.extend(
                _attributes(
                    [
                        ("service.name", self._source.job),
                        ("service.instance.id", self._source.instance),
                    ]
                )
            )
            scope = resource.scope_metrics.add()
            scope.scope.name, scope.scope.version = "bts-exporter", bts_exporter.__version__
            metrics: dict[tuple[str, Kind], otlp.Metric] = {}
            for point in part:
                name, kind, _ = point.key
                if (name, kind) not in metrics:
                    metrics[name, kind] = scope.metrics.add(name=name, description=point.help)
                _add(metrics[name, kind], point, now)
            bodies.append(compress([request.SerializeToString()]))
        return bodies


def _points(family: Family) -> Iterator[_Point]:
    bound = _BOUNDS.get(family.kind)
    found: dict[Labels, list[Sample]] = {}
    for sample in family.samples:
        labels = tuple(sorted(pair for pair in renamed(sample.labels) if pair[0] != bound))
        found.setdefault(labels, []).append(sample)
    for labels, samples in found.items():
        yield _Point(_Key(family.name, family.kind, labels), family.help, samples)


def _progress(point: _Point) -> float:
    """Return the value that only falls at a reset."""
    if point.key.kind not in _BOUNDS:
        return point.samples[0].value
    return next((s.value for s in point.samples if s.suffix == "_count"), math.nan)


def _add(metric: otlp.Metric, point: _Point, now: int) -> None:
    kind, samples = point.key.kind, point.samples
    common = {
        "attributes": _attributes(point.key.labels),
        "time_unix_nano": now,
        "start_time_unix_nano": point.start if kind in _COUNTED else 0,
        "flags": 0 if samples else otlp.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK,
    }
    if kind is Kind.HISTOGRAM:
        metric.histogram.aggregation_temporality = _CUMULATIVE
        _fill_histogram(metric.histogram.data_points.add(**common), samples)
    elif kind is Kind.SUMMARY:
        _fill_summary(metric.summary.data_points.add(**common), samples)
    elif kind is Kind.COUNTER:
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = _CUMULATIVE, True
        metric.sum.data_points.add(**common, **_value(samples))
    else:
        metric.gauge.data_points.add(**common, **_value(samples))


def _value(samples: list[Sample]) -> dict[str, float]:
    return {"as_double": samples[0].value} if samples else {}


def _fill_histogram(point: otlp.HistogramDataPoint, samples: list[Sample]) -> None:
    """Fill in the buckets, each with its own count; in Prometheus they include the smaller ones."""
    parts = {s.suffix: s.value for s in samples if s.suffix != "_bucket"}
    buckets = sorted(
        (float(s.labels.get("le", "nan")), s.value) for s in samples if s.suffix == "_bucket"
    )
    total = parts.get("_count", buckets[-1][1] if buckets else 0)
    point.count = _whole(total)
    if "_sum" in parts:
        point.sum = parts["_sum"]
    bounds = [pair for pair in buckets if math.isfinite(pair[0])]
    if not bounds:
        return
    before = 0
    for bound, value in bounds:
        point.explicit_bounds.append(bound)
        point.bucket_counts.append(max(_whole(value) - before, 0))
        before = max(_whole(value), before)
    point.bucket_counts.append(max(point.count - before, 0))


def _fill_summary(point: otlp.SummaryDataPoint, samples: list[Sample]) -> None:
    for sample in samples:
        if sample.suffix == "_count":
            point.count = _whole(sample.value)
        elif sample.suffix == "_sum":
            point.sum = sample.value
        else:
            quantile = float(sample.labels.get("quantile", "nan"))
            point.quantile_values.add(quantile=quantile, value=sample.value)


def _whole(value: float) -> int:
    return max(int(value), 0) if math.isfinite(value) else 0


def _attributes(labels: Iterable[tuple[str, str]]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in labels]


def _nanoseconds(timestamp: float) -> int:
    return round(timestamp * 1000) * 1_000_000
