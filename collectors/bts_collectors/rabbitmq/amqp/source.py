"""AMQP as the source: depth and consumers of named queues, and nothing else.

For brokers without plugins, and users without the tag monitoring.
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

#: Time for opening a connection.
CONNECT_TIMEOUT_SECONDS = 5.0
#: Interval of checks for heartbeats.
POLL_SECONDS = 1.0
#: Time that `close` waits for the thread.
STOP_TIMEOUT = 1.0

#: Reply codes of AMQP: the queue does not exist; the queue is exclusive to another connection.
_NOT_FOUND = HTTPStatus.NOT_FOUND
_NOT_ALLOWED = HTTPStatus.METHOD_NOT_ALLOWED


class DeclareRequest:
    """The declarations of one collection: their results so far, and whether they are complete."""

    def __init__(self) -> None:
        #: Queues by name; None for a queue that does not exist.
        self.queues: dict[str, Queue | None] = {}
        #: Whether the broker answered the latest declaration.
        self.answered = False
        self.failures = Failures()
        self.done = Event()


class AmqpSource:
    """Queues by passive declarations; a separate thread owns the connection."""

    def __init__(
        self,
        url: Url,
        password: Secret | None,
        tls: TLSConfig,
        names: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        """Read the queues `names` in the virtual host of `url`; `clock` returns Unix time."""
        self._vhost = vhost_of(url)
        self._names = names
        self._clock = clock
        self.lags = Lags()
        self._connection = AmqpConnection(url, password, tls, CONNECT_TIMEOUT_SECONDS)
        self._channel: Any = None
        self._request = DeclareRequest()
        self._request.done.set()
        self._requests: SimpleQueue[DeclareRequest | None] = SimpleQueue()
        self._thread: Thread | None = None

    def collect(self, scrape: Scrape) -> None:
        """Emit the results that arrived in time; TargetError for the others."""
        deadline = monotonic() + scrape.remaining()
        self._start_thread()
        request = DeclareRequest()
        # Otherwise the declarations of the previous scrape are still running.
        if self._wait(deadline):
            request = self._request = DeclareRequest()
            self._requests.put(request)
        done = self._wait(deadline)
        self._emit(scrape, request)
        if not done:
            raise no_reply(self._connection.address)
        request.failures.raise_all()

    def close(self) -> None:
        """Stop the thread, which closes the connection; a thread that hangs ends by missing heartbeats."""
        self._requests.put(None)
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT)

    def _start_thread(self) -> None:
        # A thread that ended with an unexpected error has logged it.
        if self._thread is None or not self._thread.is_alive():
            self._thread = Thread(target=self._run, name="rabbitmq-amqp", daemon=True)
            self._thread.start()

    def _wait(self, deadline: float) -> bool:
        return self._request.done.wait(max(deadline - monotonic(), 0))

    def _emit(self, scrape: Scrape, request: DeclareRequest) -> None:
        declared = request.queues.copy()
        scrape.emit(overview.UP, request.answered)
        for name, queue in declared.items():
            scrape.emit(EXISTS, queue is not None, self._vhost, name)
        existing = [queue for queue in declared.values() if queue is not None]
        if self._connection.cluster:
            self.lags.identify(f"cluster {self._connection.cluster} (AMQP)")
        lags = self.lags.observe(existing, self._clock())
        backlog.emit_backlogs(scrape, existing, lags)
        backlog.emit_flows(scrape, existing, lags)
        for queue in existing:
            emit_fields(scrape, queues.GAUGES, queue, queue.vhost, queue.name)

    # The methods below run in the thread that owns the connection.

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
                request.done.set()

    def _process(self, request: DeclareRequest) -> None:
        for name in self._names:
            try:
                with self._connection.use() as connection:
                    if self._channel is None or not self._channel.is_open:
                        self._channel = connection.channel()
                    request.queues[name] = declare(self._channel, self._vhost, name)
            except TargetError as error:
                request.failures.add(error)
            request.answered = self._connection.is_open
            if not request.answered:
                return


def declare(channel: Any, vhost: str, name: str) -> Queue | None:
    """Return the result of a passive declaration; None if the queue does not exist.

    The broker closes the channel if it does not return a depth.
    """
    try:
        reply = channel.queue_declare(name, passive=True).method
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code == _NOT_FOUND:
            return None
        if error.reply_code == _NOT_ALLOWED:
            return Queue(name=name, vhost=vhost)
        raise
    return Queue(
        name=name,
        vhost=vhost,
        messages_ready=reply.message_count,
        consumers=reply.consumer_count,
    )
