"""The simulated stations."""

from __future__ import annotations

import statistics

from bts.generator import Station, load_series
from bts.readings import GRID_LOAD, decode_reading, encode


def test_same_seed_gives_the_same_loads_and_another_seed_does_not() -> None:
    """A run can be repeated to the last value."""
    first, again, other = (list(load_series(7, seed, 200, 30)) for seed in (1, 1, 2))

    assert first == again != other


def test_loads_look_like_those_of_a_station() -> None:
    """Loads come in steps of 0.5 A between 0 and 30 A, 12 to 14.5 A on average, and vary."""
    loads = [load for station in range(20) for load in load_series(station, 1, 2000, 30)]

    assert all(load * 2 == int(load * 2) and 0 <= load <= 30 for load in loads)
    assert 12 < statistics.mean(loads) < 14.5
    assert 1.5 < statistics.pstdev(loads) < 4


def test_reading_survives_encoding() -> None:
    """What a station sends is what the service decodes; ids are unique."""
    station = Station(1001, seed=1)
    readings = [station.read(float(second)) for second in range(100)]

    assert [decode_reading(encode(reading)) for reading in readings] == readings
    assert len({reading.id for reading in readings}) == len(readings)
    assert {reading.parameter_id for reading in readings} > {GRID_LOAD}
