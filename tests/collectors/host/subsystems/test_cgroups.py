from __future__ import annotations

from collections.abc import Callable

import pytest

from bts_collectors.host.subsystems.cgroups import Cgroups
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, str]]

HEADING = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"


def test_controllers(machine: Machine) -> None:
    """Each controller has its number of cgroups, and whether it is enabled."""
    paths = machine({"proc/cgroups": f"{HEADING}cpu\t3\t47\t1\nmemory\t0\t9\t0\n"})

    assert collect(Cgroups(Cgroups.Config(**paths))) == {
        "node_cgroups_cgroups": {("cpu",): 47, ("memory",): 9},
        "node_cgroups_enabled": {("cpu",): 1, ("memory",): 0},
    }


@pytest.mark.parametrize("row", ["cpu\t3\t47\n", "cpu\t3\tmany\t1\n", "cpu\n"])
def test_error_names_the_file(machine: Machine, row: str) -> None:
    """A line of another format is an error with the path and the line."""
    paths = machine({"proc/cgroups": HEADING + row})

    with pytest.raises(TargetError, match=r"/proc/cgroups: unexpected content: 'cpu"):
        collect(Cgroups(Cgroups.Config(**paths)))


def test_absent(machine: Machine) -> None:
    """A kernel without cgroups has nothing to read."""
    with pytest.raises(NotPresent, match="/proc/cgroups is absent"):
        collect(Cgroups(Cgroups.Config(**machine({}))))
