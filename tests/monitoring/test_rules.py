"""The shipped settings and rules in a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import signal
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from servers import Process, free_port, need, wait_until

pytestmark = pytest.mark.live

SHIPPED = Path(__file__).parents[2] / "monitoring" / "prometheus"
GRACE_PERIOD = "--rules.alert.for-grace-period="
PENDING = """\
global: {evaluation_interval: 1s}
rule_files: [rule.yml]
"""
RULE = """\
groups: [{name: g, rules: [{alert: Pending, expr: vector(1), for: 5s}]}]
"""


class Server(Process):
    """A Prometheus with the settings in `folder`; its data survive a restart."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self._port = free_port()
        argv = [
            need("prometheus", "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        super().__init__([*argv, *flags], folder)
        self.ready(self._is_ready)

    def stop(self) -> None:
        """End it as a restart of the machine does."""
        self.popen.send_signal(signal.SIGTERM)
        self.popen.wait()

    def api(self, path: str) -> Any:
        """Return `data` of the answer to /api/v1/`path`."""
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=10)) as connection:
            connection.request("GET", f"/{path}" if path.startswith("-") else f"/api/v1/{path}")
            response = connection.getresponse()
            body = response.read()
            assert response.status == HTTPStatus.OK, body
            return json.loads(body)["data"] if body.startswith(b"{") else body

    def alert(self) -> dict[str, Any]:
        """Return state, activeAt and more of the alert of the rule above; empty before it is evaluated."""
        alerts: list[dict[str, Any]] = self.api("alerts")["alerts"]
        return alerts[0] if alerts else {}

    def _is_ready(self) -> bool:
        try:
            return bool(self.api("-/ready"))
        except (OSError, HTTPException, AssertionError):
            return False


def test_prometheus_starts_with_the_shipped_folder(tmp_path: Path) -> None:
    """Prometheus loads every rule, and has the targets of prometheus.yml and of the example of file_sd."""
    folder = shutil.copytree(SHIPPED, tmp_path / "prometheus")
    shutil.copy(folder / "targets/nodes.yml.example", folder / "targets/nodes.yml")
    server = Server(folder)
    try:
        groups = server.api("rules?type=alert")["groups"]
        loaded = {rule["name"] for group in groups for rule in group["rules"]}

        def targets() -> set[tuple[str, str]]:
            active = server.api("targets?state=active")["activeTargets"]
            return {(t["labels"]["job"], t["labels"]["instance"]) for t in active}

        expected = {
            ("bts-exporter", "127.0.0.1:19100"),
            ("bts-exporter", "node-3.example:19100"),
            ("bts-service", "127.0.0.1:8080"),
            ("prometheus", "127.0.0.1:9090"),
        }
        wait_until(lambda: expected <= targets(), "targets")
    finally:
        server.kill()

    assert {"BtsExporterDown", "BrokerDown", "ConsumerBehind", "OptionalTargetAbsent"} <= loaded


def test_alert_survives_a_restart_of_prometheus(tmp_path: Path) -> None:
    """With a grace period below its `for`, an alert that fires goes on after a restart, and does not begin again."""
    (tmp_path / "prometheus.yml").write_text(PENDING)
    (tmp_path / "rule.yml").write_text(RULE)
    server = Server(tmp_path, f"{GRACE_PERIOD}1s")
    try:
        wait_until(lambda: server.alert().get("state") == "firing", "firing")
        before = server.alert()["activeAt"]
        server.stop()
        server = Server(tmp_path, f"{GRACE_PERIOD}1s")

        def goes_on() -> bool:
            alert = server.alert()  # Prometheus stores whole seconds
            return bool(alert) and (alert["state"], alert["activeAt"][:19]) == (
                "firing",
                before[:19],
            )

        wait_until(goes_on, "the alert fires since before the restart")
    finally:
        server.kill()


def test_recommended_grace_period_covers_every_rule() -> None:
    """The flag that prometheus.yml recommends is not longer than any `for` of the rules."""
    minutes = re.findall(rf"{GRACE_PERIOD}(\d+)m", (SHIPPED / "prometheus.yml").read_text())
    durations = [
        duration
        for path in (SHIPPED / "rules").glob("*.yml")
        for duration in re.findall(r" for: (\S+)", path.read_text())
    ]

    assert minutes == ["1"]
    assert [text for text in durations if not re.fullmatch(r"[1-9]\d*[mh]", text)] == []
