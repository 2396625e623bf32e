import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bts_collectors.mqtt import COLLECTOR
from bts_collectors.mqtt.client.state import CONNECT_REASONS, DISCONNECT_REASONS
from bts_collectors.mqtt.probes.canary import CanaryConfig
from bts_collectors.mqtt.probes.pipeline import PipelineConfig
from bts_collectors.mqtt.rules.config import Measure, Rule
from bts_collectors.mqtt.sessions.emqx import EmqxConfig
from bts_collectors.mqtt.sessions.mosquitto import PersistenceConfig
from bts_collectors.mqtt.sys import sapcc_names
from bts_collectors.mqtt.sys import topics as systopics
from bts_exporter import CollectorConfig, Duration, Metric

DOCS = (
    (Path(__file__).parents[3] / "docs/collectors/mqtt.md").read_text().partition("<!-- begin")[0]
)

#: All chapters about metrics.
METRICS = "".join(re.findall(r"^## Metrics .*?(?=^## )", DOCS, re.MULTILINE | re.DOTALL))
#: The cells of a row: metrics, and topics or a meaning.
ROW = re.compile(r"^\| (`.+?) \| (.+?) \|$", re.MULTILINE)
METRIC = re.compile(r"`(\w+)(?:\{([^}]+)\})?`")
KEY = re.compile(r"`(\w+)`")
TOPIC = re.compile(r"`([a-zA-Z/_ ]+)`")


def documented() -> dict[str, list[str]]:
    """Return label names by metric, from the tables."""
    cells = [cell for cell, _ in ROW.findall(METRICS)]
    return {
        name: [label.split("=")[0] for label in labels.split(",") if label]
        for cell in cells
        for name, labels in METRIC.findall(cell)
    }


def test_every_metric_is_documented_with_its_labels_and_no_other() -> None:
    """Authors of queries rely on the tables."""
    theirs = set(sapcc_names.SAPCC.values())
    declared = [
        metric
        for metric in COLLECTOR.declared()
        if isinstance(metric, Metric) and metric not in theirs
    ]

    assert documented() == {metric.name: list(metric.labels) for metric in declared}


def test_every_topic_is_documented_with_its_metric() -> None:
    """The documentation maps topics to metrics as the code does."""
    sources: dict[str, set[str]] = {}
    for cell, source in ROW.findall(METRICS):
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
    """In the table of failures."""
    table = DOCS.partition("## When it fails")[2]

    for reason in {*CONNECT_REASONS, *DISCONNECT_REASONS, "noperm"}:
        assert f"`{reason}`" in table


@pytest.mark.parametrize(
    ("block", "settings"),
    [
        ("`canary`", CanaryConfig),
        ("`emqx`", EmqxConfig),
        ("`persistence`", PersistenceConfig),
        ("a pipeline", PipelineConfig),
        ("a rule", Rule),
        ("a metric", Measure),
    ],
)
def test_every_setting_of_a_block_is_documented(
    block: str, settings: type[CollectorConfig]
) -> None:
    """In the block's table, with its default."""
    table = DOCS.partition(f"| key of {block} |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| (.+?) \| (.*?) ?\|", table, re.MULTILINE))
    documented = {name: default for key, default in rows.items() for name in KEY.findall(key)}

    assert set(documented) == {field.name for field in msgspec.structs.fields(settings)}
    for field in msgspec.structs.fields(settings):
        if not field.required:
            assert documented[field.name] == spelled(field.default)


def spelled(default: object) -> str:
    """Return a default value as in the tables."""
    if default in {None, "", msgspec.NODEFAULT}:  # the last: a factory of an empty value
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, Duration):
        return "`1h`" if default == 3600 else f"`{default:g}s`"
    return f"`{list(default)}`" if isinstance(default, tuple) else f"`{default}`"


def test_every_name_of_mosquitto_exporter_is_mapped_to_ours() -> None:
    """Users who migrate find the new name."""
    table = dict(re.findall(r"^\| `(broker_\w+)` \| `([^`]+)` \|$", DOCS, re.MULTILINE))

    for topic, (metric, labels) in systopics.NUMBERS.items():
        theirs = sapcc_names.SAPCC[systopics.PREFIX + topic].name
        assert table[theirs] == metric.name + (f'{{state="{labels[0]}"}}' if labels else "")
    assert table["broker_uptime"] == systopics.UPTIME_SECONDS.name
    assert set(table) <= {metric.name for metric in sapcc_names.SAPCC.values()}


EXAMPLES = re.findall(r"```yaml\n(collectors:.*?)```", DOCS, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_is_accepted(example: str, tmp_path: Path) -> None:
    """Every example can be copied without changes."""
    file = tmp_path / "config.yaml"
    file.write_text(example)
    for secret in re.findall(r"!credential (\w+)", example):
        (tmp_path / secret).write_text("s3cret")
    checked = subprocess.run(
        [sys.executable, "-m", "bts_exporter", f"--config.file={file}", "check"],
        check=False,
        env=os.environ | {"CREDENTIALS_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (checked.returncode, checked.stderr) == (0, "")
