"""The dashboards' queries, asked of a real Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grafana.queries import Query, load, queries
from servers import wait_until
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


def without_data(prometheus: Prometheus, asked: list[Query]) -> list[Query]:
    """Return the queries that Prometheus has no answer to."""
    return [query for query in asked if not prometheus.query(query.expr)]


@pytest.mark.parametrize("board", load(), ids=lambda board: board["uid"])
def test_every_query_returns_data(board: dict[str, object], prometheus: Prometheus) -> None:
    """Each panel and variable gets data, and a failure names dashboard, panel and expression."""
    asked = list(queries(board))

    def all_answered() -> bool:
        asked[:] = without_data(prometheus, asked)
        return not asked

    try:
        wait_until(all_answered, "every query returns data", 90)
    except AssertionError as error:
        for query in asked:
            error.add_note(f"no data: {query}")
        raise
