import re
from pathlib import Path

import msgspec

from bts_collectors.mqtt import COLLECTOR, systopics
from bts_collectors.mqtt.link import CONNECT_REASONS, DISCONNECT_REASONS
from bts_exporter import Metric

DOCS = (Path(__file__).parents[3] / "docs/collectors/mqtt.md").read_text()

#: The first two cells of a row: metrics, and topics or a meaning.
ROW = re.compile(r"^\| (`m.+?) \| (.+?) \|$", re.MULTILINE)
METRIC = re.compile(r"`(\w+)(?:\{([^}]+)\})?`")
TOPIC = re.compile(r"`([a-zA-Z/_ ]+)`")


def documented() -> dict[str, list[str]]:
    """Return label names by metric, of the tables."""
    cells = [cell for cell, _ in ROW.findall(DOCS)]
    return {
        name: [label.split("=")[0] for label in labels.split(",") if label]
        for cell in cells
        for name, labels in METRIC.findall(cell)
    }


def test_every_metric_is_documented_with_its_labels_and_no_other() -> None:
    """Whoever writes a query looks there first."""
    declared = [metric for metric in COLLECTOR.declared() if isinstance(metric, Metric)]

    assert documented() == {metric.name: list(metric.labels) for metric in declared}


def test_every_topic_stands_beside_its_metric() -> None:
    """The documentation maps topics to metrics as the code does."""
    sources: dict[str, set[str]] = {}
    for cell, source in ROW.findall(DOCS):
        for name, _ in METRIC.findall(cell):
            sources[name] = set(TOPIC.findall(source))

    for topic, (metric, _) in systopics.NUMBERS.items():
        assert topic in sources[metric.name]
        assert topic in metric.help


def test_every_setting_is_documented() -> None:
    """In the table of settings."""
    for field in msgspec.structs.fields(COLLECTOR.Config):
        assert f"| `{field.name}` |" in DOCS


def test_every_reason_is_documented() -> None:
    """Where a failed collection sends its reader to."""
    table = DOCS.partition("## When it fails")[2]

    for reason in {*CONNECT_REASONS, *DISCONNECT_REASONS, "noperm"}:
        assert f"`{reason}`" in table
