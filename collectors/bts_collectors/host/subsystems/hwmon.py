"""The subsystem `hwmon`: temperatures, fans, voltages, currents and power from hardware sensors."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import NamedTuple

from bts_collectors.host.kernel.devices import devices, entries, parse_integer
from bts_collectors.host.kernel.files import read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Kind, NameFilter, Scrape, Template, gauge

#: A file such as `temp1_crit`: kind, number of the sensor, name of the file.
_FILE = re.compile(r"(\D+)(\d*)(?:_(.+))?")
_UNCLEAN = re.compile(r"[^a-z0-9:_]")

_KINDS = {
    "beep_enable",
    "cpu",
    "curr",
    "energy",
    "fan",
    "freq",
    "humidity",
    "in",
    "intrusion",
    "power",
    "pwm",
    "temp",
    "update_interval",
    "vrm",
}
#: Files without a unit, for sensors of any kind, and the suffix of their metrics.
_PLAIN = {"alarm": "", "fault": "", "beep": "_enabled"}
#: Kinds with a single file: metric and factor.
_SINGLE = {
    "beep_enable": ("beep_enabled", 1.0),
    "update_interval": ("update_interval_seconds", 1e-3),
    "vrm": ("voltage_regulator_version", 1.0),
}
_UNITS = {
    "cpu": ("_volts", 1e-3),
    "curr": ("_amps", 1e-3),
    "energy": ("", 1e-6),
    "humidity": ("", 1e-5),
    "in": ("_volts", 1e-3),
    "power": ("_watt", 1e-6),
    "temp": ("_celsius", 1e-3),
}
#: Files whose unit differs from that of their kind.
_EXCEPTIONS = {
    **{("fan", file): ("_rpm", 1.0) for file in ("input", "min", "max", "target")},
    **{
        ("power", file): ("_seconds", 1e-3)
        for file in ("average_interval", "average_interval_min", "average_interval_max")
    },
    ("power", "accuracy"): ("", 1e-6),
    ("temp", "type"): ("", 1.0),
}

#: Kinds that can be negative: a voltage of -12 V, reverse current or power, a temperature.
_SIGNED = {"curr", "in", "power", "temp", "cpu"}

#: 0 K in millidegrees Celsius, which the NVMe driver reports for "no limit".
_ABSOLUTE_ZERO = -273150
#: 65535 K and 65535 degrees: all bits of a register are set, so the temperature is unknown.
_UNKNOWN_TEMPERATURES = {65_535_000 - 273_150, 65_535_000}
_UNKNOWN_SPEED = 65535

#: Name and content of each file of a sensor, by `(kind, number)`.
Sensors = dict[tuple[str, int], dict[str, bytes]]


class HwmonSettings(CollectorConfig, frozen=True):
    """Settings of `hwmon`; the expressions for sensors match `chip;sensor`."""

    #: Chips to collect.
    chip_include: re.Pattern[str] | None = None
    #: Chips not to collect.
    chip_exclude: re.Pattern[str] | None = None
    #: Sensors to collect; matches `chip;sensor`.
    sensor_include: re.Pattern[str] | None = None
    #: Sensors not to collect; matches `chip;sensor`.
    sensor_exclude: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if both expressions of a pair are set."""
        NameFilter.check_exclusive("chip", self.chip_include, self.chip_exclude)
        NameFilter.check_exclusive("sensor", self.sensor_include, self.sensor_exclude)


class Measurement(NamedTuple):
    """The value of a sensor file; `name` is the part of the metric's name after `node_hwmon_`."""

    name: str
    value: float


class Hwmon(Subsystem):
    """Hardware sensors from /sys/class/hwmon."""

    name = "hwmon"
    Settings = HwmonSettings

    measurements = Template(
        "node_hwmon_{field}",
        "Hardware monitor, {field} (/sys/class/hwmon/CHIP/<kind><n>_<file>).",
        Kind.GAUGE,
        ("chip", "sensor"),
    )
    energies = Template(
        "node_hwmon_{field}_joule_total",
        "Energy used, {field} (/sys/class/hwmon/CHIP/energy<n>_<file>).",
        Kind.COUNTER,
        ("chip", "sensor"),
    )
    frequency = gauge(
        "node_hwmon_freq_freq_mhz",
        "Frequency in MHz; the label sensor is the sensor's own label (/sys/class/hwmon/CHIP/freq<n>_input).",
        ("chip", "sensor"),
    )
    label = gauge(
        "node_hwmon_sensor_label",
        "A metric with a constant '1' value, labelled by the sensor's own label"
        " (/sys/class/hwmon/CHIP/<kind><n>_label).",
        ("chip", "sensor", "label"),
    )
    chip_name = gauge(
        "node_hwmon_chip_names",
        "A metric with a constant '1' value, labelled by the chip's name (/sys/class/hwmon/CHIP/name).",
        ("chip", "chip_name"),
    )

    settings: HwmonSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/class/hwmon"
        settings = self.settings
        self._chip_filter = NameFilter(settings.chip_include, settings.chip_exclude)
        self._sensor_filter = NameFilter(settings.sensor_include, settings.sensor_exclude)

    def collect(self, scrape: Scrape) -> None:
        """Emit the measurements of each sensor; a sensor that cannot be read has no series."""
        folders = [f"{self._folder}/{name}" for name in devices(self._folder, "hwmon")]
        names = [clean(text(read_value(f"{folder}/name") or b"")) for folder in folders]
        for folder, name, chip in zip(folders, names, chips(folders, names), strict=True):
            if not self._chip_filter(chip):
                continue
            if name:
                scrape.emit(self.chip_name, 1, chip, name)
            for (kind, number), files in _sensors(folder).items():
                if self._sensor_filter(f"{chip};{kind}{number}"):
                    self._emit(scrape, chip, kind, f"{kind}{number}", files)

    def _emit(
        self, scrape: Scrape, chip: str, kind: str, sensor: str, files: dict[str, bytes]
    ) -> None:
        label = text(files.pop("label", b""))
        if label:
            scrape.emit(self.label, 1, chip, sensor, label)
        if kind == "freq":
            hertz = parse_integer(files.get("input"))
            if hertz is not None and clean(label):
                scrape.emit(self.frequency, hertz / 1e6, chip, clean(label))
            return
        for name, value in read_sensor(kind, files):
            template = self.energies if kind == "energy" else self.measurements
            scrape.emit(template.of(name), value, chip, sensor)


def read_sensor(kind: str, files: dict[str, bytes]) -> list[Measurement]:
    """Return the measurements in the files of a sensor; skip files without a number."""
    measurements = []
    for file, content in files.items():
        number = parse_integer(content)
        if number is None or _is_unknown(kind, number):
            continue
        name, factor = _SINGLE.get(kind) or _metric(kind, file, "" in files)
        measurements.append(Measurement(name, number * factor if factor != 1 else number))
    return measurements


def _is_unknown(kind: str, number: int) -> bool:
    """Return whether a number in a sensor's file means "unknown"."""
    if kind == "temp":
        return number <= _ABSOLUTE_ZERO or number in _UNKNOWN_TEMPERATURES
    if kind == "fan":
        return number < 0 or number == _UNKNOWN_SPEED
    return number < 0 and kind not in _SIGNED


def _metric(kind: str, file: str, taken: bool) -> tuple[str, float]:  # noqa: FBT001
    """Return name and factor for a file; the suffix `input` is left out unless that name is `taken`."""
    name = kind if not file or (file == "input" and not taken) else f"{kind}_{clean(file)}"
    if file in _PLAIN:
        return name + _PLAIN[file], 1.0
    unit, factor = _EXCEPTIONS.get((kind, file)) or _UNITS.get(kind, ("", 1.0))
    return name + unit, factor


def chips(folders: list[str], names: list[str]) -> list[str]:
    """Return the label value of each chip: the name of its device, which is stable across reboots.

    Several chips of one device are distinguished by their names, else by their directories.
    """
    bases = [
        _device(folder) or name or _last(folder)
        for folder, name in zip(folders, names, strict=True)
    ]
    shared = Counter(bases)
    named = Counter(zip(bases, names, strict=True))
    labels = []
    for folder, base, name in zip(folders, bases, names, strict=True):
        if shared[base] == 1:
            labels.append(base)
        else:
            unique = name and named[base, name] == 1
            labels.append(f"{base}_{name if unique else _last(folder)}")
    return labels


def _device(folder: str) -> str:
    """Return the device of a chip, such as `platform_coretemp_0`; empty if it has none."""
    link = f"{folder}/device"
    if not os.path.exists(link):  # noqa: PTH110  # no Path needed
        return ""
    head, last = os.path.split(os.path.realpath(link))
    return "_".join(filter(None, (clean(_last(head)), clean(last))))


def _last(path: str) -> str:
    return os.path.basename(path)  # noqa: PTH119  # no Path needed


def clean(name: str) -> str:
    """Return `name` with only the characters that are valid in metric names."""
    return _UNCLEAN.sub("_", name.lower()).strip("_")


def _sensors(folder: str) -> Sensors:
    """Return the sensors of a chip; some drivers have their files in the device's directory."""
    sensors: Sensors = {}
    for place in (folder, f"{folder}/device"):
        for file in entries(place):
            found = _FILE.fullmatch(file)
            if found is None or found[1] not in _KINDS:
                continue
            # Some drivers return EAGAIN all the time, so there is no retry.
            content = read_value(f"{place}/{file}")
            if content is not None:
                key = found[1], int(found[2] or 0)
                sensors.setdefault(key, {})[found[3] or ""] = content
    return sensors


COLLECTOR = Hwmon
