"""AMQP as the source: depth and consumers of queues that are named, and nothing else.

For brokers without plug-ins, or users who get no more than a login.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from typing import Any

from pika import exceptions  # type: ignore[import-untyped]

from bts_collectors.rabbitmq.amqp.connection import AmqpConnection, no_reply, vhost_of
from bts_collectors.rabbitmq.api.models import Queue
from bts_collectors.rabbitmq.errors import Failures
from bts_collectors.rabbitmq.metrics import backlog, overview, queues
from bts_collectors.rabbitmq.metrics.amqp import EXISTS
from bts_collectors.rabbitmq.metrics.emit import emit_fields
from bts_collectors.rabbitmq.metrics.lag import Lags
from bts_exporter import Scrape, Secret, TargetError, TLSConfig, Url

#: The part of the time left after which a broker that does not answer is reported.
TIME_SHARE = 0.95
#: Seconds that opening a connection may take.
CONNECT_TIMEOUT = 5.0
#: Seconds between two looks for heartbeats.
POLL_SECONDS = 1.0
#: Seconds that `close` waits for the thread.
STOP_TIMEOUT = 1.0

#: AMQP's codes are HTTP's: there is no such queue; it belongs to another connection.
_NOT_FOUND = HTTPStatus.NOT_FOUND
_NOT_ALLOWED = HTTPStatus.METHOD_NOT_ALLOWED


class DeclareRequest:
    """One round of declarations: what is known so far, and whether it is over."""

    def __init__(self) -> None:
        #: Queues that are there, and those that are not as None.
        self.found: dict[str, Queue | None] = {}
        #: Whether the broker answered anything.
        self.answered = False
        self.failures = Failures()
        self.over = Event()


class AmqpSource:
    """Queues by passive declarations; a thread of its own owns the connection."""

    def __init__(
        self,
        url: Url,
        password: Secret | None,
        tls: TLSConfig,
        names: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        """Ask for the queues `names` of the address's virtual host; `clock` gives Unix time."""
        self._vhost = vhost_of(url)
        self._names = names
        self._clock = clock
        self._lags = Lags()
        self._connection = AmqpConnection(url, password, tls, CONNECT_TIMEOUT)
        self._channel: Any = None
        self._request = DeclareRequest()
        self._request.over.set()
        self._requests: SimpleQueue[DeclareRequest | None] = SimpleQueue()
        self._thread: Thread | None = None

    def collect(self, scrape: Scrape) -> None:
        """Emit what the broker said in time; TargetError for what it did not."""
        deadline = monotonic() + TIME_SHARE * scrape.remaining()
        self._begin()
        request = DeclareRequest()
        if self._wait(deadline):  # or the round of the scrape before is not over yet
            request = self._request = DeclareRequest()
            self._requests.put(request)
        over = self._wait(deadline)
        self._emit(scrape, request)
        if not over:
            raise no_reply(self._connection.place)
        request.failures.raise_all()

    def close(self) -> None:
        """End the thread, which closes the connection; one that hangs is left to its heartbeats."""
        self._requests.put(None)
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT)

    def _begin(self) -> None:
        # One that ended with an error of ours has said so in the log.
        if self._thread is None or not self._thread.is_alive():
            self._thread = Thread(target=self._run, name="rabbitmq-amqp", daemon=True)
            self._thread.start()

    def _wait(self, deadline: float) -> bool:
        return self._request.over.wait(max(deadline - monotonic(), 0))

    def _emit(self, scrape: Scrape, request: DeclareRequest) -> None:
        found = request.found.copy()
        scrape.emit(overview.UP, request.answered)
        for name, queue in found.items():
            scrape.emit(EXISTS, queue is not None, self._vhost, name)
        there = [queue for queue in found.values() if queue is not None]
        lags = self._lags.observe(there, self._clock())
        backlog.emit_backlogs(scrape, there, lags)
        backlog.emit_flows(scrape, there, lags)
        for queue in there:
            emit_fields(scrape, queues.GAUGES, queue, queue.vhost, queue.name)

    # What follows runs in the thread that owns the connection.

    def _run(self) -> None:
        while True:
            try:
                request = self._requests.get(timeout=POLL_SECONDS)
            except Empty:
                self._connection.process_heartbeats()
                continue
            if request is None:
                self._connection.close()
                return
            try:
                self._process(request)
            finally:
                request.over.set()

    def _process(self, request: DeclareRequest) -> None:
        for name in self._names:
            try:
                with self._connection.use() as connection:
                    if self._channel is None or not self._channel.is_open:
                        self._channel = connection.channel()
                    request.found[name] = declare(self._channel, self._vhost, name)
            except TargetError as error:
                request.failures.add(error)
            request.answered = self._connection.is_open
            if not request.answered:
                return


def declare(channel: Any, vhost: str, name: str) -> Queue | None:
    """Return what a passive declaration tells of a queue, None where there is no such queue.

    The broker closes the channel for an answer that is no depth.
    """
    try:
        told = channel.queue_declare(name, passive=True).method
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code == _NOT_FOUND:
            return None
        if error.reply_code == _NOT_ALLOWED:
            return Queue(name=name, vhost=vhost)
        raise
    return Queue(
        name=name,
        vhost=vhost,
        messages_ready=told.message_count,
        consumers=told.consumer_count,
    )
