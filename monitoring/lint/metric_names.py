"""Which metrics a query uses, and whether the exporter or the BTS service declares them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import promql_parser

from bts import metrics as bts_service

ROOT = Path(__file__).parents[2]
#: Metrics that Prometheus adds to every target and every alert.
OF_PROMETHEUS = (
    "ALERTS",
    "ALERTS_FOR_STATE",
    "scrape_duration_seconds",
    "scrape_samples_post_metric_relabeling",
    "scrape_samples_scraped",
    "scrape_series_added",
    "up",
)
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}


class DeclaredMetrics:
    """The metrics of the exporter, of Prometheus, and of recording rules."""

    def __init__(self, listed: Iterable[dict[str, str]], more: Iterable[str] = ()) -> None:
        """Take the name and type of each metric, as `bts-exporter metrics` lists them, and more names."""
        names = [
            metric["name"] + suffix
            for metric in listed
            for suffix in _SUFFIXES.get(metric["type"], ("",))
        ]
        self._names = {*OF_PROMETHEUS, *more, *(name for name in names if "{" not in name)}
        # The source names these: node_memory_{field}_bytes.
        templates = [name.replace("{field}", "[A-Za-z0-9_]+") for name in names if "{" in name]
        self._from_template = re.compile("|".join(templates) or "(?!)")

    def __contains__(self, name: str) -> bool:
        """Return whether a metric has this name."""
        return name in self._names or self._from_template.fullmatch(name) is not None


def declared_metrics(root: Path = ROOT, more: Iterable[str] = ()) -> DeclaredMetrics:
    """Return what the exporter declares, with the metrics that config.yaml at `root` names."""
    return DeclaredMetrics(listed_metrics(root), more)


def listed_metrics(root: Path = ROOT) -> list[dict[str, str]]:
    """Return name, type and more of each metric: those of `bts-exporter metrics`, and the BTS service's."""
    argv = [sys.executable, "-m", "bts_exporter", "metrics", f"--config.file={root}/config.yaml"]
    done = subprocess.run(
        [*argv, "--format=json"], capture_output=True, text=True, timeout=60, check=True
    )
    listed: list[dict[str, str]] = json.loads(done.stdout)
    return [*listed, *bts_service.declared()]


def metrics_used(query: str) -> set[str]:
    """Return the metrics that a PromQL query selects.

    ValueError if it is not PromQL, or if it selects metrics by a pattern, which cannot be checked.
    """
    found: set[str] = set()

    def note(node: promql_parser.Expr) -> None:
        match node:
            case promql_parser.MatrixSelector():
                found.add(_name(node.vector_selector))
            case promql_parser.VectorSelector():
                found.add(_name(node))

    promql_parser.walk(promql_parser.parse(query), note)
    return found


def undeclared_metrics(query: str, declared: DeclaredMetrics) -> list[str]:
    """Return the metrics that a query uses and nothing declares, sorted; ValueError as above."""
    return sorted(name for name in metrics_used(query) if name not in declared)


def _name(selector: promql_parser.VectorSelector) -> str:
    if selector.name is not None:
        return selector.name
    for matcher in selector.matchers.matchers:
        if matcher.name == "__name__" and matcher.op == promql_parser.MatchOp.Equal:
            return str(matcher.value)
    message = f"{selector.prettify()} has no metric name"
    raise ValueError(message)
