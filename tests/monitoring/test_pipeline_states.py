"""What the dashboard Pipeline makes of backlog, lag and consumers, evaluated by promtool."""

from __future__ import annotations

from pathlib import Path

import pytest

from grafana.queries import load, queries
from servers.prometheus import check_query

pytestmark = pytest.mark.live

LABELS = '{instance="a:1",system="redis",destination="s",group="g"}'
ON_TIME, LATE, NO_CONSUMER, UNKNOWN = 0, 1, 2, 3


def query(title: str, letter: str = "A") -> str:
    """Return a query of Pipeline, with 300 s for `Late after`."""
    [board] = [board for board in load() if board["uid"] == "bts-pipeline"]
    [found] = [
        query.expr for query in queries(board) if query.place == f"panel {title!r}, query {letter}"
    ]
    return found


def destination(**values: float) -> dict[str, str]:
    """Return series of one destination: the last part of each metric's name, and its value."""
    return {f"messaging_{name}{LABELS}": f"{value}x4" for name, value in values.items()}


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({"lag_seconds": 400, "backlog_messages": 5, "consumers": 1}, LATE),
        ({"lag_seconds": 400, "backlog_messages": 5, "consumers": 0}, LATE),
        ({"lag_seconds": 10, "backlog_messages": 5, "consumers": 0}, NO_CONSUMER),
        ({"lag_seconds": 10, "backlog_messages": 5, "consumers": 1}, ON_TIME),
        ({"lag_seconds": 10, "backlog_messages": 5}, ON_TIME),
        ({"lag_seconds": 0, "backlog_messages": 0, "consumers": 0}, ON_TIME),
        ({"backlog_messages": 0, "consumers": 0}, ON_TIME),
        ({"backlog_messages": 5, "consumers": 1}, UNKNOWN),
        ({"backlog_messages": 5}, UNKNOWN),
        ({"backlog_messages": 5, "consumers": 0}, NO_CONSUMER),
    ],
)
def test_state_of_a_destination(tmp_path: Path, values: dict[str, float], state: int) -> None:
    """A late destination is late, one whose lag is not known is neither late nor on time."""
    check_query(tmp_path, destination(**values), f"sum({query('Destinations')})", state)


@pytest.mark.parametrize(
    ("series", "counted"),
    [
        (destination(lag_seconds=400), [1]),
        (destination(lag_seconds=10), [0]),
        (destination(backlog_messages=5), []),
        ({}, []),
    ],
    ids=["one is late", "none is late", "no lag is known", "the exporter is down"],
)
def test_number_of_late_destinations(
    tmp_path: Path, series: dict[str, str], counted: list[float]
) -> None:
    """Without any known lag there is no number: 0 would be green."""
    check_query(tmp_path, series, f"sum({query('Late destinations')})", *counted)


def test_rate_into_a_stream_is_that_of_each_group(tmp_path: Path) -> None:
    """What is published to a stream is published to all of its groups."""
    stream = '{instance="a:1",system="redis",destination="s"'
    series = {
        f'messaging_backlog_messages{stream},group="g"}}': "1x4",
        f'messaging_backlog_messages{stream},group="h"}}': "2x4",
        f"messaging_published_messages_total{stream}}}": "0+30x4",
    }

    check_query(tmp_path, series, f"count({query('Destinations', 'G')} == 2)", 2)


@pytest.mark.parametrize(
    ("title", "values"),
    [
        ("Late destinations", {"lag_seconds": 400}),
        ("No consumer", {"backlog_messages": 5, "consumers": 0}),
        ("Lag unknown", {"backlog_messages": 5}),
    ],
)
def test_replicas_are_counted_once(tmp_path: Path, title: str, values: dict[str, float]) -> None:
    """A destination that two replicas of an exporter report is one, and one with equal labels on another machine another."""
    exporters = ('instance="a:1",replica="a"', 'instance="b:1",replica="b"', 'instance="c:1"')
    series = {
        name.replace('instance="a:1"', exporter): value
        for name, value in destination(**values).items()
        for exporter in exporters
    }

    check_query(tmp_path, series, f"sum({query(title)})", 2)


def test_blind_consumers_of_replicas_are_counted_once(tmp_path: Path) -> None:
    """The consumers that two replicas of an exporter report are the same ones."""
    name = "rabbitmq_queue_consumers_auto_ack"
    series = {f'{name}{{instance="{it}:1",replica="{it}",queue="q"}}': "3x4" for it in "ab"}

    check_query(tmp_path, series, query("Blind consumers"), 3)
