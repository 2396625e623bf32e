"""Series that were recorded from a real Prometheus, to find queries without data where there is no server.

`python -m grafana.recorded http://127.0.0.1:9090` records the series that the dashboards use: of the demonstration in
docker-compose.yaml, or of another Prometheus whose exporters have all collectors and messages to collect. Several addresses are
several Prometheus, such as that of `make demo`, which has the BTS service.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode
from urllib.request import urlopen

from grafana.queries import Query, load, queries
from lint.metric_names import metrics_used

SERIES = Path(__file__).parent / "recorded-series.txt"
#: Series of one metric that are kept.
MOST = 10
#: Labels that name the machine where it was recorded, and their replacements.
RENAMED = {
    "instance": "exporter:19100",
    "node": "rabbit@host",
    "nodename": "host",
    "release": "6.1.0",
}
#: Long enough for the longest period in a query's condition, with a sample each 15 s.
TEST = {"interval": "15s", "evaluated": "15m", "samples": 60}
_COUNTER = re.compile(r"_(total|bucket|count|sum)$")


def record(*prometheus: str) -> None:
    """Write the series that each Prometheus has of the dashboards' metrics."""
    names = {
        name for board in load() for query in queries(board) for name in metrics_used(query.expr)
    }
    lines = [
        line
        for name in sorted(names)
        for line in sorted({line for address in prometheus for line in _series(address, name)})
    ]
    SERIES.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _series(prometheus: str, name: str) -> list[str]:
    with urlopen(f"{prometheus}/api/v1/query?{urlencode({'query': name})}") as answer:
        found = [row["metric"] for row in json.load(answer)["data"]["result"]]
    ordinary = [labels for labels in found if labels.get("mountpoint", "/") == "/"]
    return sorted({_selector(name, labels) for labels in ordinary})[:MOST]


def _selector(name: str, labels: Mapping[str, str]) -> str:
    shown = {key: RENAMED.get(key, value) for key, value in labels.items() if key != "__name__"}
    return name + "{" + ",".join(f"{key}={json.dumps(shown[key])}" for key in sorted(shown)) + "}"


def without_data(promtool: str, asked: Iterable[Query], series: Sequence[str]) -> list[Query]:
    """Return the queries that return nothing if Prometheus has `series`, or that are not PromQL.

    Counters rise, and all other values are 1.
    """
    by_test = {f"count({query.expr}) > bool 0": query for query in asked}
    rising, constant = f"0+15x{TEST['samples']}", f"1x{TEST['samples']}"
    test = {
        "interval": TEST["interval"],
        "input_series": [
            {
                "series": each,
                "values": rising if _COUNTER.search(each.partition("{")[0]) else constant,
            }
            for each in series
        ],
        "promql_expr_test": [
            {
                "expr": expr,
                "eval_time": TEST["evaluated"],
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
            for expr in by_test
        ],
    }
    output = _run(promtool, {"rule_files": [], "tests": [test]})
    return [query for expr, query in by_test.items() if f"expr: {json.dumps(expr)}" in output]


def _run(promtool: str, tests: object) -> str:
    """Return what `promtool test rules` says about tests that fail; ValueError if it cannot run them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "test.yml"
        path.write_text(json.dumps(tests), encoding="utf-8")  # JSON is YAML
        done = subprocess.run(
            [promtool, "test", "rules", str(path)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    output = done.stdout + done.stderr
    if done.returncode and "expr: " not in output:
        raise ValueError(output)
    return output if done.returncode else ""


if __name__ == "__main__":
    record(*sys.argv[1:])
