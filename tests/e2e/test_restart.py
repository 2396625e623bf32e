"""A firing alert about lag while the exporter is restarted, with a real Prometheus and RabbitMQ."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from servers import wait_until
from servers.exporter import StartExporter
from servers.prometheus import Prometheus
from servers.rabbitmq import RabbitMQ

QUEUE = "restart-of-the-exporter"
LAG = f'messaging_lag_seconds{{destination="{QUEUE}"}}'
RULES = f"""\
groups:
  - name: test
    rules:
      - alert: Late
        expr: {LAG} > 5
        keep_firing_for: 5m
"""


@pytest.mark.live
def test_firing_alert_keeps_firing_across_a_restart(
    rabbitmq: RabbitMQ, tmp_path: Path, exporter: StartExporter
) -> None:
    """The lag of a queue without a consumer continues to grow, and the alert is the same one."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    rules = tmp_path / "rules.yml"
    rules.write_text(RULES)
    rabbitmq.queue(QUEUE)
    server = exporter(
        f"state: {folder}\ncollectors: {{rabbitmq: {{url: 'http://guest:guest@127.0.0.1:{rabbitmq.mgmt}'}}}}\n"
    )
    prometheus = Prometheus(tmp_path, [server.address], rule_files=[rules])
    try:
        prometheus.wait_for_target_up(60)
        wait_until(
            lambda: prometheus.query(f'messaging_backlog_messages{{destination="{QUEUE}"}} == 0'),
            "empty queue",
        )
        rabbitmq.publish(QUEUE, 3)
        wait_until(lambda: firing(prometheus), "alert fires", 60)
        begun = firing(prometheus)
        least = value(prometheus, LAG)

        server.popen.send_signal(signal.SIGTERM)
        assert server.popen.wait(timeout=60) == 0
        stopped = time.time()
        server.restart()
        seen = f"process_start_time_seconds > {stopped}"
        wait_until(
            lambda: prometheus.query(seen) and prometheus.query(LAG), "a scrape after it", 60
        )

        # Every sample since the alert began, in the new process as in the old one.
        assert (
            value(prometheus, f"min_over_time({LAG}[{max(int(time.time() - begun[0]), 1)}s])") > 5
        )
        assert value(prometheus, LAG) > least
        assert firing(prometheus) == begun
        assert (
            server.value(
                "bts_exporter_state_errors_total",
                collector="rabbitmq",
                target="",
                operation="restore",
            )
            == 0
        )
    finally:
        prometheus.stop()


def value(prometheus: Prometheus, promql: str) -> float:
    """Return the value of the only series."""
    ((_, found),) = prometheus.query(promql)
    return found


def firing(prometheus: Prometheus) -> list[float]:
    """Return since when alerts are firing, as Unix times."""
    return [
        found
        for labels, found in prometheus.query(
            "ALERTS_FOR_STATE and on(alertname) ALERTS{alertstate='firing'}"
        )
    ]
