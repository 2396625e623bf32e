"""The queues in the vocabulary of backlog and lag that all brokers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bts_collectors.rabbitmq.lag import Lag, consumed
from bts_collectors.rabbitmq.samples import emit_known
from bts_collectors.rabbitmq.shapes import STREAM, Key, MessageStats, Queue
from bts_exporter import Scrape, backlog

SYSTEM = "rabbitmq"
#: A queue's consumers compete for its messages: there are no groups among them.
GROUP = ""
DEFAULT_VHOST = "/"

METRICS = backlog.VOCABULARY


def emit_backlogs(scrape: Scrape, queues: Sequence[Queue], lags: Mapping[Key, Lag]) -> None:
    """Emit how many messages of each queue wait, then for how long, then how that is known."""
    labels = {
        (queue.vhost, queue.name): (SYSTEM, destination(queue.vhost, queue.name), GROUP)
        for queue in queues
    }
    for queue in queues:
        # Of a stream, the API knows the length of the log and not how far anybody has read it.
        if queue.type != STREAM:
            ready = queue.messages_ready
            emit_known(scrape, backlog.BACKLOG, ready, *labels[queue.vhost, queue.name])
    ages = [
        (labels[key], lag.age)
        for key in labels
        if (lag := lags.get(key)) is not None and lag.age is not None
    ]
    for of, age in ages:
        scrape.emit(backlog.LAG_SECONDS, age.seconds, *of)
    for of, age in ages:
        if age.seconds:
            scrape.emit(backlog.LAG_METHOD, 1, *of, age.method)


def emit_flows(scrape: Scrape, queues: Iterable[Queue], lags: Mapping[Key, Lag]) -> None:
    """Emit what came into each queue and went out of it, and to how many consumers."""
    for queue in queues:
        labels = (SYSTEM, destination(queue.vhost, queue.name), GROUP)
        emit_known(scrape, backlog.CONSUMERS, queue.consumers, *labels)
        if queue.type != STREAM:
            drain = lags.get((queue.vhost, queue.name), Lag()).drain
            emit_known(scrape, backlog.DRAIN_SECONDS, drain, *labels)
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
