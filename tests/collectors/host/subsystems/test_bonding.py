from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.bonding import Bonding
from bts_exporter import NotPresent
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

NET = "sys/class/net"


def test_slaves(machine: Machine) -> None:
    """The devices of a bond are counted, and those with a link."""
    paths = machine(
        {
            f"{NET}/bonding_masters": "bond0 bond1\n",
            f"{NET}/bond0/bonding/slaves": "eth0 eth1\n",
            f"{NET}/bond0/lower_eth0/bonding_slave/mii_status": "up\n",
            f"{NET}/bond0/lower_eth1/bonding_slave/mii_status": "down\n",
            f"{NET}/bond1/bonding/slaves": "\n",
        }
    )

    assert collect(Bonding(Bonding.Config(**paths))) == {
        "node_bonding_slaves": {("bond0",): 2, ("bond1",): 0},
        "node_bonding_active": {("bond0",): 1, ("bond1",): 0},
    }


def test_links_of_older_kernels(machine: Machine) -> None:
    """Before Linux 3.19 the link to a device is named slave_ instead of lower_."""
    paths = machine(
        {
            f"{NET}/bonding_masters": "bond0\n",
            f"{NET}/bond0/bonding/slaves": "eth0\n",
            f"{NET}/bond0/slave_eth0/bonding_slave/mii_status": "up\n",
        }
    )

    assert collect(Bonding(Bonding.Config(**paths)))["node_bonding_active"] == {("bond0",): 1}


def test_bond_that_goes(machine: Machine) -> None:
    """A bond that has disappeared has no series; if one of its devices has, the active ones are unknown."""
    paths = machine(
        {
            f"{NET}/bonding_masters": "bond0 bond1\n",
            f"{NET}/bond1/bonding/slaves": "eth0\n",
        }
    )

    assert collect(Bonding(Bonding.Config(**paths))) == {
        "node_bonding_slaves": {("bond1",): 1},
    }


@pytest.mark.parametrize("files", [{}, {f"{NET}/bonding_masters": "\n"}])
def test_no_bonds(machine: Machine, files: dict[str, str]) -> None:
    """Without the module, or without a bond, there is nothing to read."""
    with pytest.raises(NotPresent, match="bonding_masters"):
        collect(Bonding(Bonding.Config(**machine(files))))
