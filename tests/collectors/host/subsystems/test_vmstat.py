from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.vmstat import Vmstat, VmstatSettings
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

VMSTAT = "nr_free_pages 977\npgpgin 12\npswpout 3\npgmajfault 4\noom_kill 1\nthp_fault_alloc 5\n"


def test_default_fields(machine: Machine) -> None:
    """Paging, swapping, faults and OOM kills are served, and none of the other 150 fields."""
    assert collect(Vmstat(Vmstat.Config(**machine({"proc/vmstat": VMSTAT})))) == {
        "node_vmstat_pgpgin": {(): 12},
        "node_vmstat_pswpout": {(): 3},
        "node_vmstat_pgmajfault": {(): 4},
        "node_vmstat_oom_kill": {(): 1},
    }


def test_chosen_fields(machine: Machine) -> None:
    """The setting replaces the default fields."""
    paths = machine({"proc/vmstat": VMSTAT})
    settings = VmstatSettings(fields=re.compile("^nr_free|thp"))

    assert collect(Vmstat(Vmstat.Config(**paths, settings=settings))) == {
        "node_vmstat_nr_free_pages": {(): 977},
        "node_vmstat_thp_fault_alloc": {(): 5},
    }


def test_invalid_metric_names(machine: Machine) -> None:
    """A field whose name is not valid in a metric name is left out; the others are served."""
    paths = machine({"proc/vmstat": "pgpg-in 1\npgpgé 2\npgpg\udcff 3\npgpgout 4\n"})

    assert collect(Vmstat(Vmstat.Config(**paths))) == {"node_vmstat_pgpgout": {(): 4}}


def test_empty(machine: Machine) -> None:
    """An empty file is an error with the path."""
    with pytest.raises(TargetError, match="/proc/vmstat: is empty"):
        collect(Vmstat(Vmstat.Config(**machine({"proc/vmstat": ""}))))


def test_absent(machine: Machine) -> None:
    """Without the file there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc/vmstat is absent"):
        collect(Vmstat(Vmstat.Config(**machine({}))))
