"""A fleet as Prometheus sees it: targets from an inventory, and a broker with two exporters."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bts_exporter import commands
from servers import wait_until
from servers.exporter import StartExporter
from servers.prometheus import Prometheus
from servers.redis import RedisServer
from servers.sources import ROOT

pytestmark = pytest.mark.live

RULES = ROOT / "monitoring" / "prometheus" / "rules"
SETTINGS = "collectors:\n  redis: {name: cache, url: '%s'}\n"
INVENTORY = """\
groups:
  north:
    labels: {site: north}
    hosts:
      one: {address: 127.0.0.1, port: ONE, labels: {LABEL: a}}
      two: {address: 127.0.0.1, port: TWO, labels: {LABEL: b}}
"""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Return the address of a web server for the files of the folder, as http_sd needs one."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_broker_with_two_exporters_is_reported_unless_they_are_replicas(
    tmp_path: Path, web: str, exporter: StartExporter, redis_server: RedisServer
) -> None:
    """Both kinds of discovery find the targets of the inventory; one broker has one series, until the label is gone."""
    one, two = (exporter(SETTINGS % redis_server.url) for _ in range(2))
    inventory, output = tmp_path / "inventory.yaml", tmp_path / "fleet.json"
    text = INVENTORY.replace("ONE", str(one.port)).replace("TWO", str(two.port))

    def write(label: str) -> None:
        inventory.write_text(text.replace("LABEL", label))
        commands.targets(str(inventory), str(output))

    write("replica")
    by_http = {"url": f"{web}/fleet.json", "refresh_interval": "1s"}
    for folder in ("file", "http"):
        (tmp_path / folder).mkdir()
    found = Prometheus(tmp_path / "http", [], job="any", settings={"http_sd_configs": [by_http]})
    server = Prometheus(
        tmp_path / "file",
        [],
        job="any",
        rule_files=[RULES / "fleet.yml", RULES / "exporter.yml"],
        settings={"file_sd_configs": [{"files": [str(output)]}]},
    )
    try:
        brokers = [{"__name__": "broker:up:max", "broker": "redis", "job": "bts-exporter"}]
        brokers[0] |= {"site": "north", "target": "cache"}
        wait_until(
            lambda: [labels for labels, _ in server.query("broker:up:max")] == brokers, "one"
        )
        wait_until(lambda: len(found.query("up")) == 2, "the targets of http_sd", 60)
        labels = {"__name__": "up", "job": "bts-exporter", "site": "north"}
        assert sorted(found.query("up"), key=str) == [
            ({**labels, "instance": f"one:{one.port}", "replica": "a"}, 1),
            ({**labels, "instance": f"two:{two.port}", "replica": "b"}, 1),
        ]
        assert "TargetMonitoredTwice" not in alerts(server)

        write("rack")

        wait_until(lambda: "TargetMonitoredTwice" in alerts(server), "the alert", 60)
    finally:
        server.stop()
        found.stop()


def alerts(server: Prometheus) -> set[str]:
    """Return the names of the alerts that are pending or fire."""
    return {alert["labels"]["alertname"] for alert in server.alerts()}
