"""The exporter as a process, and more series of Redis than there is room for."""

from __future__ import annotations

import pytest
import redis

from servers import wait_until
from servers.exporter import Exporter, StartExporter
from servers.redis import RedisServer

pytestmark = pytest.mark.live

STREAMS = 5000
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def fill(client: redis.Redis) -> None:
    """Make streams of one entry with one group each."""
    with client.pipeline(transaction=False) as pipeline:
        for number in range(STREAMS):
            pipeline.xadd(f"bts:{number}", {"a": 1})
            pipeline.xgroup_create(f"bts:{number}", "g", "0")
        pipeline.execute()


def is_found(exporter: Exporter) -> bool:
    """Return whether the names of all streams are known."""
    name = ("redis_exporter_discovered_names", frozenset({("setting", "streams")}))
    return exporter.samples().get(name) == STREAMS


def outcome(samples: Samples) -> float:
    """Return whether the collection of Redis succeeded."""
    (success,) = (
        value
        for (name, labels), value in samples.items()
        if name == "bts_exporter_collector_success" and ("collector", "redis") in labels
    )
    return success


def test_all_streams_fit_the_default_limit(
    redis_server: RedisServer, exporter: StartExporter
) -> None:
    """Thousands of streams are served with all their series, without a limit."""
    fill(redis_server.client)
    process = exporter(f"collectors: {{redis: {{url: '{redis_server.url}', streams: ['bts:*']}}}}")
    wait_until(lambda: is_found(process), "all streams are found")

    samples = process.samples()

    assert sum(name == "redis_stream_group_lag" for name, _ in samples) == STREAMS
    assert samples["redis_up", frozenset()] == 1
    assert outcome(samples) == 1


def test_the_most_important_metrics_are_never_dropped(
    redis_server: RedisServer, exporter: StartExporter
) -> None:
    """With a limit far too small the page says that Redis is up, and why the rest is missing."""
    fill(redis_server.client)
    process = exporter(
        f"collectors: {{redis: {{url: '{redis_server.url}', streams: ['bts:*'], max_series: 10}}}}"
    )

    samples = process.samples()

    assert samples["redis_up", frozenset()] == 1
    assert samples["redis_exporter_last_scrape_error", frozenset({("err", "limited")})] == 1
    assert samples["redis_exporter_scrapes_total", frozenset()] == 1
    assert outcome(samples) == 0
