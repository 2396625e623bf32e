"""The queues in the vocabulary of backlog and lag that all brokers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bts_collectors.rabbitmq.api.models import NUMBERS, STREAM, Key, MessageStats, Queue, known
from bts_collectors.rabbitmq.metrics.lag import Lag, consumed
from bts_exporter import Metric, Scrape, backlog

SYSTEM = "rabbitmq"
#: A queue's consumers compete for its messages: there are no groups among them.
GROUP = ""
DEFAULT_VHOST = "/"

METRICS = backlog.VOCABULARY
#: Values of one metric by labels.
Samples = dict[tuple[str, ...], float]
#: In this order; the last three not of streams.
FLOWS = (
    backlog.CONSUMERS,
    backlog.PUBLISHED,
    backlog.IN_FLIGHT,
    backlog.DRAIN_SECONDS,
    backlog.CONSUMED,
)


def emit_backlogs(scrape: Scrape, queues: Sequence[Queue], lags: Mapping[Key, Lag]) -> None:
    """Emit how many messages of each queue wait, then for how long, then how that is known."""
    depths: Samples = {}
    ages: Samples = {}
    methods: Samples = {}
    for queue in queues:
        labels = (SYSTEM, destination(queue.vhost, queue.name), GROUP)
        # Of a stream, the API knows the length of the log and not how far anybody has read it.
        if queue.type != STREAM and (ready := known(queue.messages_ready)) is not None:
            depths[labels] = ready
        lag = lags.get((queue.vhost, queue.name))
        if lag is not None and lag.age is not None:
            ages[labels] = lag.age.seconds
            if lag.age.seconds:
                methods[*labels, lag.age.method] = 1
    _emit_all(scrape, {backlog.BACKLOG: depths, backlog.LAG_SECONDS: ages})
    _emit_all(scrape, {backlog.LAG_METHOD: methods})


def emit_flows(scrape: Scrape, queues: Iterable[Queue], lags: Mapping[Key, Lag]) -> None:
    """Emit what came into each queue and went out of it, and to how many consumers."""
    found: dict[Metric, Samples] = {metric: {} for metric in FLOWS}
    for queue in queues:
        labels = (SYSTEM, destination(queue.vhost, queue.name), GROUP)
        stats = queue.message_stats
        values = [queue.consumers, stats.publish if isinstance(stats, MessageStats) else None]
        if queue.type != STREAM:
            lag = lags.get((queue.vhost, queue.name))
            drain = None if lag is None else lag.drain
            values += [queue.messages_unacknowledged, drain, consumed(queue)]
        for metric, value in zip(FLOWS, values, strict=False):
            if isinstance(value, NUMBERS):
                found[metric][labels] = value
    _emit_all(scrape, found)


def _emit_all(scrape: Scrape, found: Mapping[Metric, Samples]) -> None:
    for metric, samples in found.items():
        if samples:
            scrape.emit_all(metric, samples)


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
