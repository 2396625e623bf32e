"""The metrics of backlog and lag that all brokers share (messaging_*)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from bts_collectors.rabbitmq.api.models import NUMBERS, STREAM, Key, MessageStats, Queue, known
from bts_collectors.rabbitmq.metrics.lag import Lag, consumed
from bts_exporter import Metric, Scrape, backlog

SYSTEM = "rabbitmq"
#: Consumers of a queue compete for its messages: there are no consumer groups.
GROUP = ""
DEFAULT_VHOST = "/"

#: RabbitMQ does not count what it drops by queue.
METRICS = tuple(metric for metric in backlog.VOCABULARY if metric is not backlog.LOST)
#: Values of one metric by label values.
Samples = dict[tuple[str, ...], float]
#: In the order of `emit_flows`; the last four are not emitted for streams.
FLOWS = (
    backlog.CONSUMERS,
    backlog.PUBLISHED,
    backlog.IN_FLIGHT,
    backlog.DRAIN_SECONDS,
    backlog.CONSUMED,
    backlog.IN_FLIGHT_OLDEST,
)


def emit_backlogs(scrape: Scrape, queues: Sequence[Queue], lags: Mapping[Key, Lag]) -> None:
    """Emit backlog, lag in seconds and the method of the lag, in this order."""
    depths: Samples = {}
    ages: Samples = {}
    methods: Samples = {}
    for queue in queues:
        labels = (SYSTEM, destination(queue.vhost, queue.name), GROUP)
        # For a stream, the API reports the length of the log, not the position of its readers.
        if queue.type != STREAM and (ready := known(queue.messages_ready)) is not None:
            depths[labels] = ready
        lag = lags.get((queue.vhost, queue.name))
        if lag is not None and lag.age is not None:
            ages[labels] = lag.age.seconds
            if lag.age.seconds:
                methods[*labels, lag.age.method] = 1
    _emit_all(scrape, {backlog.BACKLOG: depths, backlog.LAG_SECONDS: ages})
    _emit_all(scrape, {backlog.LAG_METHOD: methods})


def emit_flows(
    scrape: Scrape,
    queues: Iterable[Queue],
    lags: Mapping[Key, Lag],
    auto_ack: Mapping[Key, int] = MappingProxyType({}),
) -> None:
    """Emit the metrics of FLOWS for each queue.

    `auto_ack` counts the consumers with automatic acknowledgement, as far as they are known: for a queue
    that has no others, messages in flight are not counted, and 0 would mean nothing.
    """
    found: dict[Metric, Samples] = {metric: {} for metric in FLOWS}
    for queue in queues:
        labels = (SYSTEM, destination(queue.vhost, queue.name), GROUP)
        stats = queue.message_stats
        values = [queue.consumers, stats.publish if isinstance(stats, MessageStats) else None]
        if queue.type != STREAM:
            key = (queue.vhost, queue.name)
            lag = lags.get(key)
            drain, held = (None, None) if lag is None else (lag.drain, lag.in_flight)
            oldest = None if held is None else held.seconds
            if oldest == 0 and auto_ack and queue.consumers:
                oldest = None if auto_ack.get(key) == queue.consumers else oldest
            values += [queue.messages_unacknowledged, drain, consumed(queue), oldest]
        for metric, value in zip(FLOWS, values, strict=False):
            if isinstance(value, NUMBERS):
                found[metric][labels] = value
    _emit_all(scrape, found)


def _emit_all(scrape: Scrape, found: Mapping[Metric, Samples]) -> None:
    for metric, samples in found.items():
        if samples:
            scrape.emit_all(metric, samples)


def destination(vhost: str, name: str) -> str:
    """Return the label `destination` of a queue, unique in a broker.

    `orders` in the default virtual host, `/prod/orders` in others.
    """
    if vhost == DEFAULT_VHOST and not name.startswith("/"):
        return name
    return f"/{vhost.replace('%', '%25').replace('/', '%2F')}/{name}"
