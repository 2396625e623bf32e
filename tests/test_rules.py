"""The alerting rules that come with the exporter."""

from __future__ import annotations

import subprocess
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from servers import Process, free_port, need

MONITORING = Path(__file__).parents[1] / "monitoring" / "prometheus"


@pytest.mark.live
def test_rules_fire_when_they_should() -> None:
    """`promtool test rules` has every alert of the rules' own tests fire, and not before its time."""
    done = subprocess.run(
        [
            need("promtool", "prometheus"),
            "test",
            "rules",
            *map(str, (MONITORING / "rule-tests").glob("*.yml")),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.live
def test_prometheus_starts_with_every_file_of_the_folder(tmp_path: Path) -> None:
    """Prometheus loads `rule_files: [.../rules/*.yml]`, as people write it, and has all alerts."""
    port = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(f"rule_files: ['{MONITORING}/rules/*.yml']\n")
    server = Process(
        [
            need("prometheus", "prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        tmp_path,
    )
    try:
        server.ready(lambda: get(port, "/-/ready")[0] == HTTPStatus.OK)
        _, rules = get(port, "/api/v1/rules?type=alert")
    finally:
        server.kill()

    assert {"BtsExporterDown", "OptionalTargetAbsent"} <= {
        part.split('"')[0] for part in rules.split('"name":"')
    }


def test_folder_of_rules_holds_rules_only() -> None:
    """Whatever lies in the folder is loaded by Prometheus, so that the rules' tests lie elsewhere."""
    for path in (MONITORING / "rules").iterdir():
        assert path.read_text().partition("groups:")[0].strip().startswith("#")
        assert "alert_rule_test" not in path.read_text()


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and text of an answer; 0 where there is none yet."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, HTTPException):
        return 0, ""
    finally:
        connection.close()
