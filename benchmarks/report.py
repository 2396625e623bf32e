"""The report of the benchmarks, for the terminal and docs/performance.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from measuring import Spread

_PYTHON_PACKAGES = (
    "bts-exporter",
    "hiredis",
    "msgspec",
    "paho-mqtt",
    "pika",
    "prometheus-client",
    "PyYAML",
    "redis",
    "urllib3",
)
_DEBIAN_PACKAGES = (
    "mosquitto",
    "prometheus-mqtt-exporter",
    "prometheus-node-exporter",
    "prometheus-redis-exporter",
    "rabbitmq-server",
    "redis-server",
)


@dataclass(frozen=True)
class Row:
    """One measured quantity: a figure for each program, and their ratio."""

    what: str
    figures: Sequence[Spread | float | None]
    ratio: Spread | None = None


@dataclass(frozen=True)
class Table:
    """Quantities measured for several programs; `ratio` is the heading of the last column, or empty."""

    columns: Sequence[str]
    ratio: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Bar:
    """A condition that the results must meet."""

    what: str
    holds: bool


@dataclass(frozen=True)
class Section:
    """The results of one benchmark; `how` describes the measurement."""

    title: str
    how: str
    tables: Sequence[Table] = ()
    facts: Sequence[str] = ()
    bars: Sequence[Bar] = ()
    skipped: bool = False

    def __str__(self) -> str:
        parts = [f"## {self.title}", self.how, *map(_table, self.tables)]
        if self.facts:
            parts.append("\n".join(f"- {fact}" for fact in self.facts))
        if self.bars:
            verdict = {True: "holds", False: "**MISSED**"}
            parts.append("\n".join(f"- {bar.what}: {verdict[bar.holds]}" for bar in self.bars))
        return "\n\n".join(parts) + "\n"


def document(sections: Sequence[Section], surroundings: str) -> str:
    """Return the page of all results."""
    head = f"""\
# Performance

Written by `make bench`, which also measures your machine. Each cell is the median, with the minimum and the maximum.
The programs take turns within one run. Milliseconds differ between machines, and a busy machine slows all
programs. Rely on the ratios: each is computed from neighbouring turns.

{surroundings}
"""
    return "\n".join([head, *map(str, sections)])


def surroundings(load_before: float) -> str:
    """Return the machine and the versions; `load_before` is the load average before the benchmarks."""
    load = f"load average {load_before:.2f} before and {os.getloadavg()[0]:.2f} after"
    lines = [
        f"{_cpu_model()}, {os.cpu_count()} cores, Linux {platform.release()}, {_distribution()}, {load}.",
        f"Python {platform.python_version()} with {_versions()}.",
        f"Debian packages: {_debian_versions()}.",
    ]
    return "\n".join(lines)


def machine(packages: Sequence[str]) -> str:
    """Return the kernel, the distribution and the versions of Debian packages."""
    versions = _debian_versions(packages)
    return f"Measured on Linux {platform.release()}, {_distribution()}, with {versions}."


def _table(table: Table) -> str:
    head = ["", *table.columns, *([table.ratio] if table.ratio else [])]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in table.rows:
        ratio = [_figure(row.ratio)] if table.ratio else []
        lines.append([row.what, *map(_figure, row.figures), *ratio])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _figure(figure: Spread | float | None) -> str:
    match figure:
        case None:
            return ""
        case Spread(median, low, high) if low != high:
            return f"{_number(median)} ({_number(low)}-{_number(high)})"
        case Spread(median):
            return _number(median)
        case _:
            return _number(figure)


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _cpu_model() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown distribution")
    except OSError:
        return "unknown distribution"


def _versions() -> str:
    return ", ".join(f"{name} {metadata.version(name)}" for name in _PYTHON_PACKAGES)


def _debian_versions(packages: Sequence[str] = _DEBIAN_PACKAGES) -> str:
    argv = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *packages]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    except OSError:
        return "unknown"
    # dpkg knows packages that are not installed; they have no version.
    return ", ".join(line for line in done.stdout.splitlines() if " " in line.strip()) or "none"
