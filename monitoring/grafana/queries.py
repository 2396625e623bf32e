"""The queries in a dashboard's JSON, each with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

DASHBOARDS = Path(__file__).parent / "dashboards"
#: What Grafana's own variables stand for where a query is checked.
BUILT_IN = {"$__rate_interval": "1m", "$__interval": "15s", "$__range": "1h"}


class Query(NamedTuple):
    """A PromQL expression, the dashboard that it is in, and its place there: a panel or a variable."""

    dashboard: str
    place: str
    expr: str

    def __str__(self) -> str:
        """Return what a failure shows."""
        return f"{self.dashboard}, {self.place}: {self.expr}"


def load(folder: Path = DASHBOARDS) -> list[dict[str, Any]]:
    """Return the dashboards of a folder."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def queries(board: Mapping[str, Any]) -> Iterator[Query]:
    """Yield every query of a dashboard, with values in place of its variables."""
    values = {**BUILT_IN, **dict(_values(board))}
    for panel in panels(board):
        for target in panel.get("targets", ()):
            place = f"panel {panel['title']!r}, query {target['refId']}"
            yield Query(board["title"], place, _with(values, target["expr"]))
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            place = f"variable {variable['name']!r}"
            yield Query(board["title"], place, _with(values, _selector(variable["query"])))


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every panel and row of a dashboard, also those in collapsed rows."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def _values(board: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each variable and what it stands for at first."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"${variable['name']}", variable["allValue"]
        elif variable["type"] == "custom":
            yield f"${variable['name']}", variable["current"]["value"]


def _with(values: Mapping[str, str], expr: str) -> str:
    """Return `expr` with values in place of variables, the longest names first."""
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(name, values[name])
    return expr


def _selector(query: str) -> str:
    """Return the expression whose series a variable takes its values from, which have the label that it takes."""
    if found := re.fullmatch(r"label_values\((.+), *(\w+)\)", query):
        selector, label = found.groups()
        metric, _, matchers = selector.rstrip("}").partition("{")
        return f'{metric}{{{matchers and matchers + ","}{label}!=""}}'
    if found := re.fullmatch(r"query_result\((.+)\)", query):
        return found[1]
    message = f"neither label_values(SELECTOR, LABEL) nor query_result(EXPRESSION): {query}"
    raise ValueError(message)
