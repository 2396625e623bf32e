"""Sends one probe through a canary queue over AMQP, and returns the result."""

from __future__ import annotations

from contextlib import suppress
from secrets import token_hex
from time import perf_counter
from typing import Any, NamedTuple

import pika  # type: ignore[import-untyped]
from pika import exceptions

from bts_collectors.rabbitmq.amqp.connection import ERRORS, AmqpConnection, BlockedError, vhost_of
from bts_collectors.rabbitmq.errors import Failure
from bts_collectors.rabbitmq.metrics.amqp import CANARY_QUEUES, Result
from bts_exporter import Secret, TargetError, TLSConfig, Url

#: Time after which the broker removes an unused canary queue.
QUEUE_EXPIRY_MILLISECONDS = 300_000
#: Maximum length of a canary queue: it holds one probe at a time.
MAX_LENGTH = 10
#: Interval of fetches until a confirmed probe arrives.
GET_INTERVAL_SECONDS = 0.005

#: The type of queue that the broker removes with its connection.
CONNECTION_BOUND = "classic"

_RESULTS: dict[str, Result] = {"auth": "denied", "noperm": "denied", "timeout": "timeout"}


class Latencies(NamedTuple):
    """Seconds from publishing until confirmation, and until the message was received."""

    confirm: float
    end_to_end: float


class Outcome(NamedTuple):
    """The result of a probe, its latencies if it was received, and the failure if it could not be sent."""

    result: Result
    times: Latencies | None = None
    failure: Failure | None = None


class Prober:
    """Canary queues and the connection to them; for one thread."""

    def __init__(self, url: Url, password: Secret | None, tls: TLSConfig, timeout: float) -> None:
        """Send through queues in the virtual host of `url`; no I/O.

        `timeout` in seconds applies to a blocked broker, and again to the delivery.
        """
        self.vhost = vhost_of(url)
        self._timeout = timeout
        self._connection = AmqpConnection(url, password, tls, timeout)
        self._token = token_hex(4)
        self._channel: Any = None
        self._channel_token = ""
        #: Names of existing queues by type.
        self._queues: dict[str, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether the connection is open; a lost one may not be detected yet."""
        return self._connection.is_open

    def process_heartbeats(self) -> None:
        """Process heartbeats."""
        self._connection.process_heartbeats()

    def send(self, kind: str) -> Outcome:
        """Send a probe through the queue of type `kind`, and wait for it."""
        try:
            with self._connection.use() as connection:
                self._open(connection, kind)
                return self._exchange(connection, kind)
        except TargetError as error:
            if isinstance(error, BlockedError):
                return Outcome("blocked")
            result = _RESULTS.get(error.reason, "unreachable")
            return Outcome(result, failure=Failure(error.reason, f"canary: {Failure.of(error)}"))

    def close(self) -> None:
        """Delete the queues and close the connection."""
        with suppress(*ERRORS):
            for queue in self._queues.values():
                if self._is_ready():
                    self._channel.queue_delete(queue)
        self._connection.close()

    def _is_ready(self) -> bool:
        return self._channel is not None and self._channel.is_open

    def _open(self, connection: Any, kind: str) -> None:
        if not self._is_ready():
            self._queues.clear()
            self._channel = connection.channel()
            self._channel.confirm_delivery()
            self._channel_token = token_hex(4)
        if kind not in self._queues:
            name = f"{CANARY_QUEUES}{kind}-{self._token_of(kind)}"
            declare(self._channel, name, kind)
            self._queues[kind] = name

    def _token_of(self, kind: str) -> str:
        # An exclusive queue belongs to its connection as long as the broker considers that alive.
        # It does not notice the end of a connection that is blocked by an alarm.
        return self._channel_token if kind == CONNECTION_BOUND else self._token

    def _exchange(self, connection: Any, kind: str) -> Outcome:
        queue, body = self._queues[kind], token_hex(8).encode()
        properties = pika.BasicProperties(expiration=str(QUEUE_EXPIRY_MILLISECONDS))
        begin = perf_counter()
        try:
            self._channel.basic_publish("", queue, body, properties, mandatory=True)
        except exceptions.UnroutableError:
            del self._queues[kind]  # it was deleted: the next probe creates another one
            return Outcome("unroutable")
        except exceptions.NackError:
            return Outcome("rejected")
        confirmed = perf_counter()
        while self._channel.basic_get(queue, auto_ack=True)[2] != body:
            if perf_counter() - confirmed > self._timeout:
                return Outcome("lost")
            connection.sleep(GET_INTERVAL_SECONDS)
        times = Latencies(confirmed - begin, perf_counter() - begin)
        return Outcome("ok" if times.end_to_end <= self._timeout else "timeout", times)


def declare(channel: Any, name: str, kind: str) -> None:
    """Declare a queue that the broker removes with the connection, or when it expires."""
    arguments = {
        "x-queue-type": kind,
        "x-max-length": MAX_LENGTH,
        "x-expires": QUEUE_EXPIRY_MILLISECONDS,
    }
    fleeting = kind == CONNECTION_BOUND
    channel.queue_declare(
        name, durable=not fleeting, exclusive=fleeting, auto_delete=fleeting, arguments=arguments
    )
