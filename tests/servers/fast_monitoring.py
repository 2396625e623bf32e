"""The rules and settings that we ship, sixty times faster: `for`, windows and thresholds of time.

`servers.alertmanager.write_fast_rules` shortens `for` only. Here a fault of a quarter of an hour takes 15 seconds.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from servers.alertmanager import SHIPPED, SPEED

#: A window must contain several scrapes, one a second, also if one is late. An alert must not fire because
#: of two scrapes that fail.
SHORTEST_WINDOW, SHORTEST_FOR = 4.0, 3.0
#: As in the rules that we ship, BrokerDown lasts several scrapes longer than the alerts that it silences.
SILENCING_KEEP = 6.0
#: As in the rules that we ship, BacklogGrowing is slower than ConsumerBehind, which silences it.
SILENCED_FOR = 45.0
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: Thresholds in seconds: what follows the alert's metric, and what replaces it. RabbitMQ's statistics, and so the
#: age of a message at the head, are up to 5 seconds old; a busy machine adds some.
THRESHOLDS = {"ConsumerBehind": (r"> \d+", "> 12"), "BtsEndToEndSlow": (r"> 10$", "> 5")}


def write(folder: Path) -> Path:
    """Write fast rules and Alertmanager's settings into `folder`, as in monitoring/prometheus; return it.

    Rules about the machine keep their times: its load is not the tests' to control.
    """
    (folder / "rules").mkdir(parents=True)
    shutil.copy(SHIPPED / "alertmanager.yml", folder)
    for path in sorted((SHIPPED / "rules").glob("*.yml")):
        content = yaml.safe_load(path.read_text())
        for group in content["groups"] if path.name != "host.yml" else ():
            _speed_up(group)
        (folder / "rules" / path.name).write_text(yaml.safe_dump(content))
    return folder


def _speed_up(group: dict[str, Any]) -> None:
    if "interval" in group:
        group["interval"] = "1s"
    for rule in group["rules"]:
        rule["expr"] = _faster_query(rule["expr"])
        if rule.get("alert") in THRESHOLDS:
            rule["expr"] = re.sub(*THRESHOLDS[rule["alert"]], rule["expr"])
        if "for" in rule:
            shortest = SILENCED_FOR if rule.get("alert") == "BacklogGrowing" else SHORTEST_FOR
            rule["for"] = _faster(rule["for"], shortest)
        if "keep_firing_for" in rule:
            shortest = SILENCING_KEEP if rule["alert"] == "BrokerDown" else 0
            rule["keep_firing_for"] = _faster(rule["keep_firing_for"], shortest)


def _faster_query(query: str) -> str:
    """Return a query with shorter windows, steps of subqueries and offsets."""
    query = re.sub(r"(?<=\[)\w+(?=[\]:])", lambda found: _faster(found[0], SHORTEST_WINDOW), query)
    query = re.sub(r"(?<=:)\d+[smhd](?=\])", "1s", query)
    return re.sub(r"(?<=offset )\w+", lambda found: _faster(found[0], SHORTEST_WINDOW), query)


def _faster(duration: str, shortest: float) -> str:
    found = re.fullmatch(r"(\d+)([smhd])", duration)
    assert found is not None, duration
    seconds = int(found[1]) * UNITS[found[2]] / SPEED
    return f"{max(seconds, shortest) * 1000:.0f}ms"
