"""The dashboard of the service, asked of a Prometheus that scrapes the running service and the exporter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from bts_stack import Stack

from bts import training_report
from grafana.queries import load
from servers import wait_until
from servers.dashboards import wait_for_data
from servers.exporter import StartExporter
from servers.prometheus import Prometheus

pytestmark = pytest.mark.live

SETTINGS = """\
collectors:
  host: {{textfile: {{directories: ["{folder}"]}}}}
  rabbitmq: {{url: "http://guest:guest@127.0.0.1:{management}"}}
  redis: {{url: "{redis}", streams: ["bts:*"]}}
  mqtt: {{url: "{mqtt}"}}
  ml_service: {{url: "http://127.0.0.1:{service}", probes: {{health: {{path: /health}}}}}}
"""


def test_every_query_returns_data(
    stack: Stack,
    exporter: StartExporter,
    prometheus: Callable[[Sequence[str]], Prometheus],
    tmp_path: Path,
) -> None:
    """Each panel and variable gets data while stations fall silent and after a training."""
    [board] = [board for board in load() if board["uid"] == "bts-service"]
    training_report.write(training_report.metrics_of(0.9, 1.1, 12.0), tmp_path)
    for role in ("bridge", "lstm_worker", "service"):
        stack.start(role)
    stack.start("worker", "--stale-seconds=2")
    stack.start("sensors", "--rate=500", "--stations=40")
    settings = SETTINGS.format(
        folder=tmp_path,
        management=stack.rabbitmq.mgmt,
        redis=stack.redis.url,
        mqtt=stack.mosquitto.url,
        service=stack.ports["service"],
    )
    addresses = [f"127.0.0.1:{port}" for port in stack.ports.values()]
    server = prometheus([exporter(settings).address, *addresses])

    # The alarm of a silent station is raised, and needs a sample before.
    wait_until(lambda: server.query("bts_input_drift_psi"), "readings for the drift")
    stack.inject("silent-stations")

    wait_for_data(server, board)
