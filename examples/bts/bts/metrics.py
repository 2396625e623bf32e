"""The metrics of the service's processes.

No metric has the station as a label: ten thousand stations would make a hundred thousand series of one
histogram. Times are exported as timestamps, not as ages, so that they stay right when a process hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bts.drift import DriftMonitor, Reference
from bts.model import Model, load

STAGE_BUCKETS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
LATENCY_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
#: What the text format adds to a metric's name.
SUFFIXES: Final = {"counter": "_total", "info": "_info"}
LOAD_BUCKETS: Final = tuple(float(ampere) for ampere in range(4, 31))


class PredictionMetrics:
    """What every process that predicts counts: the worker, the LSTM worker and the REST service."""

    def __init__(self, registry: CollectorRegistry, source: str) -> None:
        """Make the metrics; `source` says where requests come from, such as `amqp` or `http`."""
        self._source = source
        self._predictions = Counter(
            "bts_predictions_total",
            "Predictions, by the way the request came and by outcome.",
            ["source", "outcome"],
            registry=registry,
        )
        for outcome in ("ok", "fallback", "error"):
            self._predictions.labels(source, outcome)
        self.duration = Histogram(
            "bts_prediction_duration_seconds",
            "Time spent in each stage of a batch of predictions.",
            ["stage"],
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.in_progress = Gauge(
            "bts_predictions_in_progress", "Predictions that are being made.", registry=registry
        )
        self.batch_size = Histogram(
            "bts_prediction_batch_size",
            "Predictions made at once.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.values = Histogram(
            "bts_prediction_value",
            "Predicted grid loads in ampere.",
            ["parameter"],
            buckets=LOAD_BUCKETS,
            registry=registry,
        )

    def count(self, outcome: str, number: int = 1) -> None:
        """Count predictions with the outcome `ok`, `fallback` or `error`."""
        self._predictions.labels(self._source, outcome).inc(number)


class WorkerMetrics:
    """What the worker alone counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.readings = Counter(
            "bts_readings_total",
            "Readings, by quality.",
            ["parameter", "quality"],
            registry=registry,
        )
        self.alarms = Counter(
            "bts_alarms_total",
            "Alarms raised and cleared.",
            ["alarm", "transition"],
            registry=registry,
        )
        self.error = Summary(
            "bts_prediction_abs_error",
            "Absolute error in ampere of predictions whose reading has arrived.",
            registry=registry,
        )
        self.persistence_error = Summary(
            "bts_persistence_abs_error",
            'Absolute error in ampere of the forecast "no change" for the same readings.',
            registry=registry,
        )
        self.last_reading = Gauge(
            "bts_last_reading_timestamp_seconds",
            "When the newest valid reading was measured.",
            registry=registry,
        )


class SensorMetrics:
    """What the sensors count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.published = Counter(
            "bts_sensors_published_total", "Readings published.", registry=registry
        )
        self.dropped = Counter(
            "bts_sensors_dropped_total",
            "Readings lost because the MQTT broker was down for too long.",
            registry=registry,
        )


class BridgeMetrics:
    """What the bridge counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.forwarded = Counter(
            "bts_bridge_messages_total", "Messages that RabbitMQ has confirmed.", registry=registry
        )
        self.unconfirmed = Gauge(
            "bts_bridge_unconfirmed_messages",
            "Messages taken from MQTT that RabbitMQ has not confirmed.",
            registry=registry,
        )


class ServiceMetrics:
    """What the REST service alone counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.latency = Histogram(
            "bts_end_to_end_latency_seconds",
            "Time from the measurement of a reading to its prediction being available.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        # The name in the original tutorial.
        self.variance = Gauge(
            "input_variance", "Variance of the inputs of the last request.", registry=registry
        )


class TrainingMetrics:
    """What a training reports when it has ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.last_success = Gauge(
            "bts_training_last_success_timestamp_seconds",
            "When the last training that succeeded ended.",
            registry=registry,
        )
        self.mae = Gauge(
            "bts_training_mae",
            "Mean absolute error in ampere on stations that were not trained on.",
            registry=registry,
        )
        self.persistence_mae = Gauge(
            "bts_training_persistence_mae",
            'Mean absolute error in ampere of the forecast "no change" on the same stations.',
            registry=registry,
        )
        self.duration = Gauge(
            "bts_training_duration_seconds", "Duration of the training.", registry=registry
        )


class BacklogCollector(Collector):
    """Messages that the process has taken from the broker and not yet worked on."""

    def __init__(self, backlog: Callable[[], int]) -> None:
        """Serve what `backlog` returns at each scrape."""
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        """Yield the metric; the broker counts these messages as delivered."""
        yield GaugeMetricFamily(
            "bts_worker_backlog_messages",
            "Messages in the worker's own queue, which no broker can see.",
            value=self._backlog(),
        )


class ModelCollector(Collector):
    """Which model a process has loaded."""

    def __init__(self, model: Model, loaded: float) -> None:
        """Serve the facts of `model`, loaded at `loaded` (Unix seconds)."""
        self._model = model
        self._loaded = loaded

    def collect(self) -> Iterator[Metric]:
        """Yield the model's identity and the time when it was loaded."""
        model = self._model
        labels = {
            "name": model.name,
            "version": model.version,
            "framework": model.framework,
            "sha256": model.sha256,
        }
        yield InfoMetricFamily("bts_model", "The model in use.", value=labels)
        yield GaugeMetricFamily(
            "bts_model_loaded_timestamp_seconds", "When the model was loaded.", value=self._loaded
        )


class DriftCollector(Collector):
    """How far the readings have drifted; absent until there are enough of them."""

    def __init__(self, drift: DriftMonitor) -> None:
        """Serve what `drift` says at each scrape."""
        self._drift = drift

    def collect(self) -> Iterator[Metric]:
        """Yield the figures that are known."""
        drift = self._drift
        window = GaugeMetricFamily(
            "bts_input_drift_window_readings",
            "Readings that the drift is computed from.",
            labels=["parameter"],
        )
        window.add_metric(["122"], len(drift.window()))
        yield window
        psi = GaugeMetricFamily(
            "bts_input_drift_psi",
            "Population stability index of the readings against the training data.",
            labels=["parameter"],
        )
        if (value := drift.psi()) is not None:
            psi.add_metric(["122"], value)
        yield psi
        yield _known(
            "bts_input_variance_ratio",
            "Variance of the readings divided by that of the training data.",
            drift.variance_ratio(),
        )
        yield _known(
            "bts_input_mean_shift_sigmas",
            "Shift of the mean, in standard deviations of the training data.",
            drift.mean_shift_sigmas(),
        )
        yield _known(
            "bts_stations_drifted",
            "Stations whose mean is far from that of the training data.",
            drift.drifted_stations(),
        )


class StationsCollector(Collector):
    """How many stations send readings."""

    def __init__(self, count: Callable[[], tuple[int, int]], stale_seconds: float) -> None:
        """Serve what `count` returns at each scrape: stations known, and stations silent for long."""
        self._count = count
        self._threshold = f"{stale_seconds:g}"

    def collect(self) -> Iterator[Metric]:
        """Yield both numbers."""
        known, stale = self._count()
        yield _known(
            "bts_stations_reporting", "Stations that have sent a reading lately.", known - stale
        )
        family = GaugeMetricFamily(
            "bts_stations_stale",
            "Stations without a reading for longer than the threshold (seconds).",
            labels=["threshold"],
        )
        family.add_metric([self._threshold], stale)
        yield family


def _known(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[])
    if value is not None:
        family.add_metric([], value)
    return family


def declared() -> list[dict[str, str]]:
    """Return name and type of every metric of the service's processes, for checks of queries."""
    registry = CollectorRegistry()
    model = load()
    PredictionMetrics(registry, "amqp")
    for metrics in (WorkerMetrics, SensorMetrics, BridgeMetrics, ServiceMetrics, TrainingMetrics):
        metrics(registry)
    registry.register(BacklogCollector(int))
    registry.register(ModelCollector(model, 0))
    registry.register(DriftCollector(DriftMonitor(Reference.from_json(model.reference))))
    registry.register(StationsCollector(lambda: (0, 0), 0))
    return [
        {"name": metric.name + SUFFIXES.get(metric.type, ""), "type": metric.type}
        for metric in registry.collect()
    ]
