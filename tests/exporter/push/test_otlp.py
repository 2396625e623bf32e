"""The encoder of OTLP, read with OpenTelemetry's official protobuf definitions."""

from __future__ import annotations

import gzip

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK,
    Metric,
)

from bts_exporter.push.otlp import Otlp
from bts_exporter.push.series import Source

PAGE = """\
# HELP events_total Events.
# TYPE events_total counter
events_total{{kind="b"}} {events}
# HELP level A level.
# TYPE level gauge
level 1.5
# HELP size_bytes Sizes.
# TYPE size_bytes histogram
size_bytes_bucket{{le="1"}} 2
size_bytes_bucket{{le="4"}} 3
size_bytes_bucket{{le="+Inf"}} 5
size_bytes_sum 7.5
size_bytes_count 5
# HELP wait_seconds Waits.
# TYPE wait_seconds summary
wait_seconds{{quantile="0.5"}} 0.1
wait_seconds_sum 0.9
wait_seconds_count 6
"""
SECOND = 1_000_000_000


def page(events: float) -> bytes:
    """Return a page with a metric of each kind."""
    return PAGE.format(events=events).encode()


def metrics(body: bytes) -> dict[str, Metric]:
    """Return the metrics of a body by name."""
    request = ExportMetricsServiceRequest.FromString(gzip.decompress(body))
    (resource,) = request.resource_metrics
    (scope,) = resource.scope_metrics
    return {metric.name: metric for metric in scope.metrics}


def test_each_kind_has_its_otlp_type() -> None:
    """Counters become monotonic sums, distributions have separate buckets, all cumulative."""
    (body,) = Otlp(Source("edge", "site-1")).encode(page(2), 10)

    found = metrics(body)
    total, sizes, waits = (
        found["events_total"].sum,
        found["size_bytes"].histogram,
        found["wait_seconds"],
    )
    assert (total.is_monotonic, total.aggregation_temporality) == (
        True,
        AGGREGATION_TEMPORALITY_CUMULATIVE,
    )
    assert total.data_points[0].as_double == 2
    assert total.data_points[0].attributes[0].value.string_value == "b"
    assert found["events_total"].description == "Events."
    assert found["level"].gauge.data_points[0].as_double == 1.5
    assert sizes.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    assert list(sizes.data_points[0].explicit_bounds) == [1, 4]
    assert list(sizes.data_points[0].bucket_counts) == [2, 1, 2]
    assert (sizes.data_points[0].count, sizes.data_points[0].sum) == (5, 7.5)
    point = waits.summary.data_points[0]
    assert (point.count, point.sum, point.quantile_values[0].value) == (6, 0.9, 0.1)


def test_source_is_the_resource() -> None:
    """Job and instance are service.name and service.instance.id, which receivers map to these labels."""
    (body,) = Otlp(Source("edge", "site-1")).encode(page(2), 10)

    request = ExportMetricsServiceRequest.FromString(gzip.decompress(body))
    attributes = request.resource_metrics[0].resource.attributes
    assert {a.key: a.value.string_value for a in attributes} == {
        "service.name": "edge",
        "service.instance.id": "site-1",
    }


def test_start_is_the_first_collection_and_moves_at_a_reset() -> None:
    """A counter that falls was reset after the collection before: that is its new start."""
    encoder = Otlp(Source("edge", "a"))
    starts = []
    for at, events in ((10, 5), (20, 7), (30, 1), (40, 2)):
        (body,) = encoder.encode(page(events), at)
        point = metrics(body)["events_total"].sum.data_points[0]
        starts.append((point.start_time_unix_nano // SECOND, point.time_unix_nano // SECOND))

    assert starts == [(10, 10), (10, 20), (20, 30), (20, 40)]


def test_point_that_is_gone_is_marked() -> None:
    """A series that ended gets one point without a value, and all do at the end."""
    encoder = Otlp(Source("edge", "a"))
    encoder.encode(page(2), 10)

    (second,) = encoder.encode(b"# TYPE level gauge\nlevel 1\n", 20)
    (end,) = encoder.end(30)

    gone = metrics(second)["events_total"].sum.data_points[0]
    assert gone.flags == DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
    assert metrics(second)["size_bytes"].histogram.data_points[0].flags == gone.flags
    assert metrics(second)["level"].gauge.data_points[0].flags == 0
    assert {name: m.gauge.data_points[0].flags for name, m in metrics(end).items()} == {"level": 1}


def test_partial_success_is_read() -> None:
    """The number of points that the receiver refused, and its reason; other responses have neither."""
    response = ExportMetricsServiceResponse(
        partial_success=ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too old")
    )
    encoder = Otlp(Source("edge", "a"))

    assert encoder.rejected(response.SerializeToString()) == (3, "too old")
    assert encoder.rejected(b"") == (0, "")
    assert encoder.rejected(b"<html>") == (0, "")
