"""The worker: readings from RabbitMQ, predictions to a Redis stream, alarms back to RabbitMQ.

A reading is acknowledged when its prediction is in Redis. A worker that is killed before leaves its
readings to the next one; predictions may then be there twice, but none is lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pika  # type: ignore[import-untyped]
import pika.exceptions  # type: ignore[import-untyped]
import redis
from pika.adapters.blocking_connection import BlockingChannel  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, start_http_server

from bts import results, topology
from bts.faults import SLOW_SECONDS, ActiveFaults
from bts.metrics import BacklogCollector
from bts.model import Model, load
from bts.pipeline import Pipeline, Prediction
from bts.readings import Alarm, MalformedReadingError, Reading, decode_reading, encode
from bts.settings import Settings, parser, settings_of

PREFETCH = 128
BATCH = 64
#: How long a batch waits for its next reading.
LINGER_SECONDS = 0.02
RETRY_SECONDS = 1.0

log = logging.getLogger("bts.worker")
#: Delivery tag and body.
Message = tuple[int, bytes]


class Worker:
    """Consumes readings until it is stopped; connects again when a broker comes back."""

    def __init__(self, settings: Settings, stale_seconds: float) -> None:
        self._settings = settings
        self._faults = ActiveFaults(settings.faults_file)
        self._redis = results.connect(settings.redis_url)
        self._channel: BlockingChannel | None = None
        self._restored = False
        # Results that no broker has taken yet. They outlive a connection: the readings that they come from
        # are delivered again then, and are duplicates.
        self._predictions: list[Prediction] = []
        self._alarms: list[Alarm] = []
        registry = CollectorRegistry()
        self._pipeline = Pipeline(load(), registry, stale_seconds)
        self._good = self._pipeline.model
        registry.register(BacklogCollector(self._backlog))
        start_http_server(settings.metrics_port, "127.0.0.1", registry)

    def run(self) -> None:
        """Work until the process is stopped."""
        while True:
            try:
                self._consume()
            except (pika.exceptions.AMQPError, redis.RedisError, OSError) as error:
                log.warning("%s: %s; trying again", type(error).__name__, error)
                time.sleep(RETRY_SECONDS)

    def _consume(self) -> None:
        if not self._restored:
            self._pipeline.restore(results.latest(self._redis, results.MAX_LENGTH))
            self._restored = True
        connection = pika.BlockingConnection(pika.URLParameters(self._settings.amqp_url))
        try:
            channel = connection.channel()
            topology.declare(channel)
            blind = "blind-consumer" in self._faults
            channel.confirm_delivery()
            channel.basic_qos(prefetch_count=0 if blind else PREFETCH)
            self._deliver(channel)
            self._channel = channel
            log.info("consuming %s", topology.READINGS)
            for batch in batches(channel, auto_ack=blind):
                self._handle(channel, batch, acknowledge=not blind)
                if blind != ("blind-consumer" in self._faults):
                    return
        finally:
            self._channel = None
            if connection.is_open:
                connection.close()

    def _handle(self, channel: BlockingChannel, batch: list[Message], *, acknowledge: bool) -> None:
        self._pipeline.model = self._damaged() if "bad-weights" in self._faults else self._good
        readings = self._decode(channel, batch, acknowledge=acknowledge)
        if {"slow-consumer", "blind-consumer"} & self._active():
            time.sleep(SLOW_SECONDS * len(readings))
        with self._pipeline.metrics.in_progress.track_inprogress():
            predictions, alarms = self._pipeline.process(readings, time.time())
            self._predictions += predictions
            self._alarms += alarms
            self._deliver(channel)
        if batch and acknowledge:
            channel.basic_ack(batch[-1][0], multiple=True)

    def _decode(
        self, channel: BlockingChannel, batch: list[Message], *, acknowledge: bool
    ) -> list[Reading]:
        readings = []
        for tag, body in batch:
            try:
                readings.append(decode_reading(body))
            except MalformedReadingError:
                self._pipeline.malformed()
                if acknowledge:
                    channel.basic_reject(tag, requeue=False)
        return readings

    def _deliver(self, channel: BlockingChannel) -> None:
        """Hand the results to Redis and RabbitMQ; waits for Redis, and raises where RabbitMQ is lost."""
        while self._predictions:
            try:
                with self._pipeline.metrics.duration.labels("store").time():
                    results.append(self._redis, self._predictions)
                self._predictions = []
            except redis.RedisError as error:
                log.warning("Redis: %s; trying again", error)
                channel.connection.sleep(RETRY_SECONDS)
        while self._alarms:
            publish(channel, self._alarms[0])
            del self._alarms[0]

    def _active(self) -> set[str]:
        return {name for name in ("slow-consumer", "blind-consumer") if name in self._faults}

    def _backlog(self) -> int:
        channel = self._channel
        return 0 if channel is None else channel.get_waiting_message_count()

    def _damaged(self) -> Model:
        weights = self._good.weights
        return replace(self._good, weights=replace(weights, output=-10 * weights.output))


def batches(channel: BlockingChannel, *, auto_ack: bool) -> Iterator[list[Message]]:
    """Yield readings in batches of up to 64; an empty batch when none has come for a second."""
    batch: list[Message] = []
    messages: Any = channel.consume(
        topology.READINGS, auto_ack=auto_ack, inactivity_timeout=LINGER_SECONDS
    )
    waited = 0.0
    for method, _, body in messages:
        if method is not None:
            batch.append((method.delivery_tag, body))
        waited = 0.0 if batch else waited + LINGER_SECONDS
        if (
            len(batch) >= BATCH
            or (batch and not channel.get_waiting_message_count())
            or waited >= 1
        ):
            yield batch
            batch, waited = [], 0.0


def publish(channel: BlockingChannel, alarm: Alarm) -> None:
    """Publish an alarm, persistent; an exception of pika where RabbitMQ does not confirm it."""
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=alarm.id,
        timestamp=int(alarm.end_time or alarm.start_time),
    )
    channel.basic_publish(topology.EXCHANGE, alarm.key, encode(alarm), properties)


def main() -> None:
    """Run the worker."""
    command = parser("worker", "Predict grid loads from readings.", 8102)
    command.add_argument(
        "--stale-seconds", type=float, default=120, help="a station is silent after (%(default)s)"
    )
    options = command.parse_args()
    Worker(settings_of(options), options.stale_seconds).run()


if __name__ == "__main__":
    main()
