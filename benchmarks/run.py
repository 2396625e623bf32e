"""Measure bts-exporter and the exporters that it replaces in one run, and report whether the limits hold.

A whole run writes docs/performance.md; `--quick` and chosen benchmarks only print.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from measuring import Bench
    from report import Section

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = (
    "exposition",
    "host",
    "footprint",
    "crowd",
    "tls",
    "hanging",
    "redis_default",
    "redis_streams",
    "redis_discovery",
    "redis_lists",
    "rabbitmq",
    "rabbitmq_lag",
    "mqtt",
)


def main() -> int:
    """Run what the command line asks for; 1 if a bar is missed."""
    arguments = _parser().parse_args()
    sys.path.append(str(ROOT / "tests"))  # its servers are the brokers here
    import measuring  # noqa: PLC0415  # needs the path
    import report  # noqa: PLC0415  # as above

    load = os.getloadavg()[0]
    sections: list[Section] = []
    with (
        tempfile.TemporaryDirectory(prefix="bts-bench-") as folder,
        measuring.Bench(Path(folder), quick=arguments.quick) as bench,
    ):
        bench.compile_ours()
        for name in arguments.benchmarks or BENCHMARKS:
            sections.append(_run(name, bench))
            print(sections[-1], flush=True)
    surroundings = report.surroundings(load)
    print(surroundings)
    whole = not arguments.benchmarks and not any(section.skipped for section in sections)
    if whole and not arguments.quick:
        page = ROOT / "docs/performance.md"
        page.write_text(report.document(sections, surroundings))
        print(f"written to {page.relative_to(ROOT)}")
    return int(any(not bar.holds for section in sections for bar in section.bars))


def _run(name: str, bench: Bench) -> Section:
    from report import Section  # noqa: PLC0415  # needs the path

    try:
        section: Section = importlib.import_module(name).run(bench)
    except pytest.skip.Exception as missing:
        return Section(name.capitalize(), f"Skipped: {missing}", skipped=True)
    return section


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "benchmarks",
        nargs="*",
        metavar="BENCHMARK",
        type=_known,
        help=f"{', '.join(BENCHMARKS)} (default: all of them)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="measure less often, in two minutes instead of eight"
    )
    return parser


def _known(name: str) -> str:
    if name not in BENCHMARKS:
        msg = f"there are {', '.join(BENCHMARKS)}; got {name!r}"
        raise argparse.ArgumentTypeError(msg)
    return name


if __name__ == "__main__":
    sys.exit(main())
