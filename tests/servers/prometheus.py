"""Debian's Prometheus, scraping what a test serves, and promtool's opinion of an exposition."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from servers import Process, free_port, need, wait_until

PACKAGE = "prometheus"

CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: {rules}
alerting:
  alertmanagers: [{{static_configs: [{{targets: {alertmanagers}}}]}}]
scrape_configs:
  - job_name: {job}
    static_configs: [{{targets: {targets}}}]
{settings}
"""


class Prometheus:
    """A Prometheus server of our own that scrapes `targets` (host:port) once a second.

    It evaluates the rules of `rule_files` each second, and sends alerts to `alertmanagers` (host:port).
    `settings` are further keys of the scrape configuration, such as scheme.
    """

    def __init__(
        self,
        folder: Path,
        targets: Sequence[str],
        *,
        job: str = "test",
        rule_files: Sequence[Path] = (),
        alertmanagers: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
        flags: Sequence[str] = (),
        port: int | None = None,
    ) -> None:
        program = need("prometheus", PACKAGE)
        self.port = port or free_port()
        self._expected = len(targets)
        config = folder / "prometheus.yml"
        lines = [f"    {key}: {json.dumps(value)}" for key, value in (settings or {}).items()]
        text = CONFIG.format(
            targets=json.dumps(list(targets)),
            job=json.dumps(job),
            rules=json.dumps([str(path) for path in rule_files]),
            settings="\n".join(lines),
            alertmanagers=json.dumps(list(alertmanagers)),
        )
        config.write_text(text)
        self.process = Process(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                *flags,
            ],
            folder,
        )
        self.process.ready(self._is_ready)

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """Return the instant vector of `promql` as (labels, value); AssertionError with its complaint."""
        answer = self._api("query", query=promql)
        assert answer["resultType"] == "vector", answer
        return [(row["metric"], float(row["value"][1])) for row in answer["result"]]

    def values(self, selector: str) -> list[tuple[float, float]]:
        """Return times and values of the series that the range selector `selector` matches, if any."""
        result = self._api("query", query=selector)["result"]
        return [(at, float(value)) for row in result for at, value in row["values"]]

    def targets(self) -> list[dict[str, Any]]:
        """Return what the server knows of each target: health, lastError, scrapePool and others."""
        active: list[dict[str, Any]] = self._api("targets", state="active")["activeTargets"]
        return active

    def alerts(self) -> list[dict[str, Any]]:
        """Return the active alerts: labels, annotations, state (pending, firing) and others."""
        active: list[dict[str, Any]] = self._api("alerts")["alerts"]
        return active

    def wait_for_target_up(self, seconds: float = 30.0) -> None:
        """Return once the last scrape of every target went well; AssertionError names who did not."""
        try:
            wait_until(lambda: len(self.query("up == 1")) == self._expected, "targets up", seconds)
        except AssertionError as error:
            for target in self.targets():
                error.add_note(f"{target['scrapeUrl']}: {target['health']} {target['lastError']}")
            raise

    def stop(self) -> None:
        """End the server; its data goes with the test's folder."""
        self.process.kill()

    def _api(self, what: str, **parameters: str) -> dict[str, Any]:
        status, body = self._get(f"/api/v1/{what}?{urlencode(parameters)}")
        assert status == HTTPStatus.OK, body.decode()
        data: dict[str, Any] = json.loads(body)["data"]
        return data

    def _is_ready(self) -> bool:
        try:
            return self._get("/-/ready")[0] == HTTPStatus.OK
        except (OSError, HTTPException):
            return False

    def _get(self, path: str) -> tuple[int, bytes]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()


def promtool_check_metrics(text: str) -> list[str]:
    """Return the complaints of promtool's linter about an exposition in text format 0.0.4.

    AssertionError where promtool cannot parse it at all.
    """
    program = need("promtool", PACKAGE)
    done = subprocess.run(
        [program, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = (done.stdout + done.stderr).splitlines()
    unreadable = [line for line in complaints if "error while linting" in line]
    assert not unreadable, unreadable
    return complaints


#: Starts a Prometheus for the targets given, with further keys of the scrape configuration.
StartPrometheus = Callable[..., Prometheus]


@pytest.fixture
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPrometheus]:
    """Return a function that starts a Prometheus for the targets given; all end with the test."""
    servers: list[Prometheus] = []

    def start(targets: Sequence[str], **settings: object) -> Prometheus:
        folder = tmp_path_factory.mktemp("prometheus")
        servers.append(Prometheus(folder, targets, settings=settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def check_query(folder: Path, series: Mapping[str, str], expr: str, *expected: float) -> None:
    """Let promtool compare the values of `expr` with those expected; series are the values of a minute."""
    samples = [{"labels": "{}", "value": value} for value in expected]
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": value} for name, value in series.items()],
        "promql_expr_test": [{"expr": expr, "eval_time": "1m", "exp_samples": samples}],
    }
    path = folder / "test.yml"
    path.write_text(json.dumps({"rule_files": [], "tests": [test]}))
    argv = [need("promtool", PACKAGE), "test", "rules", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
