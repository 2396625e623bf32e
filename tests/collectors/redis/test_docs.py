from __future__ import annotations

import re
from pathlib import Path

from bts_collectors.redis import COLLECTOR
from bts_collectors.redis.queues.config import QueueSettings
from bts_exporter import Metric

PAGE = (Path(__file__).parents[3] / "docs" / "collectors" / "redis.md").read_text()

#: Name, type, and labels; a metric of INFO without labels has the section in their place.
ROW = re.compile(
    r"^\| `([\w{}]+)` \| (gauge|counter|untyped|histogram|summary) \| ([^|]*) \| .+ \|$",
    re.MULTILINE,
)


#: All but those whose names only the server knows.
DECLARED = [metric for metric in COLLECTOR.declared() if isinstance(metric, Metric)]


def test_every_metric_is_documented_with_its_type_and_no_other() -> None:
    """Whoever writes a query looks there first."""
    rows = [(name, kind) for name, kind, _ in ROW.findall(PAGE)]

    assert sorted(rows) == sorted((metric.name, str(metric.kind)) for metric in DECLARED)


def test_every_label_is_documented_and_no_other() -> None:
    """In the row of its metric."""
    documented = {name: re.findall(r"`(\w+)`", labels) for name, _, labels in ROW.findall(PAGE)}

    assert documented == {metric.name: list(metric.labels) for metric in DECLARED}


def test_every_setting_is_documented() -> None:
    """In the table of settings, and in that of the libraries whose queues are known."""
    settings = (*COLLECTOR.Config.__struct_fields__, *QueueSettings.__struct_fields__)

    assert [name for name in settings if f"| `{name}` |" not in PAGE] == []


def test_every_link_within_the_page_leads_somewhere() -> None:
    """A heading that is renamed takes its links along."""
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
