"""Tables in docs/bts.md that the benchmarks of the BTS service write."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "bts.md"


def write_rows(heading: str, rows: Iterable[list[str]], keys: int = 2) -> None:
    """Put rows into the table below a heading of the page; rows with the same first cells, the keys, are replaced.

    Several benchmarks may do so at the same time.
    """
    new = {tuple(row[:keys]): f"| {' | '.join(row)} |" for row in rows}
    with PAGE.open("r+") as page:
        fcntl.flock(page, fcntl.LOCK_EX)
        lines = page.read().splitlines()
        first = _table(lines, heading)
        last = next(
            (n for n in range(first, len(lines)) if not lines[n].startswith("|")), len(lines)
        )
        old = {_key(line, keys): line for line in lines[first:last]}
        lines[first:last] = (old | new).values()
        page.seek(0)
        page.truncate()
        page.write("\n".join(lines) + "\n")


def _table(lines: list[str], heading: str) -> int:
    """Return the number of the first row of the table below a heading."""
    start = lines.index(f"## {heading}")
    return next(n for n in range(start, len(lines)) if lines[n].startswith("|---")) + 1


def _key(line: str, keys: int) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.split("|")[1 : keys + 1])
