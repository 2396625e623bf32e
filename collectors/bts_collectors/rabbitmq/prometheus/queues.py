"""The queues of a node from its Prometheus endpoint (/metrics/detailed), as models of the API."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bts_collectors.rabbitmq.api.models import STREAM, MessageStats, Queue
from bts_collectors.rabbitmq.metrics.queues import COUNTERS, GAUGES
from bts_exporter import prometheus_text

#: Families to request; the broker ignores unknown ones. The last three exist since 4.0.
FAMILIES = (
    "queue_coarse_metrics",
    "queue_metrics",
    "queue_delivery_metrics",
    "queue_exchange_metrics",
    "stream_consumer_metrics",
)
DETAILED_PATH = "/metrics/detailed?" + "&".join(f"family={name}" for name in FAMILIES)

Family = prometheus_text.Family

_PREFIX = "rabbitmq_detailed_"
_FIELDS = {
    _PREFIX + metric.name.removeprefix("rabbitmq_"): field for field, metric in GAUGES.items()
} | {_PREFIX + "queue_head_message_timestamp": "head_message_timestamp"}
#: Counters by queue, without published messages: before 4.0 they are counted by channel and fall.
_STATS = {
    _PREFIX + metric.name.removeprefix("rabbitmq_"): field
    for field, metric in COUNTERS.items()
    if field != "publish"
}
#: The counts whose sum the API calls `deliver_get`.
_DELIVERIES = ("deliver", "deliver_no_ack", "get", "get_no_ack")
_STREAM_LAG = _PREFIX + "stream_consumer_max_offset_lag"
_INFO = _PREFIX + "queue_info"
#: Published messages by queue and exchange.
_PUBLISHED = _PREFIX + "queue_exchange_messages_published_total"
Key = tuple[str, str]
#: Values of fields of `Queue` or `MessageStats`, by queue.
Values = dict[Key, dict[str, Any]]


def queues_of(page: Iterable[Family]) -> list[Queue]:
    """Return the queues on a page of /metrics/detailed; fields that it lacks are None."""
    fields: Values = defaultdict(dict)
    stats: Values = defaultdict(dict)
    types: dict[Key, str] = {}
    for family in page:
        if family.name in _FIELDS:
            _take(fields, _FIELDS[family.name], family)
        elif family.name in _STATS:
            _take(stats, _STATS[family.name], family)
        elif family.name == _PUBLISHED:
            _add_published(stats, family)
        elif family.name == _INFO:
            types = {
                (s.labels["vhost"], s.labels["queue"]): s.labels.get("queue_type", "")
                for s in family.samples
            }
    return [_queue(key, found, stats.get(key), types.get(key)) for key, found in fields.items()]


def stream_lags(page: Iterable[Family]) -> Iterator[tuple[str, str, float]]:
    """Yield virtual host, name and lag of the streams that have consumers."""
    for family in page:
        if family.name == _STREAM_LAG:
            for _, labels, value in family.samples:
                if labels.keys() >= {"vhost", "queue"}:
                    yield labels["vhost"], labels["queue"], value


def may_be_stream(queue: Queue) -> bool:
    """Return whether a queue may be a stream: before 4.0 the page does not contain types."""
    return queue.type == STREAM or (queue.type is None and queue.messages_ram is None)


def _take(values: Values, field: str, family: Family) -> None:
    for _, labels, value in family.samples:
        if labels.keys() >= {"vhost", "queue"} and not math.isnan(value):
            values[labels["vhost"], labels["queue"]][field] = value


def _add_published(stats: Values, family: Family) -> None:
    for _, labels, value in family.samples:
        # RabbitMQ 4.0.0 to 4.0.2 have one label `vhost` for both queue and exchange.
        vhost = labels.get("queue_vhost", labels.get("vhost", ""))
        found = stats[vhost, labels.get("queue", "")]
        found["publish"] = found.get("publish", 0) + value


def _queue(
    key: Key, fields: Mapping[str, Any], stats: Mapping[str, Any] | None, kind: str | None
) -> Queue:
    vhost, name = key
    kind = (kind or "").removeprefix("rabbit_").removesuffix("_queue")
    message_stats = None
    if stats:
        delivered = sum(stats.get(field, 0) for field in _DELIVERIES)
        message_stats = MessageStats(**stats, deliver_get=delivered)
    return Queue(name=name, vhost=vhost, type=kind or None, message_stats=message_stats, **fields)
