"""The message service of the public BTS examples: their clients work with it unchanged.

Requests come through the topic exchange `lstm_bts`, keys `lstm.request.#`, into the queue `in_lstm`; a
reply is the request with the predicted value as `LSTM`, sent to the queue in `reply_to`, or else through
the exchange with the key `lstm.response.` and the client's name.

Like the public service's second version it takes requests from RabbitMQ into a queue of its own, of up to
10,000: RabbitMQ counts them as delivered, so that only `bts_worker_backlog_messages` shows them.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pika  # type: ignore[import-untyped]
import pika.exceptions  # type: ignore[import-untyped]
from pika.adapters.blocking_connection import BlockingChannel  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, start_http_server

from bts.faults import SLOW_SECONDS, ActiveFaults
from bts.metrics import BacklogCollector, ModelCollector, PredictionMetrics
from bts.model import WINDOW, load
from bts.settings import Settings, parser, settings_of

EXCHANGE: Final = "lstm_bts"
QUEUE: Final = "in_lstm"
REQUEST_KEYS: Final = "lstm.request.#"
REQUEST_PREFIX: Final = "lstm.request."
RESPONSE_PREFIX: Final = "lstm.response."
LIMIT: Final = 10_000
RETRY_SECONDS = 1.0

log = logging.getLogger("bts.lstm_worker")


class BadRequestError(ValueError):
    """A request that cannot be answered with a prediction; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """A delivered request."""

    tag: int
    routing_key: str
    reply_to: str | None
    correlation_id: str | None
    body: bytes


def windows_of(body: bytes) -> tuple[list[dict[str, Any]], list[list[float]]]:
    """Return the objects of a request and their windows, normalised; BadRequestError where it has none."""
    try:
        data = json.loads(body)
        items = data if isinstance(data, list) else [data]
        windows = [[float(item[f"norm_{n}"]) for n in range(1, WINDOW + 1)] for item in items]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"not a request with norm_1 to norm_6: {type(error).__name__}: {error}"
        raise BadRequestError(msg) from error
    if not items or not np.isfinite(windows).all():
        msg = "no values, or values that are not finite"
        raise BadRequestError(msg)
    return items, windows


class LstmWorker:
    """Answers requests until it is stopped."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._faults = ActiveFaults(settings.faults_file)
        self._model = load()
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        registry = CollectorRegistry()
        self._metrics = PredictionMetrics(registry, "lstm")
        registry.register(ModelCollector(self._model, time.time()))
        registry.register(BacklogCollector(self._backlog))
        start_http_server(settings.metrics_port, "127.0.0.1", registry)

    def run(self) -> None:
        """Work until the process is stopped."""
        while True:
            try:
                self._serve()
            except (pika.exceptions.AMQPError, OSError) as error:
                log.warning("%s: %s; trying again", type(error).__name__, error)
                time.sleep(RETRY_SECONDS)

    def _serve(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._settings.amqp_url))
        channel = connection.channel()
        # As the public clients declare it: not durable.
        channel.exchange_declare(EXCHANGE, "topic")
        channel.queue_declare(QUEUE)
        channel.queue_bind(QUEUE, EXCHANGE, REQUEST_KEYS)
        channel.basic_qos(prefetch_count=LIMIT)
        self._requests = queue.SimpleQueue()
        channel.basic_consume(QUEUE, self._take)
        answering = threading.Thread(
            target=self._answer_all, args=(self._requests, connection, channel), daemon=True
        )
        answering.start()
        log.info("consuming %s", QUEUE)
        try:
            channel.start_consuming()
        finally:
            self._requests.put(None)
            answering.join()

    def _backlog(self) -> int:
        return self._requests.qsize()

    def _take(self, _channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        request = Request(
            method.delivery_tag,
            method.routing_key,
            properties.reply_to,
            properties.correlation_id,
            body,
        )
        self._requests.put(request)

    def _answer_all(
        self,
        requests: queue.SimpleQueue[Request | None],
        connection: pika.BlockingConnection,
        channel: BlockingChannel,
    ) -> None:
        while (request := requests.get()) is not None and connection.is_open:
            if "slow-consumer" in self._faults:
                time.sleep(SLOW_SECONDS)
            reply = self._predict(request)
            connection.add_callback_threadsafe(
                lambda request=request, reply=reply: settle(channel, request, reply)
            )

    def _predict(self, request: Request) -> bytes | None:
        try:
            items, windows = windows_of(request.body)
        except BadRequestError as error:
            log.warning("%s: %s", request.routing_key, error)
            self._metrics.count("error")
            return None
        self._metrics.batch_size.observe(len(items))
        with (
            self._metrics.in_progress.track_inprogress(),
            self._metrics.duration.labels("predict").time(),
        ):
            values = self._model.predict(np.array(windows))
        replies = [
            {**item, "LSTM": float(value)} for item, value in zip(items, values, strict=True)
        ]
        self._metrics.count("ok", len(items))
        single = len(replies) == 1 and not request.body.lstrip().startswith(b"[")
        return json.dumps(replies[0] if single else replies).encode()


def settle(channel: BlockingChannel, request: Request, reply: bytes | None) -> None:
    """Send the reply and acknowledge the request; reject a request that has no reply."""
    if not channel.is_open:
        return
    if reply is None:
        channel.basic_reject(request.tag, requeue=False)
        return
    properties = pika.BasicProperties(correlation_id=request.correlation_id)
    if request.reply_to:
        channel.basic_publish("", request.reply_to, reply, properties)
    else:
        key = RESPONSE_PREFIX + request.routing_key.removeprefix(REQUEST_PREFIX)
        channel.basic_publish(EXCHANGE, key, reply, properties)
    channel.basic_ack(request.tag)


def main() -> None:
    """Run the worker."""
    command = parser("lstm_worker", "Answer prediction requests of the public clients.", 8103)
    LstmWorker(settings_of(command.parse_args())).run()


if __name__ == "__main__":
    main()
