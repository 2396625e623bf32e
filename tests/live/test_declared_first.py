"""Two sources of the same metric on the page of the real process."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers import wait_until
from servers.exporter import StartExporter
from servers.redis import RedisServer

pytestmark = pytest.mark.live


def test_text_file_does_not_replace_the_metric_of_the_collector_that_declares_it(
    exporter: StartExporter, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A stale redis_up in a text file loses to the Redis collector, whatever the order of the blocks."""
    (tmp_path / "old.prom").write_text("# TYPE redis_up counter\nredis_up 0\nother_metric 7\n")

    server = exporter(
        f"collectors:\n  host: {{textfile: {{directories: [{tmp_path}]}}}}\n"
        f"  redis: {{url: '{redis_server.url}'}}\n"
    )

    wait_until(lambda: server.value("redis_up") == 1, "the collector's own value")
    assert server.value("other_metric") == 7
    assert "# TYPE redis_up gauge" in server.get("/metrics")[1]
