"""The subsystem `powersupplyclass`: batteries and power supplies."""

from __future__ import annotations

import re

from bts_collectors.host.kernel.devices import devices, read_integer
from bts_collectors.host.kernel.files import read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Metric, NameFilter, Scrape, gauge

_SUPPLY = ("power_supply",)

#: Files with text, which become labels of the info metric.
_TEXTS = (
    "capacity_level",
    "charge_type",
    "health",
    "manufacturer",
    "model_name",
    "scope",
    "serial_number",
    "status",
    "technology",
    "type",
    "usb_type",
)

#: Files whose number needs no conversion, and the metric's name if it differs from the file's.
_WHOLE = {
    "authentic": "",
    "calibrate": "",
    "capacity": "",
    "capacity_alert_max": "",
    "capacity_alert_min": "",
    "cycle_count": "cyclecount",
    "online": "",
    "present": "",
    "time_to_empty_now": "time_to_empty_seconds",
    "time_to_full_now": "time_to_full_seconds",
}

#: Files in millionths: microvolts, microamperes, microwatt hours.
_MILLIONTHS = {
    "charge_control_limit": "",
    "charge_control_limit_max": "",
    "charge_counter": "",
    "charge_empty": "",
    "charge_empty_design": "",
    "charge_full": "",
    "charge_full_design": "",
    "charge_now": "charge_ampere",
    "charge_term_current": "",
    "constant_charge_current": "",
    "constant_charge_current_max": "",
    "constant_charge_voltage": "",
    "constant_charge_voltage_max": "",
    "current_boot": "",
    "current_max": "",
    "current_now": "current_ampere",
    "energy_empty": "",
    "energy_empty_design": "",
    "energy_full": "",
    "energy_full_design": "",
    "energy_now": "energy_watthour",
    "input_current_limit": "",
    "power_now": "power_watt",
    "precharge_current": "",
    "voltage_boot": "",
    "voltage_max": "",
    "voltage_max_design": "",
    "voltage_min": "",
    "voltage_min_design": "",
    "voltage_now": "voltage_volt",
    "voltage_ocv": "",
}

#: Files in tenths of a degree Celsius.
_TENTHS = {
    name: f"{name}_celsius"
    for name in (
        "temp",
        "temp_alert_max",
        "temp_alert_min",
        "temp_ambient",
        "temp_ambient_max",
        "temp_ambient_min",
        "temp_max",
        "temp_min",
    )
}


#: Files besides temperatures that can be negative: current and power that flow out of a battery.
_SIGNED = ("current_", "power_now")

#: 0 K in tenths of a degree Celsius, which batteries report for "unknown".
_ABSOLUTE_ZERO = -2731

#: "Unknown": all bits of a 16-bit or 32-bit number set, also after a driver has scaled it from milli to micro,
#: or from minutes to seconds.
_UNKNOWN = frozenset(
    number * factor for number in (2**16 - 1, 2**32 - 1) for factor in (1, 60, 1000)
)


class PowersupplySettings(CollectorConfig, frozen=True):
    """Settings of `powersupplyclass`."""

    #: Power supplies to collect.
    supply_include: re.Pattern[str] | None = None
    #: Power supplies not to collect.
    supply_exclude: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if both expressions are set."""
        NameFilter.check_exclusive("supply", self.supply_include, self.supply_exclude)


def _metrics(files: dict[str, str]) -> dict[str, Metric]:
    return {
        file: gauge(
            f"node_power_supply_{name or file}",
            f"Value of /sys/class/power_supply/NAME/{file}.",
            _SUPPLY,
        )
        for file, name in files.items()
    }


class Powersupplyclass(Subsystem):
    """Batteries and power supplies from /sys/class/power_supply."""

    name = "powersupplyclass"
    Settings = PowersupplySettings

    info = gauge(
        "node_power_supply_info",
        "A metric with a constant '1' value, labelled by files of /sys/class/power_supply/NAME.",
        ("power_supply", *_TEXTS),
    )
    whole = _metrics(_WHOLE)
    millionths = _metrics(_MILLIONTHS)
    tenths = _metrics(_TENTHS)

    settings: PowersupplySettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/power_supply"
        settings = self.settings
        self._name_filter = NameFilter(settings.supply_include, settings.supply_exclude)

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of each selected supply; most have few of the files."""
        for supply in filter(self._name_filter, devices(self._folder)):
            folder = f"{self._folder}/{supply}"
            values = [text(read_value(f"{folder}/{file}") or b"") for file in _TEXTS]
            scrape.emit(self.info, 1, supply, *values)
            for metrics, unit in ((self.whole, 1), (self.millionths, 1e6), (self.tenths, 10)):
                for file, metric in metrics.items():
                    value = read_integer(f"{folder}/{file}")
                    if value is not None and not _is_unknown(file, value):
                        scrape.emit(metric, value / unit, supply)


def _is_unknown(file: str, value: int) -> bool:
    """Return whether a number in a file means "unknown"."""
    if file.startswith("temp"):
        return value in _UNKNOWN or value <= _ABSOLUTE_ZERO
    return value in _UNKNOWN or (value < 0 and not file.startswith(_SIGNED))


COLLECTOR = Powersupplyclass
