"""The encoder of remote write: labels, timestamps, stale markers."""

from __future__ import annotations

import struct
from typing import Any

import cramjam

from bts_exporter.push import remote_write, series
from bts_exporter.push.remote_write import RemoteWrite
from bts_exporter.push.remote_write_messages import WriteRequest
from bts_exporter.push.series import Source

PAGE = b"""\
# HELP events_total Events.
# TYPE events_total counter
events_total{kind="b",empty=""} 2
# HELP size_bytes Sizes.
# TYPE size_bytes histogram
size_bytes_bucket{le="1"} 2
size_bytes_bucket{le="+Inf"} 5
size_bytes_sum 7.5
size_bytes_count 5
"""
STALE_BITS = 0x7FF0000000000002


def decoded(body: bytes) -> Any:
    """Return the message of a body."""
    return WriteRequest.FromString(bytes(cramjam.snappy.decompress_raw(body)))


def samples(body: bytes) -> dict[tuple[tuple[str, str], ...], tuple[float, int]]:
    """Return value and timestamp of each series."""
    return {
        tuple((label.name, label.value) for label in found.labels): (
            found.samples[0].value,
            found.samples[0].timestamp,
        )
        for found in decoded(body).timeseries
    }


def is_stale(value: float) -> bool:
    """Return whether a value has exactly the bits of a stale marker."""
    return struct.unpack("<Q", struct.pack("<d", value))[0] == STALE_BITS


def test_series_have_sorted_labels_and_the_time_of_the_collection() -> None:
    """Each sample becomes a series with job, instance and its labels in order; empty labels are left out."""
    (body,) = RemoteWrite(Source("edge", "site-1")).encode(PAGE, 1000.5)

    found = samples(body)
    ours = (("instance", "site-1"), ("job", "edge"))
    assert found[("__name__", "events_total"), *ours, ("kind", "b")] == (2, 1000500)
    assert found[("__name__", "size_bytes_bucket"), *ours, ("le", "+Inf")] == (5, 1000500)
    assert found[("__name__", "size_bytes_sum"), *ours] == (7.5, 1000500)
    assert len(found) == 5


def test_job_and_instance_of_a_metric_are_renamed() -> None:
    """Labels of that name in a metric become exported_job and exported_instance, as in a scrape."""
    (body,) = RemoteWrite(Source("edge", "a")).encode(b'# TYPE x gauge\nx{job="own"} 1\n', 1)

    assert list(samples(body)) == [
        (("__name__", "x"), ("exported_job", "own"), ("instance", "a"), ("job", "edge"))
    ]


def test_series_that_is_gone_gets_one_stale_marker() -> None:
    """The page after its last one has a marker for it; later pages do not mention it."""
    encoder = RemoteWrite(Source("edge", "a"))
    encoder.encode(PAGE, 1)

    (second,) = encoder.encode(PAGE.replace(b'kind="b"', b'kind="c"'), 2)
    (third,) = encoder.encode(PAGE.replace(b'kind="b"', b'kind="c"'), 3)

    stale = [labels for labels, (value, _) in samples(second).items() if is_stale(value)]
    assert [dict(labels)["kind"] for labels in stale] == ["b"]
    assert len(samples(third)) == 5
    assert not any(is_stale(value) for value, _ in samples(third).values())


def test_all_series_end_at_the_end() -> None:
    """The end is a stale marker for each series, with the bits that Prometheus expects."""
    encoder = RemoteWrite(Source("edge", "a"))
    encoder.encode(PAGE, 1)

    (body,) = encoder.end(2)

    assert len(samples(body)) == 5
    assert all(is_stale(value) and at == 2000 for value, at in samples(body).values())
    assert encoder.end(3) == []


def test_many_series_become_several_requests(monkeypatch: Any) -> None:
    """A request has a bounded number of samples, because receivers limit its size."""
    monkeypatch.setattr(remote_write, "MAX_SAMPLES", 2)

    bodies = RemoteWrite(Source("edge", "a")).encode(PAGE, 1)

    assert series.MAX_SAMPLES == 10_000
    assert [len(samples(body)) for body in bodies] == [2, 2, 1]
