from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.schedstat import Schedstat, parse
from bts_exporter import NotPresent
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

SCHEDSTAT = """\
version 15
timestamp 15819019232
cpu0 498494191 0 3533438552 2553969831 3853684107 2465731542 2045936778163039 343796328169361 4767485306
domain0 00000000,00000003 212499247 210112015 1861015 1860405436 536440 369895 32599 210079416
cpu12 518377256 0 4155211005 2778589869 10466382 2867629021 1904686152592476 364107263788241 5145567945
"""


def test_times_and_slices(machine: Machine) -> None:
    """Nanoseconds become seconds, by CPU; lines of domains are skipped."""
    paths = machine({"proc/schedstat": SCHEDSTAT})

    assert collect(Schedstat(Schedstat.Config(**paths))) == {
        "node_schedstat_running_seconds_total": {
            ("0",): 2045936.778163039,
            ("12",): 1904686.152592476,
        },
        "node_schedstat_waiting_seconds_total": {
            ("0",): 343796.328169361,
            ("12",): 364107.263788241,
        },
        "node_schedstat_timeslices_total": {("0",): 4767485306, ("12",): 5145567945},
    }


def test_absent(machine: Machine) -> None:
    """A kernel without these statistics has nothing to read."""
    with pytest.raises(NotPresent, match="/proc/schedstat is absent"):
        collect(Schedstat(Schedstat.Config(**machine({}))))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version 15\ntimestamp 1\n",
        b"cpu0 1 2 3 4 5 6 7 8\n",
        b"cpu0 1 2 3 4 5 6 7 8 9",
        b"cpu0 1 2 3 4 5 6 -7 8 9\n",
        b"cpu0 1 2 3 4 5 6 7_0 8 9\n",
        b"cpuX 1 2 3 4 5 6 7 8 9\n",
        b"cpu0 1 2 3 4 5 6 " + b"9" * 400 + b" 8 9\n",
    ],
)
def test_unreadable(content: bytes) -> None:
    """Truncated lines, lines without a CPU, and words that are not numbers raise ValueError."""
    with pytest.raises(ValueError, match=r"unexpected content|is empty"):
        list(parse(content))
