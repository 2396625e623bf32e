from __future__ import annotations

import re
from pathlib import Path

from bts_collectors.redis import COLLECTOR
from bts_collectors.redis.queues.config import QueueSettings
from bts_exporter import Metric

PAGE = (
    (Path(__file__).parents[3] / "docs" / "collectors" / "redis.md")
    .read_text()
    .partition("<!-- begin")[0]
)

#: Name, type, labels, source. A metric that is one field of INFO has section and field instead.
ROW = re.compile(
    r"^\| `([\w{}]+)` \| (gauge|counter|untyped|histogram|summary) \| ([^|]*) \| (.+) \|$",
    re.MULTILINE,
)


#: All metrics except those whose names depend on the server.
DECLARED = [metric for metric in COLLECTOR.declared() if isinstance(metric, Metric)]


def test_every_metric_is_documented_with_its_type_and_no_other() -> None:
    """The page lists exactly the metrics that the collector declares."""
    rows = [(name, kind) for name, kind, _, _ in ROW.findall(PAGE)]

    assert sorted(rows) == sorted((metric.name, str(metric.kind)) for metric in DECLARED)


def test_every_label_is_documented_and_no_other() -> None:
    """The row of a metric lists exactly its labels."""
    documented = {name: re.findall(r"`(\w+)`", labels) for name, _, labels, _ in ROW.findall(PAGE)}

    assert documented == {metric.name: list(metric.labels) for metric in DECLARED}


def test_every_source_is_the_help_of_its_metric() -> None:
    """The page and the help on /metrics say the same, except for the metrics of all brokers."""
    helps = {metric.name: metric.help for metric in DECLARED}
    rows = [(name, source) for name, _, place, source in ROW.findall(PAGE) if not place.isalnum()]
    own = [(name, source) for name, source in rows if not name.startswith("messaging_")]

    assert own == [(name, helps[name]) for name, _ in own]
    assert len(own) > 80


def test_every_setting_is_documented() -> None:
    """Settings are in the table of settings, libraries in the table of queues."""
    settings = (*COLLECTOR.Config.__struct_fields__, *QueueSettings.__struct_fields__)

    assert [name for name in settings if f"| `{name}` |" not in PAGE] == []


def test_every_link_within_the_page_leads_somewhere() -> None:
    """Every link points to a heading."""
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
