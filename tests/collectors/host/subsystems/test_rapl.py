from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems import rapl
from bts_collectors.host.subsystems.rapl import Rapl, indexed
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

ZONES = "sys/class/powercap"
PACKAGE = {
    f"{ZONES}/intel-rapl/enabled": "1\n",
    f"{ZONES}/intel-rapl:0/name": "package-0\n",
    f"{ZONES}/intel-rapl:0/energy_uj": "240422366267\n",
}


def test_joules(machine: Machine) -> None:
    """Each kind of zone is a metric in joules; a zone has its index and its path as labels."""
    core = {
        f"{ZONES}/intel-rapl:0:0/name": "core\n",
        f"{ZONES}/intel-rapl:0:0/energy_uj": "118821284256\n",
    }
    paths = machine(PACKAGE | core)
    folder = f"{paths['sysfs']}/class/powercap"

    assert collect(Rapl(Rapl.Config(**paths))) == {
        "node_rapl_package_joules_total": {("0", f"{folder}/intel-rapl:0"): 240422.366267},
        "node_rapl_core_joules_total": {("0", f"{folder}/intel-rapl:0:0"): 118821.284256},
    }


def test_index() -> None:
    """The index is the number in the name; zones of the same name without one are counted."""
    names = ["package-1", "dram", "dram", "package-0-die-1", "psys", ""]

    assert [(name, index) for _, name, index in indexed((name, name) for name in names)] == [
        ("package", "1"),
        ("dram", "0"),
        ("dram", "1"),
        ("package-0-die-1", "0"),
        ("psys", "0"),
        ("", "0"),
    ]


def test_names_become_those_of_metrics(machine: Machine) -> None:
    """Characters that are not valid in metric names become underscores."""
    paths = machine(
        {
            f"{ZONES}/intel-rapl:0/name": "package-0-die-1\n",
            f"{ZONES}/intel-rapl:0/energy_uj": "1\n",
        }
    )

    assert list(collect(Rapl(Rapl.Config(**paths)))) == ["node_rapl_package_0_die_1_joules_total"]


def test_only_root_can_read(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """If only root can read the counters there is nothing to read, and the message has the cure."""

    def forbidden(path: str) -> bytes:
        raise PermissionError(13, os.strerror(13), path)

    monkeypatch.setattr(rapl, "read", forbidden)

    with pytest.raises(
        NotPresent, match=r"energy_uj can be read only by root, .*CAP_DAC_READ_SEARCH"
    ):
        collect(Rapl(Rapl.Config(**machine(PACKAGE))))


@pytest.mark.parametrize("content", ["", "many\n", "-1\n"])
def test_garbage(machine: Machine, content: str) -> None:
    """A counter that is not a number is an error with the path."""
    paths = machine(PACKAGE | {f"{ZONES}/intel-rapl:0/energy_uj": content})

    with pytest.raises(TargetError, match="/intel-rapl:0/energy_uj: "):
        collect(Rapl(Rapl.Config(**paths)))


@pytest.mark.parametrize("files", [{}, {f"{ZONES}/intel-rapl/enabled": "1\n"}])
def test_no_zones(machine: Machine, files: dict[str, str]) -> None:
    """Without zones there is nothing to read."""
    with pytest.raises(NotPresent, match="class/powercap"):
        collect(Rapl(Rapl.Config(**machine(files))))
