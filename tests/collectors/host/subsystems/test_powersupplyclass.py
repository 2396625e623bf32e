from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.powersupplyclass import Powersupplyclass, PowersupplySettings
from bts_exporter import NotPresent
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

BATTERY = "sys/class/power_supply/BAT0"
MAINS = "sys/class/power_supply/AC"


def test_battery(machine: Machine) -> None:
    """Millionths and tenths become base units, with node_exporter's names."""
    paths = machine(
        {
            f"{BATTERY}/capacity": "81\n",
            f"{BATTERY}/cycle_count": "3\n",
            f"{BATTERY}/current_now": "-1500000\n",
            f"{BATTERY}/energy_full": "45070000\n",
            f"{BATTERY}/energy_now": "36580000\n",
            f"{BATTERY}/power_now": "5002000\n",
            f"{BATTERY}/voltage_now": "11660000\n",
            f"{BATTERY}/temp": "-35\n",
            f"{BATTERY}/time_to_empty_now": "damaged\n",
            f"{BATTERY}/status": "Discharging\n",
            f"{BATTERY}/manufacturer": "LGC\n",
            f"{BATTERY}/type": "Battery\n",
        }
    )
    samples = collect(Powersupplyclass(Powersupplyclass.Config(**paths)))
    (info,) = samples.pop("node_power_supply_info")

    assert [label for label in info if label] == ["BAT0", "LGC", "Discharging", "Battery"]
    assert samples == {
        "node_power_supply_capacity": {("BAT0",): 81},
        "node_power_supply_cyclecount": {("BAT0",): 3},
        "node_power_supply_current_ampere": {("BAT0",): -1.5},
        "node_power_supply_energy_full": {("BAT0",): 45.07},
        "node_power_supply_energy_watthour": {("BAT0",): 36.58},
        "node_power_supply_power_watt": {("BAT0",): 5.002},
        "node_power_supply_voltage_volt": {("BAT0",): 11.66},
        "node_power_supply_temp_celsius": {("BAT0",): -3.5},
    }


@pytest.mark.parametrize(("key", "left"), [("supply_include", "AC"), ("supply_exclude", "BAT0")])
def test_filters(machine: Machine, key: str, left: str) -> None:
    """Supplies are selected by name."""
    paths = machine({f"{BATTERY}/present": "1\n", f"{MAINS}/present": "0\n"})
    own = PowersupplySettings(**{key: re.compile("^AC")})
    samples = collect(Powersupplyclass(Powersupplyclass.Config(**paths, settings=own)))

    assert list(samples["node_power_supply_present"]) == [(left,)]


def test_no_supplies(machine: Machine) -> None:
    """A virtual machine without supplies has nothing to read."""
    with pytest.raises(NotPresent, match="class/power_supply"):
        collect(Powersupplyclass(Powersupplyclass.Config(**machine({}))))
