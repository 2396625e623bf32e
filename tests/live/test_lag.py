"""`/api/lag` and `bts-exporter lag` of a real exporter with real brokers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from servers import wait_until
from servers.exporter import Exporter, StartExporter
from servers.redis import RedisServer

pytestmark = pytest.mark.live

HOSTILE = 'a"b\u202e\x1b[2J&c=d'
QUERY = f"target=cache&system=redis&destination={quote(HOSTILE)}&group=billing"


def lag(exporter: Exporter, *arguments: str) -> tuple[int, str, str]:
    """Run the command against the exporter at its listen address."""
    done = subprocess.run(
        [sys.executable, "-m", "bts_exporter", f"--web.listen-address={exporter.address}", "lag", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def report(exporter: Exporter, query: str = "") -> Any:
    """Return the answer of the API."""
    status, text = exporter.get(f"/api/lag?{query}")
    assert status == 200, text
    return json.loads(text)


def test_lag_of_a_broker_that_stops(exporter: StartExporter, tmp_path: Path) -> None:
    """API and command have the numbers of /metrics; when the broker stops, the lag is unknown and not 0."""
    server = RedisServer(tmp_path)
    try:
        server.client.xgroup_create(HOSTILE, "billing", id="$", mkstream=True)
        for number in range(7):
            server.client.xadd(HOSTILE, {"n": number})
        running = exporter(
            f"collectors: {{redis: {{name: cache, url: '{server.url}', streams: ['*']}}}}\n"
        )
        labels = {"system": "redis", "destination": HOSTILE, "group": "billing", "target": "cache"}

        (row,) = report(running, QUERY)["destinations"]
        assert row["backlog_messages"] == running.value("messaging_backlog_messages", **labels) == 7
        assert row["published_messages_total"] == 7
        assert 0 < row["lag_seconds"] <= running.value("messaging_lag_seconds", **labels)
        assert row["lag_method"] == "message_time"

        status, table, errors = lag(running, "--max=1h")
        assert (status, errors) == (0, "")
        assert r'a"b\u202e\x1b[2J&c=d' in table
        assert lag(running, "--max=0")[0] == 1

        server.kill()
        wait_until(lambda: not report(running)["collectors"][0]["success"], "the failure is seen")
        assert report(running)["destinations"] == []
        assert running.get(f"/api/lag?{QUERY}")[0] == 404
        status, _, errors = lag(running, "--max=1h")
        assert (status, errors.startswith("failing: redis[cache]: ")) == (3, True)
    finally:
        server.kill()
