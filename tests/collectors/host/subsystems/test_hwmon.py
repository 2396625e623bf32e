from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bts_collectors.host.subsystems.hwmon import Hwmon, HwmonSettings, clean, read_sensor
from bts_exporter import NotPresent
from bts_exporter.testing import Samples, collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

HWMON = "sys/class/hwmon"


@pytest.fixture
def samples(machine: Machine, tmp_path: Path) -> Callable[..., Samples]:
    """Give a function that collects from chips, given as directory: (device, files)."""

    def run(chips: dict[str, tuple[str, dict[str, str]]], **kwargs: Any) -> Samples:
        paths = machine({})
        for folder, (device, files) in chips.items():
            machine({f"{HWMON}/{folder}/{name}": text for name, text in files.items()})
            if device:
                target = tmp_path / "sys/devices" / device
                target.mkdir(parents=True, exist_ok=True)
                (tmp_path / HWMON / folder / "device").symlink_to(target)
        return collect(Hwmon(Hwmon.Config(**paths, settings=HwmonSettings(**kwargs))))

    return run


def test_chip(samples: Callable[..., Samples]) -> None:
    """A chip is named by its device; its own name and the labels of its sensors are served, too."""
    chip = "platform_coretemp_0"
    files = {"name": "coretemp\n", "temp1_input": "55000\n", "temp1_label": "Core 0\n"}

    assert samples({"hwmon0": ("platform/coretemp.0", files)}) == {
        "node_hwmon_chip_names": {(chip, "coretemp"): 1},
        "node_hwmon_sensor_label": {(chip, "temp1", "Core 0"): 1},
        "node_hwmon_temp_celsius": {(chip, "temp1"): 55.0},
    }


@pytest.mark.parametrize(
    ("kind", "file", "raw", "name", "value"),
    [
        ("temp", "crit", b"100000", "temp_crit_celsius", 100.0),
        ("temp", "crit_alarm", b"0", "temp_crit_alarm_celsius", 0),
        ("temp", "alarm", b"1", "temp_alarm", 1),
        ("temp", "type", b"4", "temp_type", 4),
        ("fan", "input", b"1098", "fan_rpm", 1098),
        ("fan", "max", b"5200", "fan_max_rpm", 5200),
        ("fan", "pulses", b"2", "fan_pulses", 2),
        ("fan", "beep", b"0", "fan_beep_enabled", 0),
        ("in", "input", b"792", "in_volts", 0.792),
        ("in", "min", b"-1500", "in_min_volts", -1.5),
        ("cpu", "vid", b"1200", "cpu_vid_volts", 1.2),
        ("curr", "input", b"1500", "curr_amps", 1.5),
        ("power", "average", b"12500000", "power_average_watt", 12.5),
        ("power", "accuracy", b"20000", "power_accuracy", 0.02),
        ("power", "average_interval", b"1000", "power_average_interval_seconds", 1.0),
        ("energy", "input", b"2500000", "energy", 2.5),
        ("humidity", "input", b"45000", "humidity", 0.45),
        ("pwm", "", b"128", "pwm", 128),
        ("pwm", "auto_point1_temp", b"30000", "pwm_auto_point1_temp", 30000),
        ("intrusion", "alarm", b"1", "intrusion_alarm", 1),
        ("beep_enable", "", b"1", "beep_enabled", 1),
        ("vrm", "", b"90", "voltage_regulator_version", 90),
        ("update_interval", "", b"1500", "update_interval_seconds", 1.5),
    ],
)
def test_units(kind: str, file: str, raw: bytes, name: str, value: float) -> None:
    """Each kind of file is a metric in base units, with node_exporter's name."""
    ((found, number),) = read_sensor(kind, {file: raw})

    assert (found, number) == (name, pytest.approx(value))


def test_sensor_with_a_file_of_its_own() -> None:
    """If a sensor has a file without a suffix, its input has another metric."""
    assert read_sensor("pwm", {"": b"1", "input": b"2"}) == [("pwm", 1), ("pwm_input", 2)]


def test_energy_is_a_counter(samples: Callable[..., Samples]) -> None:
    """Energy is a counter in joules."""
    found = samples({"hwmon0": ("", {"name": "amd", "energy1_input": "2500000\n"})})

    assert found["node_hwmon_energy_joule_total"] == {("amd", "energy1"): 2.5}


def test_frequencies_go_by_their_label(samples: Callable[..., Samples]) -> None:
    """A clock of a graphics card is named by its label, and left out without one."""
    files = {"freq1_input": "214000000\n", "freq1_label": "sclk\n", "freq2_input": "1\n"}

    assert samples({"hwmon4": ("", files)}) == {
        "node_hwmon_sensor_label": {("hwmon4", "freq1", "sclk"): 1},
        "node_hwmon_freq_freq_mhz": {("hwmon4", "sclk"): 214.0},
    }


def test_files_of_the_device(samples: Callable[..., Samples], tmp_path: Path) -> None:
    """Some drivers have their files in the device's directory."""
    device = tmp_path / "sys/devices/platform/applesmc.768"
    device.mkdir(parents=True)
    (device / "fan1_input").write_text("0\n")

    found = samples({"hwmon2": ("platform/applesmc.768", {"uevent": ""})})

    assert found == {"node_hwmon_fan_rpm": {("platform_applesmc_768", "fan1"): 0}}


@pytest.mark.parametrize(
    ("one", "two", "chips"),
    [
        ("asus", "asus_wmi_sensors", {"asus", "asus_wmi_sensors"}),
        ("asus", "asus", {"hwmon6", "hwmon7"}),
    ],
)
def test_chips_of_one_device(
    samples: Callable[..., Samples], one: str, two: str, chips: set[str]
) -> None:
    """Chips of one device are distinguished by their names, else by their directories."""
    device = "platform/asus-nb-wmi"
    found = samples(
        {
            "hwmon6": (device, {"name": one, "pwm1_enable": "2\n"}),
            "hwmon7": (device, {"name": two, "pwm1_enable": "2\n"}),
        }
    )

    expected = {(f"platform_asus_nb_wmi_{chip}", "pwm1") for chip in chips}
    assert set(found["node_hwmon_pwm_enable"]) == expected


@pytest.mark.parametrize(
    ("key", "expression", "left"),
    [
        ("chip_include", "^one$", {("one", "temp1"), ("one", "temp2")}),
        ("chip_exclude", "^one$", {("two", "temp1")}),
        ("sensor_include", "^one;temp2$", {("one", "temp2")}),
        ("sensor_exclude", ";temp1$", {("one", "temp2")}),
    ],
)
def test_filters(
    samples: Callable[..., Samples], key: str, expression: str, left: set[tuple[str, str]]
) -> None:
    """Chips are selected by name, and sensors by chip;sensor."""
    chips = {
        "hwmon0": ("", {"name": "one", "temp1_input": "1\n", "temp2_input": "1\n"}),
        "hwmon1": ("", {"name": "two", "temp1_input": "1\n"}),
    }

    assert set(samples(chips, **{key: re.compile(expression)})["node_hwmon_temp_celsius"]) == left


@pytest.mark.parametrize("pair", ["chip", "sensor"])
def test_both_filters(pair: str) -> None:
    """Only one expression of a pair can be set."""
    both = {f"{pair}_include": re.compile("a"), f"{pair}_exclude": re.compile("b")}

    with pytest.raises(ValueError, match=f"{pair}_include and {pair}_exclude"):
        HwmonSettings(**both)


def test_sensor_that_returns_eagain(
    samples: Callable[..., Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sensor that returns EAGAIN is read once, and loses only its own series."""
    asked: list[str] = []
    real = os.open

    def answer(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith("temp1_input"):
            asked.append(path)
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", answer)
    files = {"name": "broken", "temp1_input": "1\n", "temp2_input": "2000\n"}

    assert samples({"hwmon0": ("", files)})["node_hwmon_temp_celsius"] == {("broken", "temp2"): 2}
    assert len(asked) == 1


def test_other_files(samples: Callable[..., Samples]) -> None:
    """Files of unknown kinds, directories and files without a number have no series."""
    files = {
        "name": "odd",
        "bogus1_input": "1\n",
        "temp1_input": "hot\n",
        "temp2_input": f"{10**30}\n",
        "power/control": "auto\n",
    }

    assert samples({"hwmon0": ("", files)}) == {"node_hwmon_chip_names": {("odd", "odd"): 1}}


def test_no_chips(samples: Callable[..., Samples]) -> None:
    """A virtual machine without sensors has nothing to read."""
    with pytest.raises(NotPresent, match="class/hwmon"):
        samples({})


@settings(max_examples=200)
@given(name=st.text(max_size=40))
def test_clean_names(name: str) -> None:
    """Any file name becomes a valid part of a metric name."""
    assert re.fullmatch("[a-z0-9:_]*", clean(name))


@settings(max_examples=200)
@given(files=st.dictionaries(st.text(max_size=20), st.binary(max_size=30), max_size=5))
def test_noise(files: dict[str, bytes]) -> None:
    """Any content of a sensor's files gives numbers or nothing."""
    for kind in ("temp", "fan", "vrm", "power"):
        assert all(isinstance(value, int | float) for _, value in read_sensor(kind, files))
