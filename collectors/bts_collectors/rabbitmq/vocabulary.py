"""The queues in the vocabulary of backlog and lag that all brokers share."""

from __future__ import annotations

from collections.abc import Iterable

from bts_collectors.rabbitmq.queues import CLASSIC, STREAM, head_timestamp
from bts_collectors.rabbitmq.samples import emit_known
from bts_collectors.rabbitmq.shapes import MessageStats, Queue, known
from bts_exporter import Scrape, backlog

SYSTEM = "rabbitmq"
#: A queue's consumers compete for its messages: there are no groups among them.
GROUP = ""
DEFAULT_VHOST = "/"

METRICS = (
    backlog.BACKLOG,
    backlog.IN_FLIGHT,
    backlog.CONSUMERS,
    backlog.PUBLISHED,
    backlog.CONSUMED,
    backlog.LAG_SECONDS,
    backlog.LAG_METHOD,
)


def emit_vocabulary(scrape: Scrape, queues: Iterable[Queue], now: float) -> None:
    """Emit depth, flow and lag of each queue; `now` is Unix time."""
    for queue in queues:
        labels = (SYSTEM, destination(queue), GROUP)
        emit_known(scrape, backlog.CONSUMERS, queue.consumers, *labels)
        stats = queue.message_stats
        if isinstance(stats, MessageStats):
            emit_known(scrape, backlog.PUBLISHED, stats.publish, *labels)
        # Of a stream, the API knows the length of the log and not how far anybody has read it.
        if queue.type != STREAM:
            emit_known(scrape, backlog.BACKLOG, queue.messages_ready, *labels)
            emit_known(scrape, backlog.IN_FLIGHT, queue.messages_unacknowledged, *labels)
            emit_known(scrape, backlog.CONSUMED, consumed(queue), *labels)
            _emit_lag(scrape, queue, now, labels)


def destination(queue: Queue) -> str:
    """Return the queue's name, with the virtual host in front where it is not the default one.

    `orders` and `/prod/orders`; no two queues of a broker have the same.
    """
    if queue.vhost == DEFAULT_VHOST and not queue.name.startswith("/"):
        return queue.name
    vhost = queue.vhost.replace("%", "%25").replace("/", "%2F")
    return f"/{vhost}/{queue.name}"


def consumed(queue: Queue) -> float | None:
    """Return how many messages were taken out of the queue for good."""
    stats = queue.message_stats
    if not isinstance(stats, MessageStats):
        return None
    counts = [known(count) for count in (stats.ack, stats.deliver_no_ack, stats.get_no_ack)]
    there = [count for count in counts if count is not None]
    return sum(there) if there else None


def _emit_lag(scrape: Scrape, queue: Queue, now: float, labels: tuple[str, str, str]) -> None:
    ready = known(queue.messages_ready)
    published = head_timestamp(queue) if queue.type == CLASSIC else None
    if ready == 0:
        scrape.emit(backlog.LAG_SECONDS, 0, *labels)
    elif ready is not None and published is not None:
        scrape.emit(backlog.LAG_SECONDS, max(now - published, 0), *labels)
        scrape.emit(backlog.LAG_METHOD, 1, *labels, "message_time")
