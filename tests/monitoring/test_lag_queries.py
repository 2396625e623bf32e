"""The queries of docs/lag.md, evaluated by promtool on two hours of destinations that are late in several ways."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from servers import need

pytestmark = pytest.mark.live

PAGE = (Path(__file__).parents[2] / "docs" / "lag.md").read_text()
QUERIES = re.findall(r"```promql\n(.*?)```", PAGE, re.DOTALL)
#: When the queries are evaluated, in seconds after the first sample.
END = 2 * 60 * 60

#: Values of each destination's series, by minutes. The last 30 minutes differ from those before.
USUAL, HALF, DOUBLE = "0+600x120", "0+600x90 54300+300x29", "0+600x90 55200+1200x29"
STOPPED = "0+600x90 54000x29"
GROWING = "0x90 600+600x29"  # by 10 a second
DESTINATIONS: dict[str, dict[str, str]] = {
    "fine": {"lag_seconds": "1x120", "backlog_messages": "3x120", "consumers": "1x120"},
    "unknown": {"backlog_messages": "5x120", "consumers": "1x120"},
    "gone": {"consumers": "1x90 0x29", "consumed_messages_total": STOPPED, "retention_seconds": "3600x120"},
    "hangs": {"consumers": "1x120", "consumed_messages_total": STOPPED, "limit_messages": "24000x120"},
    "busy": {"published_messages_total": DOUBLE, "consumed_messages_total": USUAL, "entries_lost_total": "0x90 6+0x29"},
    "slow": {"published_messages_total": USUAL, "consumed_messages_total": HALF},
    "few": {
        "lag_seconds": "100x120",
        "backlog_messages": "9000x90 8940-60x29",
        "published_messages_total": USUAL,
        "consumed_messages_total": USUAL,
    },
}  # fmt: skip
#: Of the destinations that do not say otherwise: one that stopped half an hour ago.
LATE = {"lag_seconds": "0x90 60+60x29", "backlog_messages": GROWING}

NOW_LATE = {"gone": 1800, "hangs": 1800, "busy": 1800, "slow": 1800, "few": 100}
#: The results of the queries on the page, in their order.
EXPECTED: list[dict[str, float]] = [
    NOW_LATE,
    {"unknown": 5},
    dict.fromkeys(("gone", "hangs", "busy", "slow"), 91 * 60),
    {name: END - lag for name, lag in {**NOW_LATE, "fine": 1}.items()},
    {"few": 7200},
    {"fine": 3, "unknown": 5, **dict.fromkeys(("gone", "hangs", "busy", "slow"), 18000)},
    {"hangs": 600},
    {"gone": 1800},
    {"busy": 6},
    NOW_LATE,
    {name: lag for name, lag in {**NOW_LATE, "fine": 1}.items() if name != "few"},
]
FAULTS = {
    "gone": "no consumer",
    "hangs": "consumer hangs",
    "busy": "more messages than an hour ago",
    "slow": "consumer slower than an hour ago",
    "few": "not clear",
}


def labels(destination: str, **others: str) -> str:
    """Return the labels of a group's series."""
    pairs = {"instance": "a:19100", "job": "bts", "system": "redis", "destination": destination}
    return ",".join(f'{name}="{value}"' for name, value in {**pairs, **others}.items())


def series() -> list[dict[str, str]]:
    """Return the series of all destinations, which are groups of streams; the lag of `few` is a lower bound."""
    method = labels("few", group="g", method="lower_bound")
    found = [{"series": f"messaging_lag_method_info{{{method}}}", "values": "1x120"}]
    for name, numbers in DESTINATIONS.items():
        usual = {} if "backlog_messages" in numbers else LATE
        for metric, values in {**usual, **numbers}.items():
            group = {} if metric.startswith("published") else {"group": "g"}
            found.append(
                {"series": f"messaging_{metric}{{{labels(name, **group)}}}", "values": values}
            )
    return found


def result(destination: str, fault: str, value: float) -> dict[str, Any]:
    """Return a series that a query returns, with a label `fault` if that is not empty."""
    others = {"fault": fault} if fault else {}
    return {"labels": f"{{{labels(destination, group='g', **others)}}}", "value": value}


def test_queries(tmp_path: Path) -> None:
    """Each query of the page returns what the text above it says."""
    tests: list[dict[str, Any]] = []
    for query, expected in zip(QUERIES, EXPECTED, strict=True):
        faults = FAULTS if "fault" in query else {}
        samples = [result(name, faults.get(name, ""), value) for name, value in expected.items()]
        # Rounded, also to remove the name of the metric.
        tests.append({"expr": f"round({query})", "eval_time": "2h", "exp_samples": samples})
    path = tmp_path / "test.yml"
    group = {"interval": "1m", "input_series": series(), "promql_expr_test": tests}
    path.write_text(json.dumps({"rule_files": [], "tests": [group]}))
    argv = [need("promtool", "prometheus"), "test", "rules", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
