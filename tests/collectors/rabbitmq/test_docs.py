from __future__ import annotations

import re
from pathlib import Path

import msgspec

from bts_collectors.rabbitmq.collector import COLLECTOR
from bts_collectors.rabbitmq.config import CanarySettings
from bts_exporter import Metric

DOCS = (
    (Path(__file__).parents[3] / "docs/collectors/rabbitmq.md")
    .read_text()
    .partition("<!-- begin")[0]
)

ROW = re.compile(r"^\| `(\w+)(?:\{([\w,]+)\})?` \| (\w+) \| .+ \| (.+) \|$", re.MULTILINE)


def declared() -> list[Metric]:
    """Return all metrics of the collector; none has a name from the source."""
    return [metric for metric in COLLECTOR.declared() if isinstance(metric, Metric)]


def test_every_metric_is_documented_with_labels_and_type_and_no_other() -> None:
    """The documentation lists exactly the declared metrics."""
    documented = {(name, labels, kind) for name, labels, kind, _ in ROW.findall(DOCS)}

    assert documented == {
        (metric.name, ",".join(metric.labels), str(metric.kind)) for metric in declared()
    }


def test_the_documented_source_is_the_one_in_the_help() -> None:
    """Documentation and help name the same path and field of the API."""
    sources = {(name, labels): source for name, labels, _, source in ROW.findall(DOCS)}

    for metric in declared():
        if metric.name.startswith("rabbitmq_"):
            source = sources[metric.name, ",".join(metric.labels)]
            assert metric.help.endswith(f"({source}).")


def test_every_setting_is_documented() -> None:
    """The documentation lists exactly the existing settings."""
    fields = {field.name for field in msgspec.structs.fields(COLLECTOR.Config)}
    fields |= {f"canary.{field.name}" for field in msgspec.structs.fields(CanarySettings)}
    tables = re.findall(r"^\| key \| default \|.+\n((?:\|.+\n)+)", DOCS, re.MULTILINE)
    keys = {
        key
        for table in tables
        for row in table.splitlines()
        for key in re.findall(r"`([\w.]+)`", row.split("|")[1])
    }

    assert keys == fields
