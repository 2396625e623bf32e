"""Quality of readings, alarms, drift: no network."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from bts import drift, model
from bts.alarms import Alarms
from bts.generator import GridLoad
from bts.pipeline import Pipeline
from bts.quality import QualityCheck
from bts.readings import MalformedReadingError, Reading, decode_reading

NOW = 1_800_000_000.0


def reading(value: float = 12.0, parameter: int = 122, *, id: str = "a", age: float = 0) -> Reading:  # noqa: A002
    """Return a reading of station 1."""
    return Reading(id, value, 1, parameter, NOW - age)


@pytest.mark.parametrize(
    ("taken", "quality"),
    [
        (reading(), "valid"),
        (reading(999999), "sentinel"),
        (reading(999991), "missing"),
        (reading(-1), "out_of_range"),
        (reading(61), "out_of_range"),
        (reading(1, parameter=9), "out_of_range"),
        (reading(age=3601), "late"),
        (reading(age=-61), "clock_skew"),
    ],
)
def test_quality_names_the_fault_of_a_reading(taken: Reading, quality: str) -> None:
    """Each kind of bad reading has a name; the same id again is a duplicate."""
    check = QualityCheck()

    assert check.judge(taken, NOW) == quality
    assert check.judge(taken, NOW) == "duplicate"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b'{"id":"a","value":1,"station_id":1,"parameter_id":122}',
        b'{"id":"a","value":"1","station_id":1,"parameter_id":122,"reading_time":1}',
        b'{"id":"a","value":true,"station_id":1,"parameter_id":122,"reading_time":1}',
        b'{"id":"a","value":NaN,"station_id":1,"parameter_id":122,"reading_time":1}',
        b'{"id":"a","value":1,"station_id":-1,"parameter_id":122,"reading_time":1}',
        b'{"id":"a","value":1,"station_id":1.5,"parameter_id":122,"reading_time":1}',
        b'{"id":"","value":1,"station_id":1,"parameter_id":122,"reading_time":1}',
        b'{"id":"a","value":1'
        + b"0" * 400
        + b',"station_id":1,"parameter_id":122,"reading_time":1}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_payload_that_is_not_a_reading_is_refused(payload: bytes) -> None:
    """Whatever is not exactly a reading raises one kind of error."""
    with pytest.raises(MalformedReadingError):
        decode_reading(payload)


def test_value_that_wavers_around_a_threshold_raises_one_alarm() -> None:
    """310 starts above 30 A and ends at 29 A or below, not in between."""
    alarms = Alarms()
    changes = [
        alarm.end_time is None
        for value in (29, 30, 30.5, 29.5, 30.5, 29.5, 29, 30, 28)
        for alarm in alarms.check(reading(value))
    ]

    assert changes == [True, False]


def test_station_that_is_silent_raises_alarm_323_until_it_is_heard() -> None:
    """After the limit the alarm is raised once, and cleared by the next reading."""
    pipeline = Pipeline(model.load(), CollectorRegistry(), stale_seconds=60)
    pipeline.process([reading(id="a")], NOW)

    raised = [pipeline.process([], NOW + late)[1] for late in (60, 61, 70)]
    _, cleared = pipeline.process([reading(id="b")], NOW + 80)

    assert [[alarm.alarm_id for alarm in alarms] for alarms in raised] == [[], [323], []]
    assert [(alarm.alarm_id, alarm.end_time) for alarm in cleared] == [(323, NOW)]


@pytest.mark.parametrize(
    ("shift", "share", "psi", "stations"),
    [(0, 1, (0, 0.1), (0, 4)), (3, 1, (0.25, 10), (85, 100)), (3, 0.25, (0, 0.25), (18, 29))],
)
def test_drift_of_a_quarter_shows_in_stations_and_that_of_all_in_the_psi(
    shift: float, share: float, psi: tuple[float, float], stations: tuple[float, float]
) -> None:
    """A shift by 3 A of all stations moves the PSI above 0.25; of a quarter, only the count of stations."""
    monitor = drift.DriftMonitor(drift.Reference.from_json(model.load().reference))
    loads = [GridLoad(number, 3) for number in range(100)]
    for second in range(0, 1800, 30):
        for number, load in enumerate(loads):
            monitor.add(number, load.next(second) + shift * (number < 100 * share))

    index = monitor.psi()
    assert index is not None
    assert psi[0] <= index < psi[1]
    assert stations[0] <= monitor.drifted_stations() <= stations[1]


def test_drift_is_unknown_below_a_thousand_readings() -> None:
    """Too few readings give no figure instead of a wild one."""
    monitor = drift.DriftMonitor(drift.Reference.from_json(model.load().reference))
    for value in np.full(999, 12.0):
        monitor.add(1, float(value))

    assert monitor.psi() is monitor.variance_ratio() is monitor.mean_shift_sigmas() is None
