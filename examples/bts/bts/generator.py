"""Readings of simulated stations: the same seed gives the same values.

The load of a station's power grid consists of a base, a daily wave, the cycles of a compressor (air
conditioning), and noise that remembers its last value. Sensors report in steps of 0.5 A.
"""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Iterator

from bts.readings import GRID_LOAD, Reading

DAY_SECONDS = 86_400
BASE_AMPERE = 12.0
DAILY_AMPERE = 0.8
COMPRESSOR_AMPERE = 4.2
#: Readings in which the compressor's current covers 63 % of the way to its new value.
COMPRESSOR_INERTIA = 2.0
DUTY = 0.45
NOISE_MEMORY = 0.6
NOISE_AMPERE = 0.45
#: Of the readings of a station, those of the grid load.
LOAD_SHARE = 0.75

#: Mean and standard deviation of the parameters that are plain noise around a mean.
STEADY = {
    111: (23.0, 0.8),
    114: (14.0, 2.0),
    115: (45.0, 4.0),
    116: (25.0, 0.6),
    121: (228.0, 2.0),
    123: (50.0, 0.02),
    143: (26.5, 0.3),
}


class GridLoad:
    """The grid load of one station, reading by reading."""

    def __init__(self, station: int, seed: int) -> None:
        """Start a station; `seed` and `station` together determine every value."""
        self._random = random.Random(f"{seed}/{station}")
        self._phase = self._random.uniform(0, 2 * math.pi)
        self._noise = 0.0
        self._compressor = 0.0
        self._cycle = self._new_cycle()
        self._position = self._random.randrange(self._cycle)

    def next(self, time: float) -> float:
        """Return the load in ampere at `time` (Unix seconds), rounded to 0.5."""
        self._noise = NOISE_MEMORY * self._noise + self._random.gauss(0, NOISE_AMPERE)
        self._advance_compressor()
        daily = DAILY_AMPERE * math.sin(2 * math.pi * time / DAY_SECONDS + self._phase)
        value = BASE_AMPERE + daily + self._compressor + self._noise
        return min(30.0, max(0.0, round(value * 2) / 2))

    def _advance_compressor(self) -> None:
        running = self._position < DUTY * self._cycle
        target = COMPRESSOR_AMPERE if running else 0.0
        self._compressor += (target - self._compressor) * (1 - math.exp(-1 / COMPRESSOR_INERTIA))
        self._position += 1
        if self._position >= self._cycle:
            self._cycle, self._position = self._new_cycle(), 0

    def _new_cycle(self) -> int:
        return self._random.randint(18, 30)


class Station:
    """One station with all its sensors; three of four readings are of the grid load."""

    def __init__(self, number: int, seed: int) -> None:
        """Start station `number`; the same `seed` gives the same values, and other ids of readings."""
        self.number = number
        self._load = GridLoad(number, seed)
        self._random = random.Random(f"{seed}/{number}/others")

    def read(self, time: float) -> Reading:
        """Return a reading taken at `time` (Unix seconds)."""
        if self._random.random() < LOAD_SHARE:
            return self._reading(GRID_LOAD, self._load.next(time), time)
        parameter = self._random.choice(list(STEADY))
        value = round(self._random.gauss(*STEADY[parameter]), 2)
        return self._reading(parameter, value, time)

    def _reading(self, parameter: int, value: float, time: float) -> Reading:
        return Reading(uuid.uuid4().hex, value, self.number, parameter, time)


def load_series(station: int, seed: int, length: int, interval_seconds: float) -> Iterator[float]:
    """Yield `length` loads of a station, one every `interval_seconds`; for training."""
    load = GridLoad(station, seed)
    return (load.next(index * interval_seconds) for index in range(length))
