from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.thermal_zone import ThermalZone
from bts_exporter import NotPresent
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

THERMAL = "sys/class/thermal"


def test_zones_and_coolers(machine: Machine) -> None:
    """Temperatures are in degrees Celsius, also below zero; cooling devices have a current and a maximum state."""
    paths = machine(
        {
            f"{THERMAL}/thermal_zone0/type": "cpu-thermal\n",
            f"{THERMAL}/thermal_zone0/temp": "49925\n",
            f"{THERMAL}/thermal_zone12/type": "acpitz\n",
            f"{THERMAL}/thermal_zone12/temp": "-44000\n",
            f"{THERMAL}/cooling_device0/type": "Processor\n",
            f"{THERMAL}/cooling_device0/cur_state": "0\n",
            f"{THERMAL}/cooling_device0/max_state": "3\n",
        }
    )

    assert collect(ThermalZone(ThermalZone.Config(**paths))) == {
        "node_thermal_zone_temp": {("0", "cpu-thermal"): 49.925, ("12", "acpitz"): -44.0},
        "node_cooling_device_cur_state": {("0", "Processor"): 0},
        "node_cooling_device_max_state": {("0", "Processor"): 3},
    }


@pytest.mark.parametrize("temperature", ["", "garbage\n", "-274000\n", f"{10**30}\n"])
def test_zone_without_a_temperature(machine: Machine, temperature: str) -> None:
    """A zone without a temperature has no series, and does not fail."""
    paths = machine(
        {
            f"{THERMAL}/thermal_zone0/type": "iwlwifi\n",
            f"{THERMAL}/thermal_zone0/temp": temperature,
        }
    )

    assert collect(ThermalZone(ThermalZone.Config(**paths))) == {}


def test_zone_that_cannot_be_read(machine: Machine) -> None:
    """A zone whose driver returns an error such as EINVAL loses only itself."""
    paths = machine(
        {
            f"{THERMAL}/thermal_zone0/temp/unreadable": "",
            f"{THERMAL}/thermal_zone1/type": "acpitz\n",
            f"{THERMAL}/thermal_zone1/temp": "1000\n",
        }
    )

    assert collect(ThermalZone(ThermalZone.Config(**paths))) == {
        "node_thermal_zone_temp": {("1", "acpitz"): 1.0}
    }


def test_no_zones(machine: Machine) -> None:
    """A virtual machine without zones has nothing to read."""
    with pytest.raises(NotPresent, match="class/thermal"):
        collect(ThermalZone(ThermalZone.Config(**machine({}))))
