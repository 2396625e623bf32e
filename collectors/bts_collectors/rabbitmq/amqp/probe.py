"""One message through a queue of our own, over AMQP, and what became of it."""

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

#: Milliseconds after which the broker removes a queue that an exporter left behind.
QUEUE_EXPIRY_MILLISECONDS = 300_000
#: Messages that a queue holds at most: ours are taken out one by one.
MAX_LENGTH = 10
#: Seconds between two looks for a message that was confirmed.
GET_INTERVAL_SECONDS = 0.005

#: The type of queue that goes with its connection.
CONNECTION_BOUND = "classic"

_RESULTS: dict[str, Result] = {"auth": "denied", "noperm": "denied", "timeout": "timeout"}


class Latencies(NamedTuple):
    """Seconds from publishing until the confirmation, and until the message was received."""

    confirm: float
    end_to_end: float


class Outcome(NamedTuple):
    """What became of a message, how fast if it came back, and what the user can do if it could not be sent."""

    result: Result
    times: Latencies | None = None
    failure: Failure | None = None


class Prober:
    """Queues of our own and the connection to them; for one thread."""

    def __init__(self, url: Url, password: Secret | None, tls: TLSConfig, timeout: float) -> None:
        """Send through queues in the address's virtual host; no I/O.

        A broker that takes no messages has `timeout` seconds, and so has the delivery.
        """
        self.vhost = vhost_of(url)
        self._timeout = timeout
        self._connection = AmqpConnection(url, password, tls, timeout)
        self._token = token_hex(4)
        self._channel: Any = None
        self._channel_token = ""
        #: By type, the names of queues that are there as far as is known.
        self._queues: dict[str, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection.is_open

    def process_heartbeats(self) -> None:
        """Answer heartbeats."""
        self._connection.process_heartbeats()

    def send(self, kind: str) -> Outcome:
        """Send a message through the queue of type `kind`, and wait for it."""
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
        """Remove the queues and close the connection."""
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
        # An exclusive queue is its connection's, for as long as the broker takes that to be alive:
        # it does not notice the end of one that an alarm blocks.
        return self._channel_token if kind == CONNECTION_BOUND else self._token

    def _exchange(self, connection: Any, kind: str) -> Outcome:
        queue, body = self._queues[kind], token_hex(8).encode()
        properties = pika.BasicProperties(expiration=str(QUEUE_EXPIRY_MILLISECONDS))
        begin = perf_counter()
        try:
            self._channel.basic_publish("", queue, body, properties, mandatory=True)
        except exceptions.UnroutableError:
            del self._queues[kind]  # somebody removed it: the next message gets a new one
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
    """Declare a queue that goes away with us: at once, or later where its type cannot."""
    arguments = {
        "x-queue-type": kind,
        "x-max-length": MAX_LENGTH,
        "x-expires": QUEUE_EXPIRY_MILLISECONDS,
    }
    fleeting = kind == CONNECTION_BOUND
    channel.queue_declare(
        name, durable=not fleeting, exclusive=fleeting, auto_delete=fleeting, arguments=arguments
    )
