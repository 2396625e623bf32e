"""The queues in the vocabulary of backlog and lag that all brokers share."""

from __future__ import annotations

from bts_collectors.rabbitmq.lag import Lag, consumed
from bts_collectors.rabbitmq.samples import emit_known
from bts_collectors.rabbitmq.shapes import STREAM, MessageStats, Queue
from bts_exporter import Scrape, backlog

SYSTEM = "rabbitmq"
#: A queue's consumers compete for its messages: there are no groups among them.
GROUP = ""
DEFAULT_VHOST = "/"

METRICS = backlog.VOCABULARY


def emit_vocabulary(scrape: Scrape, queue: Queue, lag: Lag) -> None:
    """Emit depth, lag and flow of a queue."""
    emit_backlog(scrape, queue, lag)
    emit_flow(scrape, queue, lag)


def emit_backlog(scrape: Scrape, queue: Queue, lag: Lag) -> None:
    """Emit how many messages of a queue wait, and for how long."""
    labels = (SYSTEM, destination(queue.vhost, queue.name), GROUP)
    # Of a stream, the API knows the length of the log and not how far anybody has read it.
    if queue.type != STREAM:
        emit_known(scrape, backlog.BACKLOG, queue.messages_ready, *labels)
    emit_lag(scrape, lag, *labels)


def emit_flow(scrape: Scrape, queue: Queue, lag: Lag) -> None:
    """Emit what came into a queue and went out of it, and to how many consumers."""
    labels = (SYSTEM, destination(queue.vhost, queue.name), GROUP)
    emit_known(scrape, backlog.CONSUMERS, queue.consumers, *labels)
    if queue.type != STREAM:
        emit_known(scrape, backlog.DRAIN_SECONDS, lag.drain, *labels)
        emit_known(scrape, backlog.IN_FLIGHT, queue.messages_unacknowledged, *labels)
        emit_known(scrape, backlog.CONSUMED, consumed(queue), *labels)
    if isinstance(stats := queue.message_stats, MessageStats):
        emit_known(scrape, backlog.PUBLISHED, stats.publish, *labels)


def emit_lag(scrape: Scrape, lag: Lag, *labels: str) -> None:
    """Emit how far behind consumers are, and how that is known."""
    if lag.age is not None:
        scrape.emit(backlog.LAG_SECONDS, lag.age.seconds, *labels)
        if lag.age.seconds:
            scrape.emit(backlog.LAG_METHOD, 1, *labels, lag.age.method)


def destination(vhost: str, name: str) -> str:
    """Return the queue's name, with the virtual host in front where it is not the default one.

    `orders` and `/prod/orders`; no two queues of a broker have the same.
    """
    if vhost == DEFAULT_VHOST and not name.startswith("/"):
        return name
    return f"/{vhost.replace('%', '%25').replace('/', '%2F')}/{name}"
