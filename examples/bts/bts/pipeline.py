"""From readings to predictions and alarms; no network in here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from prometheus_client import CollectorRegistry

from bts.alarms import Alarms
from bts.drift import DriftMonitor, Reference
from bts.metrics import (
    DriftCollector,
    ModelCollector,
    PredictionMetrics,
    StationsCollector,
    WorkerMetrics,
)
from bts.model import WINDOW, Array, Model, denormalise, normalise
from bts.quality import QualityCheck
from bts.readings import GRID_LOAD, Alarm, Reading


@dataclass(frozen=True, slots=True)
class Prediction:
    """The next grid load of a station, predicted when the reading `id` came; loads in ampere."""

    id: str
    station_id: int
    reading_time: float
    value: float
    prediction: float
    #: `model`, or `no_change` until a station has sent six loads.
    source: str
    model_version: str


class Pipeline:
    """Judges readings, predicts the next load of each station, and raises alarms."""

    def __init__(
        self, model: Model, registry: CollectorRegistry, stale_seconds: float = 120.0
    ) -> None:
        """Start without history; a station is silent after `stale_seconds`."""
        self.model = model
        self.metrics = PredictionMetrics(registry, "amqp")
        self._counts = WorkerMetrics(registry)
        self._quality = QualityCheck()
        self._alarms = Alarms()
        self._drift = DriftMonitor(Reference.from_json(model.reference))
        self._windows: dict[int, deque[float]] = {}
        self._last: dict[int, Prediction] = {}
        #: When each station was heard last: arrival, Unix seconds.
        self._heard: dict[int, float] = {}
        self._stale_seconds = stale_seconds
        self._newest = 0.0
        registry.register(DriftCollector(self._drift))
        registry.register(ModelCollector(model, time.time()))
        registry.register(StationsCollector(self._count_stations, stale_seconds))

    def restore(self, past: Sequence[Prediction]) -> None:
        """Continue from the results of an earlier worker, the oldest first."""
        for prediction in past:
            self._quality.remember(prediction.id)
            self._window(prediction.station_id).append(prediction.value)
            self._last[prediction.station_id] = prediction

    def malformed(self) -> None:
        """Count a message that is not a reading."""
        self._counts.readings.labels("unknown", "malformed").inc()

    def process(
        self, readings: Sequence[Reading], now: float
    ) -> tuple[list[Prediction], list[Alarm]]:
        """Return the predictions and alarms that `readings`, which arrived at `now`, lead to."""
        alarms: list[Alarm] = []
        loads: list[Reading] = []
        windows: list[list[float]] = []
        for reading in readings:
            alarms += self._alarms.heard(reading.station_id, reading.reading_time)
            self._heard[reading.station_id] = now
            if not self._is_valid(reading, now):
                continue
            alarms += self._alarms.check(reading)
            if reading.parameter_id == GRID_LOAD:
                self._drift.add(reading.station_id, reading.value)
                self._window(reading.station_id).append(reading.value)
                loads.append(reading)
                windows.append(list(self._window(reading.station_id)))
        alarms += self._silent_stations(now)
        for alarm in alarms:
            transition = "raised" if alarm.end_time is None else "cleared"
            self._counts.alarms.labels(str(alarm.alarm_id), transition).inc()
        return self._predict(loads, windows), alarms

    def _is_valid(self, reading: Reading, now: float) -> bool:
        quality = self._quality.judge(reading, now)
        # Parameters that nobody knows share a label: there could be any number of them.
        parameter = "unknown" if quality == "out_of_range" else str(reading.parameter_id)
        self._counts.readings.labels(parameter, quality).inc()
        if quality != "valid":
            return False
        self._newest = max(self._newest, reading.reading_time)
        self._counts.last_reading.set(self._newest)
        return True

    def _predict(self, loads: list[Reading], windows: list[list[float]]) -> list[Prediction]:
        if not loads:
            return []
        padded = np.array([[row[-1]] * (WINDOW - len(row)) + row for row in windows])
        self.metrics.batch_size.observe(len(loads))
        with self.metrics.duration.labels("predict").time():
            values = self._ampere(padded)
        predictions = []
        for reading, row, value in zip(loads, windows, values, strict=True):
            enough = len(row) == WINDOW
            prediction = Prediction(
                id=reading.id,
                station_id=reading.station_id,
                reading_time=reading.reading_time,
                value=reading.value,
                prediction=round(float(value), 3) if enough else reading.value,
                source="model" if enough else "no_change",
                model_version=self.model.version,
            )
            self._score(prediction)
            self.metrics.count("ok" if enough else "fallback")
            self.metrics.values.labels(str(GRID_LOAD)).observe(prediction.prediction)
            predictions.append(prediction)
        return predictions

    def _ampere(self, windows: Array) -> Array:
        return denormalise(self.model.predict(normalise(windows)))

    def _score(self, prediction: Prediction) -> None:
        before = self._last.get(prediction.station_id)
        self._last[prediction.station_id] = prediction
        if before is not None and before.source == "model":
            self._counts.error.observe(abs(before.prediction - prediction.value))
            self._counts.persistence_error.observe(abs(before.value - prediction.value))

    def _window(self, station: int) -> deque[float]:
        return self._windows.setdefault(station, deque(maxlen=WINDOW))

    def _silent_stations(self, now: float) -> list[Alarm]:
        limit = now - self._stale_seconds
        silent = [(station, heard) for station, heard in self._heard.items() if heard < limit]
        return [alarm for item in silent for alarm in self._alarms.silent(*item)]

    def _count_stations(self) -> tuple[int, int]:
        heard = list(self._heard.values())
        limit = time.time() - self._stale_seconds
        return len(heard), sum(moment < limit for moment in heard)
