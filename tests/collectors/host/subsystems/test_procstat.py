from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.procstat import Stat, StatSettings, parse
from bts_exporter import TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

STAT = """\
cpu  301854 612 111922 8979004 3552 2 3944 0 44 36
cpu0 44490 19 21045 1087069 220 1 3410 0 2 1
intr 8885917 17 0 0 1
ctxt 38014093
btime 1418183276
processes 26442
procs_running 2
procs_blocked 1
softirq 5057579 250191 1481983 1647 211099 186066 0 1783454 622196 12499 508444
"""

TOTALS = {
    "node_intr_total": {(): 8885917},
    "node_context_switches_total": {(): 38014093},
    "node_boot_time_seconds": {(): 1418183276},
    "node_forks_total": {(): 26442},
    "node_procs_running": {(): 2},
    "node_procs_blocked": {(): 1},
}


def test_totals(machine: Machine) -> None:
    """The totals of /proc/stat are served; of interrupts only the sum."""
    assert collect(Stat(Stat.Config(**machine({"proc/stat": STAT})))) == TOTALS


def test_softirqs(machine: Machine) -> None:
    """With `softirqs` the soft interrupts are served by vector, with the kernel's names."""
    config = Stat.Config(**machine({"proc/stat": STAT}), settings=StatSettings(softirqs=True))

    assert collect(Stat(config)) == TOTALS | {
        "node_softirqs_total": {
            ("hi",): 250191,
            ("timer",): 1481983,
            ("net_tx",): 1647,
            ("net_rx",): 211099,
            ("block",): 186066,
            ("block_iopoll",): 0,
            ("tasklet",): 1783454,
            ("sched",): 622196,
            ("hrtimer",): 12499,
            ("rcu",): 508444,
        }
    }


def test_absent_fields_give_no_sample(machine: Machine) -> None:
    """A field that this kernel does not have is absent, not 0."""
    paths = machine({"proc/stat": "cpu 1 2 3 4\nctxt 5\n"})

    assert collect(Stat(Stat.Config(**paths))) == {"node_context_switches_total": {(): 5}}


@pytest.mark.parametrize("content", ["", "cpu 1 2 3 4\n", "intr\n"])
def test_nothing_of_use(machine: Machine, content: str) -> None:
    """A file without any of the totals is an error with the path."""
    with pytest.raises(TargetError, match=r"/proc/stat: (is empty|unexpected content)"):
        collect(Stat(Stat.Config(**machine({"proc/stat": content}))))


def test_unreadable_line_loses_only_itself() -> None:
    """The lines around an unreadable one are served, and the error has the line."""
    rows = parse(b"ctxt 5\nbtime never\nprocesses 6\n")

    assert [next(rows), next(rows)] == [(b"ctxt", [5]), (b"processes", [6])]
    with pytest.raises(ValueError, match="btime never"):
        next(rows)
