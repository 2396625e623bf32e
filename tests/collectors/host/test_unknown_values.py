"""Values of drivers that mean "unknown": the real process has no series for them, and does not fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.exporter import Exporter

pytestmark = pytest.mark.live

#: Numbers that mean "unknown" in every file.
UNKNOWN = (
    "-1",
    "2147483647",
    "4294967295",
    "9223372036854775807",
    "18446744073709551615",
    "-2147483648",
    "-9223372036854775808",
    "unknown",
    "<unknown>",
    "",
    "N/A",
)

#: Files of /sys with a number, and the metric that has no series then.
NUMBERS = {
    "class/net/eth0/speed": "node_network_speed_bytes",
    "class/hwmon/hwmon0/fan1_input": "node_hwmon_fan_rpm",
    "class/hwmon/hwmon0/temp1_input": "node_hwmon_temp_celsius",
    "class/hwmon/hwmon0/temp1_max": "node_hwmon_temp_max_celsius",
    "class/hwmon/hwmon0/in1_input": "node_hwmon_in_volts",
    "class/hwmon/hwmon0/curr1_input": "node_hwmon_curr_amps",
    "class/hwmon/hwmon0/power1_input": "node_hwmon_power_watt",
    "class/hwmon/hwmon0/energy1_input": "node_hwmon_energy_joule_total",
    "class/thermal/thermal_zone0/temp": "node_thermal_zone_temp",
    "class/thermal/cooling_device0/cur_state": "node_cooling_device_cur_state",
    "class/power_supply/BAT0/energy_now": "node_power_supply_energy_watthour",
    "class/power_supply/BAT0/current_now": "node_power_supply_current_ampere",
    "class/power_supply/BAT0/capacity": "node_power_supply_capacity",
    "class/power_supply/BAT0/temp": "node_power_supply_temp_celsius",
    "class/power_supply/BAT0/time_to_empty_now": "node_power_supply_time_to_empty_seconds",
    "class/nvme/nvme0/nvme0n1/size": "node_nvme_namespace_size_bytes",
    "class/watchdog/watchdog0/timeleft": "node_watchdog_timeleft_seconds",
    "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "node_cpu_scaling_frequency_hertz",
    "devices/system/edac/mc/mc0/ce_count": "node_edac_correctable_errors_total",
    "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "node_cpu_core_throttles_total",
}
#: Files that cannot be negative, have a 16-bit speed, or a temperature of 0 K or 65535 K.
OTHERS = {
    "class/net/eth0/speed": ("65535",),
    "class/hwmon/hwmon0/fan1_input": ("65535", "-5"),
    "class/hwmon/hwmon0/temp1_input": ("-273150", "-274000", "65261850"),
    "class/thermal/thermal_zone0/temp": ("-273150", "-274000"),
    "class/power_supply/BAT0/energy_now": ("-1000", "4294967295000", "65535000"),
    "class/power_supply/BAT0/capacity": ("-5", "65535"),
    "class/power_supply/BAT0/temp": ("-2731", "-2732"),
    "class/power_supply/BAT0/time_to_empty_now": ("65535", "3932100"),
    "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": ("0", "-5"),
}
COLLECTORS = ("cpu", "cpufreq", "edac", "hwmon", "netclass", "nvme", "powersupplyclass", "thermal_zone", "watchdog")  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """Give an exporter with its own /sys in the directory `sys`."""
    folder = tmp_path_factory.mktemp("exporter")
    files = dict.fromkeys(NUMBERS, "7") | {
        "class/net/eth0/flags": "0x1003",
        "devices/system/cpu/online": "0",
        "devices/system/cpu/cpu0/topology/physical_package_id": "0",
        "devices/system/cpu/cpu0/topology/core_id": "0",
    }
    for name, content in files.items():
        path = folder / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    server = Exporter(folder, f"collectors:\n  host: {{sysfs: {folder}/sys}}\n")
    yield server
    server.kill()


@pytest.mark.parametrize("file", NUMBERS)
def test_unknown_values_have_no_series(server: Exporter, file: str) -> None:
    """A number is served; each spelling of "unknown" has no series, and the collector succeeds."""
    path = Path(server.config.parent, "sys", file)
    query = "/metrics?" + "&".join(f"collect[]={name}" for name in COLLECTORS)
    served = {}
    for value in ("7", *UNKNOWN, *OTHERS.get(file, ())):
        path.write_text(f"{value}\n")
        found = server.samples(query)
        failed = [
            labels
            for (name, labels), ok in found.items()
            if name == "node_scrape_collector_success" and not ok
        ]
        assert not failed
        served[value] = any(name == NUMBERS[file] for name, _ in found)
    path.write_text("7\n")

    assert [value for value, there in served.items() if there] == ["7"]
