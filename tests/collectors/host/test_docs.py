from __future__ import annotations

import re
from pathlib import Path

from bts_collectors.host import SUBSYSTEMS, Host

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "collectors" / "host.md").read_text().partition("<!-- begin")[0]
MOVING = (DOCS / "moving-from-node-exporter.md").read_text()


def cell(text: str) -> str:
    """Return a sentence as it is written in a table."""
    return text.rstrip(".").replace("|", r"\|").replace("<", r"\<")


def settings() -> dict[str, object]:
    """Return the defaults of all settings."""
    config = Host.Config()
    found = {f: getattr(config, f) for f in config.__struct_fields__ if f not in SUBSYSTEMS}
    for name in SUBSYSTEMS.keys() & set(config.__struct_fields__):
        own = getattr(config, name)
        found |= {f"{name}.{field}": getattr(own, field) for field in own.__struct_fields__}
    return found


def test_metrics() -> None:
    """The page has each metric with its type, labels and source in its subsystem's section, and no other."""
    shared = SUBSYSTEMS["cpu"].outcome_metrics
    assert shared is not None
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    row = re.compile(r"^\| `([\w{}]+)` \| (\w+) \| ([^|]*) \| (.+) \|$", re.MULTILINE)

    assert {name: row.findall(sections.get(name, "")) for name in SUBSYSTEMS} == {
        name: [
            (metric.name, metric.kind, ", ".join(metric.labels), cell(metric.help))
            for metric in cls.declared()
            if metric not in shared
        ]
        for name, cls in SUBSYSTEMS.items()
    }


def test_subsystems() -> None:
    """The page has each subsystem, its source, and whether it is on by default."""
    rows = re.findall(r"^\| \[(\w+)\]\(#\1\) \| (on|off) \| (.+) \|$", PAGE, re.MULTILINE)

    assert rows == [
        (name, "on" if cls.by_default else "off", cell((cls.__doc__ or "").splitlines()[0]))
        for name, cls in SUBSYSTEMS.items()
    ]


def test_settings() -> None:
    """The page has each setting, with its default if that is short, and no other."""
    table = PAGE.partition("## Settings")[2].partition("\n\n`")[0]
    documented = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \| ", table, re.MULTILINE))
    known = settings()

    assert known.keys() == documented.keys()
    for key, default in known.items():
        if isinstance(default, bool | int | str):
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            assert documented[key] == f"`{shown}`", key


def test_settings_of_flags() -> None:
    """The settings in the table of node_exporter's flags exist."""
    rows = re.findall(r"^\| `--.+? \| (.+) \|$", MOVING, re.MULTILINE)
    blocks = re.findall(r"`(\w+): \{(.+?)\}`", "\n".join(rows))
    named = {f"{name}.{key}" for name, keys in blocks for key in re.findall(r"(\w+): ", keys)}

    assert named - settings().keys() == set()
    assert len(named) > 20


def test_missing_subsystems() -> None:
    """Subsystems that the page lists as missing are missing."""
    missing = MOVING.partition("**Not there**:")[2].partition(".")[0]

    assert {name.strip() for name in missing.split(",")} & SUBSYSTEMS.keys() == set()
