from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from bts_collectors.redis.server import latency
from bts_exporter import Scrape

#: A reply of LATENCY HISTOGRAM.
HISTOGRAM = [
    b"get",
    [b"calls", 5, b"histogram_usec", [1, 3, 2, 4, 33, 5]],
    b"config|get",
    [b"calls", 1, b"histogram_usec", [16, 1]],
]


def test_spikes() -> None:
    """Events have the time of their last spike and its length in seconds."""
    scrape = Scrape(monotonic() + 60)

    latency.emit_spikes(scrape, [[b"command", 1767225600, 251, 1001], [b"fork", 1767225700, 2, 2]])

    assert scrape.samples == {
        latency.SPIKE_LAST: {("command",): 1767225600, ("fork",): 1767225700},
        latency.SPIKE_DURATION: {("command",): 0.251, ("fork",): 0.002},
    }


def test_durations() -> None:
    """The buckets are those of the server; the sum is the total duration of the command's calls."""
    scrape = Scrape(monotonic() + 60)

    latency.emit_durations(scrape, HISTOGRAM, {"get": 40.0, "set": 1.0})

    assert scrape.losses == []
    assert scrape.samples == {
        latency.DURATIONS: {
            ("_bucket", "get", "1"): 3,
            ("_bucket", "get", "2"): 4,
            ("_bucket", "get", "33"): 5,
            ("_bucket", "get", "+Inf"): 5,
            ("_sum", "get"): 40.0,
            ("_count", "get"): 5,
        }
    }


@pytest.mark.parametrize(
    "reply",
    [None, 1, b"", [b"get"], [b"get", 1], [b"get", []], [1, [b"calls", 1, b"histogram_usec", []]]],
)
def test_odd_replies_give_nothing(reply: Any) -> None:
    """Replies of another shape are skipped."""
    scrape = Scrape(monotonic() + 60)

    latency.emit_durations(scrape, reply, {"get": 1.0})
    latency.emit_spikes(scrape, reply)

    assert scrape.samples == {}
