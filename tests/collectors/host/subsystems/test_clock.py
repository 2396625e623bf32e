from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bts_collectors.host.subsystems.clock import Time
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

SOURCES = "sys/devices/system/clocksource/clocksource"


@pytest.fixture
def india(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use a time zone whose offset is not a whole number of hours."""
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_time(machine: Machine) -> None:
    """The time is the system time, within a second."""
    before = time.time()
    (now,) = collect(Time(Time.Config(**machine({}))))["node_time_seconds"].values()

    assert before <= now <= time.time()


def test_zone(machine: Machine, india: None) -> None:
    """The offset of the time zone is in seconds, positive east of UTC."""
    samples = collect(Time(Time.Config(**machine({}))))

    assert samples["node_time_zone_offset_seconds"] == {("IST",): 19800}


def test_clocksources(machine: Machine) -> None:
    """The available clock sources and the current one are served."""
    paths = machine(
        {
            f"{SOURCES}0/available_clocksource": "tsc hpet acpi_pm \n",
            f"{SOURCES}0/current_clocksource": "tsc\n",
            f"{SOURCES}1/available_clocksource": "jiffies\n",
        }
    )

    samples = collect(Time(Time.Config(**paths)))
    assert samples["node_time_clocksource_available_info"] == {
        ("0", "tsc"): 1,
        ("0", "hpet"): 1,
        ("0", "acpi_pm"): 1,
        ("1", "jiffies"): 1,
    }
    assert samples["node_time_clocksource_current_info"] == {("0", "tsc"): 1}


def test_no_clocksources(machine: Machine) -> None:
    """Without /sys the time is still served."""
    samples = collect(Time(Time.Config(**machine({}))))

    assert samples.keys() == {"node_time_seconds", "node_time_zone_offset_seconds"}
