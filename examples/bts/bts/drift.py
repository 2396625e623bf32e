"""Whether the readings still look like those that the model was trained on.

The population stability index (PSI) compares the distribution of the last readings of all stations with
that of the training data: above 0.1 it has shifted, above 0.25 the model should be trained again. A part of
the stations can drift without moving the PSI, so that each station's mean is compared, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bts.model import Array

#: Readings of all stations that the PSI is computed from; fewer than MIN_READINGS say too little.
POOLED_READINGS: Final = 2000
MIN_READINGS: Final = 1000
#: Readings of one station that its mean is computed from: two cycles of a compressor.
STATION_READINGS: Final = 48
#: A station has drifted when its mean is this many standard deviations from that of training.
MAX_SIGMAS: Final = 3.0
#: A share of 0 would make the PSI infinite.
MIN_SHARE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Reference:
    """The distribution of the training data, in ampere."""

    #: Inner edges of the bins.
    edges: Array
    #: Share of readings in each bin, one more than edges.
    shares: Array
    mean: float
    variance: float
    #: Standard deviation of the means of STATION_READINGS readings.
    station_mean_sd: float

    @classmethod
    def of(cls, series: list[Array]) -> Reference:
        """Return the distribution of the stations' loads in `series`."""
        pooled = np.concatenate(series)
        edges = np.unique(np.quantile(pooled, np.linspace(0.1, 0.9, 9)))
        rows = [
            one[: len(one) // STATION_READINGS * STATION_READINGS].reshape(-1, STATION_READINGS)
            for one in series
        ]
        return cls(
            edges=edges,
            shares=shares_of(pooled, edges),
            mean=float(pooled.mean()),
            variance=float(pooled.var()),
            station_mean_sd=float(np.concatenate(rows).mean(axis=1).std()),
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Reference:
        """Return the reference in model.json."""
        return cls(
            edges=np.array(data["edges"], dtype=np.float64),
            shares=np.array(data["shares"], dtype=np.float64),
            mean=float(data["mean"]),
            variance=float(data["variance"]),
            station_mean_sd=float(data["station_mean_sd"]),
        )

    def as_json(self) -> dict[str, Any]:
        """Return what model.json holds of it."""
        return {
            "edges": self.edges.tolist(),
            "shares": self.shares.round(5).tolist(),
            "mean": round(self.mean, 4),
            "variance": round(self.variance, 4),
            "station_mean_sd": round(self.station_mean_sd, 4),
        }


def shares_of(values: Array, edges: Array) -> Array:
    """Return the share of `values` in each bin."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    shares: Array = counts / len(values)
    return shares


class Ring:
    """The last values of a series; read by another thread without a lock."""

    def __init__(self, size: int) -> None:
        self._values = np.zeros(size)
        self._count = 0

    def add(self, value: float) -> None:
        """Put a value in the place of the oldest."""
        self._values[self._count % len(self._values)] = value
        self._count += 1

    @property
    def full(self) -> bool:
        """Return whether every place is taken."""
        return self._count >= len(self._values)

    def values(self) -> Array:
        """Return a copy of the values, in no particular order."""
        return self._values[: self._count].copy()


class DriftMonitor:
    """The last grid loads, compared with those of training."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._pooled = Ring(POOLED_READINGS)
        self._stations: dict[int, Ring] = {}

    def add(self, station: int, load: float) -> None:
        """Add a valid load in ampere."""
        self._pooled.add(load)
        self._stations.setdefault(station, Ring(STATION_READINGS)).add(load)

    def window(self) -> Array:
        """Return the loads that the other methods are computed from."""
        return self._pooled.values()

    def psi(self) -> float | None:
        """Return the population stability index; None below 1,000 readings."""
        window = self.window()
        if len(window) < MIN_READINGS:
            return None
        now = np.maximum(shares_of(window, self._reference.edges), MIN_SHARE)
        then = np.maximum(self._reference.shares, MIN_SHARE)
        return float(((now - then) * np.log(now / then)).sum())

    def variance_ratio(self) -> float | None:
        """Return the variance of the loads divided by that of training; None below 1,000 readings."""
        window = self.window()
        return (
            None if len(window) < MIN_READINGS else float(window.var() / self._reference.variance)
        )

    def mean_shift_sigmas(self) -> float | None:
        """Return the shift of the mean in standard deviations of a load; None below 1,000 readings."""
        window = self.window()
        if len(window) < MIN_READINGS:
            return None
        return float((window.mean() - self._reference.mean) / self._reference.variance**0.5)

    def drifted_stations(self) -> int:
        """Return how many stations have a mean far from that of training."""
        limit = MAX_SIGMAS * self._reference.station_mean_sd
        return sum(
            abs(ring.values().mean() - self._reference.mean) > limit
            for ring in list(self._stations.values())
            if ring.full
        )
