"""The REST service: predictions for anyone who asks.

POST /prediction takes the form body of the tutorial's client (`inputs`, JSON) as well as JSON; GET
/prediction/STATION has what the pipeline predicted last; /alarms, /health, /ready, /metrics.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import waitress  # type: ignore[import-untyped]
from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from bts.metrics import ModelCollector, PredictionMetrics, ServiceMetrics
from bts.model import WINDOW, Array, Model, load
from bts.reader import AlarmReader, PredictionReader
from bts.settings import parser, settings_of

MAX_BODY_BYTES = 1_000_000
MAX_WINDOWS = 1000

log = logging.getLogger("bts.service")


class InvalidInputError(ValueError):
    """The inputs of a request are not windows; the message says why."""


def inputs_of_request() -> Array:
    """Return the windows of the current request, shape (n, 6); InvalidInputError where it has none."""
    text = request.get_data() if request.is_json else request.form.get("inputs")
    try:
        inputs = None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"inputs is not JSON: {error}"
        raise InvalidInputError(msg) from error
    if request.is_json:
        inputs = inputs.get("inputs") if isinstance(inputs, dict) else None
    if inputs is None:
        msg = 'no inputs; send the form field or the JSON key "inputs": [[[x1], [x2], ... [x6]]]'
        raise InvalidInputError(msg)
    return windows_of(inputs)


def windows_of(inputs: Any) -> Array:
    """Return `inputs`, nested lists of shape (n, 6, 1) or (n, 6), as an array of shape (n, 6)."""
    try:
        array = np.array(inputs, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        msg = f"inputs is not an array of numbers: {error}"
        raise InvalidInputError(msg) from error
    if array.ndim == 3 and array.shape[2] == 1:  # noqa: PLR2004 - windows, steps, one value each
        array = array[:, :, 0]
    if array.ndim != 2 or array.shape[1] != WINDOW or not 1 <= len(array) <= MAX_WINDOWS:  # noqa: PLR2004
        msg = f"inputs has the shape {array.shape}, expected (1 to {MAX_WINDOWS}, {WINDOW}, 1)"
        raise InvalidInputError(msg)
    if not np.isfinite(array).all():
        msg = "inputs holds values that are not finite"
        raise InvalidInputError(msg)
    return array


class Service:
    """The answers of the service."""

    def __init__(
        self,
        model: Model,
        predictions: PredictionReader,
        alarms: AlarmReader,
        metrics: ServiceMetrics,
        registry: CollectorRegistry,
    ) -> None:
        self._model = model
        self._predictions = predictions
        self._alarms = alarms
        self._registry = registry
        self._metrics = PredictionMetrics(registry, "http")
        registry.register(ModelCollector(model, time.time()))
        self._service_metrics = metrics

    def app(self) -> Flask:
        """Return the application with its routes."""
        app = Flask("bts")
        app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
        app.add_url_rule("/prediction", view_func=self.predict, methods=["POST"])
        app.add_url_rule("/prediction/<int:station>", view_func=self.latest)
        app.add_url_rule("/alarms", view_func=lambda: {"alarms": self._alarms.lasting()})
        app.add_url_rule("/health", view_func=lambda: "live", endpoint="health")
        app.add_url_rule("/ready", view_func=self.ready)
        app.add_url_rule("/metrics", view_func=self.metrics)
        return app

    def predict(self) -> Response | tuple[dict[str, str], int]:
        """Predict the value that follows each window; 400 with the reason for inputs that are none."""
        try:
            windows = inputs_of_request()
        except InvalidInputError as error:
            self._metrics.count("error")
            return {"error": str(error)}, 400
        self._service_metrics.variance.set(float(windows.var()))
        self._metrics.batch_size.observe(len(windows))
        with self._metrics.in_progress.track_inprogress():
            with self._metrics.duration.labels("predict").time():
                values = self._model.predict(windows)
            self._metrics.count("ok", len(windows))
        # A number as text: what the tutorial's service answers.
        answer: dict[str, Any] = {"prediction_result": str(values[0])}
        if len(values) > 1:
            answer["predictions"] = [float(value) for value in values]
        return Response(json.dumps(answer), mimetype="application/json")

    def latest(self, station: int) -> dict[str, Any] | tuple[dict[str, str], int]:
        """Return the last prediction of a station in ampere; 404 if there has been none."""
        prediction = self._predictions.latest(station)
        if prediction is None:
            return {"error": f"no prediction for station {station} yet"}, 404
        return asdict(prediction)

    def ready(self) -> str | tuple[str, int]:
        """Return 200 while the results can be read."""
        return "ready" if self._predictions.connected else ("Redis is not reachable\n", 503)

    def metrics(self) -> Response:
        """Return the metrics, with the content type that Prometheus 3 asks for."""
        return Response(generate_latest(self._registry), content_type=CONTENT_TYPE_LATEST)


def main() -> None:
    """Run the service."""
    command = parser("service", "Serve predictions over HTTP.", 8080)
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    options = command.parse_args()
    settings = settings_of(options)
    registry = CollectorRegistry()
    metrics = ServiceMetrics(registry)
    predictions, alarms = PredictionReader(settings, metrics), AlarmReader(settings)
    predictions.start()
    alarms.start()
    app = Service(load(), predictions, alarms, metrics, registry).app()
    log.info("serving on %s:%d", options.host, settings.metrics_port)
    waitress.serve(app, host=options.host, port=settings.metrics_port, threads=8, _quiet=True)


if __name__ == "__main__":
    main()
