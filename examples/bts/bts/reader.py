"""What the REST service knows: the latest prediction of each station, and the alarms that last."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any, Final

import pika  # type: ignore[import-untyped]
import pika.exceptions  # type: ignore[import-untyped]
import redis

from bts import results, topology
from bts.faults import POLL_SECONDS, ActiveFaults
from bts.metrics import ServiceMetrics
from bts.pipeline import Prediction
from bts.settings import Settings

CONSUMER: Final = "api"
BATCH = 500
BLOCK_MILLISECONDS = 1000
RETRY_SECONDS = 1.0

log = logging.getLogger("bts.reader")


class PredictionReader:
    """Reads the stream of predictions as the consumer group `bts-api`, in a thread."""

    def __init__(self, settings: Settings, metrics: ServiceMetrics) -> None:
        self._redis = results.connect(settings.redis_url)
        self._faults = ActiveFaults(settings.faults_file)
        self._latest: dict[int, Prediction] = {}
        self.connected = False
        self._metrics = metrics

    def start(self) -> None:
        """Read in the background until the process is stopped."""
        threading.Thread(target=self._run, name="predictions", daemon=True).start()

    def latest(self, station: int) -> Prediction | None:
        """Return the last prediction of a station; None if there has been none."""
        return self._latest.get(station)

    def _run(self) -> None:
        while True:
            try:
                self._read()
            except redis.RedisError as error:
                self.connected = False
                log.warning("Redis: %s; trying again", error)
                time.sleep(RETRY_SECONDS)

    def _read(self) -> None:
        self._create_group()
        for prediction in results.latest(self._redis, results.MAX_LENGTH):
            self._latest[prediction.station_id] = prediction
        self.connected = True
        # First what an earlier process had taken and not acknowledged, then new entries.
        position = "0"
        while True:
            if "reader-stopped" in self._faults:
                time.sleep(POLL_SECONDS)
                continue
            entries = self._next(position)
            if not entries:
                position = ">"
            for _, fields in entries:
                self._take(fields)
            if entries:
                ids = [entry for entry, _ in entries]
                self._redis.xack(results.STREAM, results.GROUP, *ids)

    def _next(self, position: str) -> list[Any]:
        reply: Any = self._redis.xreadgroup(
            results.GROUP,
            CONSUMER,
            {results.STREAM: position},
            count=BATCH,
            block=BLOCK_MILLISECONDS,
        )
        return [entry for _, entries in reply for entry in entries]

    def _take(self, fields: dict[str, str]) -> None:
        # A pending entry that has been trimmed has no fields.
        if not fields:
            return
        prediction = results.from_fields(fields)
        self._latest[prediction.station_id] = prediction
        self._metrics.latency.observe(max(0.0, time.time() - prediction.reading_time))

    def _create_group(self) -> None:
        try:
            self._redis.xgroup_create(results.STREAM, results.GROUP, id="$", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


class AlarmReader:
    """Consumes alarms from RabbitMQ, in a thread, and keeps those that last."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.amqp_url
        self._lasting: dict[tuple[int, int], dict[str, Any]] = {}

    def start(self) -> None:
        """Consume in the background until the process is stopped."""
        threading.Thread(target=self._run, name="alarms", daemon=True).start()

    def lasting(self) -> list[dict[str, Any]]:
        """Return the alarms that have not ended, the oldest first."""
        return sorted(self._lasting.values(), key=lambda alarm: float(alarm["start_time"]))

    def _run(self) -> None:
        while True:
            try:
                self._consume()
            except (pika.exceptions.AMQPError, OSError) as error:
                log.warning("RabbitMQ: %s: %s; trying again", type(error).__name__, error)
                time.sleep(RETRY_SECONDS)

    def _consume(self) -> None:
        with pika.BlockingConnection(pika.URLParameters(self._url)) as connection:
            channel = connection.channel()
            topology.declare(channel)
            channel.basic_qos(prefetch_count=100)
            for method, _, body in channel.consume(topology.ALARMS):
                self._take(json.loads(body))
                channel.basic_ack(method.delivery_tag)

    def _take(self, alarm: dict[str, Any]) -> None:
        key = (int(alarm["station_id"]), int(alarm["alarm_id"]))
        if alarm["end_time"] is None:
            self._lasting[key] = alarm
        else:
            self._lasting.pop(key, None)
