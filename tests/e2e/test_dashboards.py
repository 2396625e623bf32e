"""The dashboards' queries, asked of a real Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grafana.queries import load
from servers.dashboards import wait_for_data
from servers.monitored import MonitoredStack
from servers.prometheus import Prometheus

pytestmark = pytest.mark.live

#: The table of alerts has rows only while an alert fires.
RULES = """\
groups:
  - name: test
    rules: [{alert: AlwaysFiring, expr: vector(1), labels: {severity: info}}]
"""


@pytest.fixture(scope="module")
def prometheus(
    monitored: MonitoredStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Return a Prometheus that scrapes brokers under load, with an alert that fires."""
    rules = tmp_path_factory.mktemp("rules") / "rules.yml"
    rules.write_text(RULES)
    server = monitored.start_prometheus([rules])
    server.wait_for_target_up()
    yield server
    server.stop()


@pytest.mark.parametrize(
    "board",
    # examples/bts/tests/test_dashboard.py has the service that this one is about.
    [board for board in load() if board["uid"] != "bts-service"],
    ids=lambda board: board["uid"],
)
def test_every_query_returns_data(board: dict[str, object], prometheus: Prometheus) -> None:
    """Each panel and variable gets data, and a failure names dashboard, panel and expression."""
    wait_for_data(prometheus, board)
