from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.cpufreq import Cpufreq
from bts_exporter import NotPresent
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

CPU = "sys/devices/system/cpu"


def test_frequencies(machine: Machine) -> None:
    """Kilohertz become hertz; a missing file, or one without a number, has no series."""
    paths = machine(
        {
            f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1699981\n",
            f"{CPU}/cpu0/cpufreq/scaling_min_freq": "800000\n",
            f"{CPU}/cpu0/cpufreq/scaling_max_freq": "3700000\n",
            f"{CPU}/cpu10/cpufreq/cpuinfo_min_freq": "400000\n",
            f"{CPU}/cpu10/cpufreq/cpuinfo_max_freq": "4200000\n",
            f"{CPU}/cpu10/cpufreq/cpuinfo_avg_freq": "1200000\n",
            f"{CPU}/cpu10/cpufreq/scaling_cur_freq": "<unknown>\n",
            f"{CPU}/cpuidle/current_driver": "none\n",
        }
    )

    assert collect(Cpufreq(Cpufreq.Config(**paths))) == {
        "node_cpu_scaling_frequency_hertz": {("0",): 1699981000},
        "node_cpu_scaling_frequency_min_hertz": {("0",): 800000000},
        "node_cpu_scaling_frequency_max_hertz": {("0",): 3700000000},
        "node_cpu_frequency_min_hertz": {("10",): 400000000},
        "node_cpu_frequency_max_hertz": {("10",): 4200000000},
        "node_cpu_frequency_avg_hertz": {("10",): 1200000000},
    }


@pytest.mark.parametrize("available", ["performance powersave \n", "performance\n"])
def test_governor(machine: Machine, available: str) -> None:
    """The current governor is 1, even if it is not listed; the other available ones are 0."""
    paths = machine(
        {
            f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave\n",
            f"{CPU}/cpu0/cpufreq/scaling_available_governors": available,
        }
    )

    assert collect(Cpufreq(Cpufreq.Config(**paths))) == {
        "node_cpu_scaling_governor": {("0", "performance"): 0, ("0", "powersave"): 1}
    }


@pytest.mark.parametrize("files", [{}, {f"{CPU}/cpu0/online": "1\n"}])
def test_no_policies(machine: Machine, files: dict[str, str]) -> None:
    """On a virtual machine without cpufreq there is nothing to read."""
    with pytest.raises(NotPresent, match="system/cpu"):
        collect(Cpufreq(Cpufreq.Config(**machine(files))))
