"""The metrics of backlog and lag that all brokers share (messaging_*)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bts_collectors.rabbitmq.api.models import NUMBERS, STREAM, Key, MessageStats, Queue, known
from bts_collectors.rabbitmq.metrics.lag import Lag, consumed
from bts_exporter import Metric, Scrape, backlog

SYSTEM = "rabbitmq"
#: Consumers of a queue compete for its messages: there are no consumer groups.
GROUP = ""
DEFAULT_VHOST = "/"

METRICS = backlog.VOCABULARY
#: Values of one metric by label values.
Samples = dict[tuple[str, ...], float]
#: In the order of `emit_flows`; the last three are not emitted for streams.
FLOWS = (
    backlog.CONSUMERS,
    backlog.PUBLISHED,
    backlog.IN_FLIGHT,
    backlog.DRAIN_SECONDS,
    backlog.CONSUMED,
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


def emit_flows(scrape: Scrape, queues: Iterable[Queue], lags: Mapping[Key, Lag]) -> None:
    """Emit the metrics of FLOWS for each queue."""
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


def destination(vhost: str, name: str) -> str:
    """Return the label `destination` of a queue, unique in a broker.

    `orders` in the default virtual host, `/prod/orders` in others.
    """
    if vhost == DEFAULT_VHOST and not name.startswith("/"):
        return name
    return f"/{vhost.replace('%', '%25').replace('/', '%2F')}/{name}"
