"""Metric names of kbudde/rabbitmq_exporter instead of RabbitMQ's own, for existing dashboards.

Both cannot be served together: `rabbitmq_queue_messages_delivered_total` counts messages with manual
acknowledgement there, and those with automatic acknowledgement here.
"""

from __future__ import annotations

from collections.abc import Sequence

from bts_collectors.rabbitmq.api.models import (
    MessageStats,
    Node,
    ObjectTotals,
    Queue,
    QueueTotals,
    node_of,
)
from bts_collectors.rabbitmq.management.source import ManagementSource
from bts_collectors.rabbitmq.metrics.emit import emit_fields, emit_known
from bts_collectors.rabbitmq.metrics.exchanges import Exchange, ExchangeStats
from bts_collectors.rabbitmq.metrics.health import Alarms
from bts_collectors.rabbitmq.metrics.queues import head_timestamp, idle_since, max_length
from bts_exporter import Metric, Scrape, counter, gauge

_CLUSTER = ("cluster",)
_NODE = ("cluster", "node", "self")
_QUEUE = ("cluster", "vhost", "queue", "durable", "policy", "self")
_EXCHANGE = ("cluster", "vhost", "exchange")


def _gauges(labels: tuple[str, ...], source: str, names: dict[str, str]) -> dict[str, Metric]:
    return {
        field: gauge(f"rabbitmq_{name}", f"Same as in rabbitmq_exporter ({source}{field}).", labels)
        for field, name in names.items()
    }


def _counters(labels: tuple[str, ...], source: str, names: dict[str, str]) -> dict[str, Metric]:
    return {
        field: counter(
            f"rabbitmq_{name}", f"Same as in rabbitmq_exporter ({source}{field}).", labels
        )
        for field, name in names.items()
    }


UP = gauge(
    "rabbitmq_up", "Whether the management API answers (/api/overview).", ("cluster", "node")
)
VERSION = gauge(
    "rabbitmq_version_info",
    "Same as in rabbitmq_exporter (/api/overview rabbitmq_version, erlang_version).",
    ("rabbitmq", "erlang", "node", "cluster"),
)
OBJECTS = _gauges(
    _CLUSTER,
    "/api/overview object_totals.",
    {
        "channels": "channels",
        "connections": "connections",
        "consumers": "consumers",
        "queues": "queues",
        "exchanges": "exchanges",
    },
)
TOTALS = _gauges(
    _CLUSTER,
    "/api/overview queue_totals.",
    {
        "messages": "queue_messages_global",
        "messages_ready": "queue_messages_ready_global",
        "messages_unacknowledged": "queue_messages_unacknowledged_global",
    },
)
NODES = _gauges(
    _NODE,
    "/api/nodes ",
    {
        "uptime": "uptime",
        "running": "running",
        "mem_used": "node_mem_used",
        "mem_limit": "node_mem_limit",
        "mem_alarm": "node_mem_alarm",
        "disk_free": "node_disk_free",
        "disk_free_alarm": "node_disk_free_alarm",
        "disk_free_limit": "node_disk_free_limit",
        "fd_used": "fd_used",
        "fd_total": "fd_available",
        "sockets_used": "sockets_used",
        "sockets_total": "sockets_available",
    },
)
PARTITIONS = gauge(
    "rabbitmq_partitions", "Same as in rabbitmq_exporter (/api/nodes partitions).", _NODE
)
QUEUES = _gauges(
    _QUEUE,
    "/api/queues ",
    {
        "messages": "queue_messages",
        "messages_ready": "queue_messages_ready",
        "messages_unacknowledged": "queue_messages_unacknowledged",
        "messages_ram": "queue_messages_ram",
        "messages_persistent": "queue_messages_persistent",
        "message_bytes": "queue_message_bytes",
        "message_bytes_ready": "queue_message_bytes_ready",
        "message_bytes_unacknowledged": "queue_message_bytes_unacknowledged",
        "memory": "queue_memory",
        "consumers": "queue_consumers",
        "consumer_utilisation": "queue_consumer_utilisation",
    },
)
FLOWS = _counters(
    _QUEUE,
    "/api/queues message_stats.",
    {
        "publish": "queue_messages_published_total",
        "confirm": "queue_messages_confirmed_total",
        "deliver": "queue_messages_delivered_total",
        "deliver_no_ack": "queue_messages_delivered_noack_total",
        "get": "queue_messages_get_total",
        "get_no_ack": "queue_messages_get_noack_total",
        "redeliver": "queue_messages_redelivered_total",
        "ack": "queue_messages_ack_total",
    },
)
HEAD_TIMESTAMP = gauge(
    "rabbitmq_queue_head_message_timestamp",
    "Same as in rabbitmq_exporter (/api/queues head_message_timestamp).",
    _QUEUE,
)
IDLE_SINCE = gauge(
    "rabbitmq_queue_idle_since_seconds",
    "Same as in rabbitmq_exporter (/api/queues idle_since).",
    _QUEUE,
)
MAX_LENGTH = gauge(
    "rabbitmq_queue_max_length",
    "Same as in rabbitmq_exporter (/api/queues arguments.x-max-length, effective_policy_definition.max-length).",
    _QUEUE,
)
STATE = gauge(
    "rabbitmq_queue_state",
    "1 for idle and running, 0 for any other state (/api/queues state, idle_since).",
    (*_QUEUE, "state"),
)
MEMBERS = _gauges(
    _QUEUE,
    "/api/queues ",
    {"members": "queue_member_nodes_len", "online": "queue_online_nodes_len"},
)
EXCHANGES = _counters(
    _EXCHANGE,
    "/api/exchanges message_stats.",
    {
        "publish_in": "exchange_messages_published_in_total",
        "publish_out": "exchange_messages_published_out_total",
    },
)
METRICS = (
    UP,
    VERSION,
    OBJECTS,
    TOTALS,
    NODES,
    PARTITIONS,
    QUEUES,
    FLOWS,
    HEAD_TIMESTAMP,
    IDLE_SINCE,
    MAX_LENGTH,
    STATE,
    MEMBERS,
    EXCHANGES,
)


class KbuddeSource(ManagementSource):
    """The management API under the other names; a counter is absent, not 0, before its first event."""

    def emit_overview(self, scrape: Scrape, *, up: bool) -> None:
        """Emit whether the API answers, and the metrics of the overview."""
        overview, cluster, node = self.overview, self._cluster, self.overview.node or ""
        scrape.emit(UP, up, cluster, node)
        if not up:
            return
        versions = (overview.rabbitmq_version or "", overview.erlang_version or "")
        scrape.emit(VERSION, 1, *versions, node, cluster)
        if isinstance(overview.object_totals, ObjectTotals):
            emit_fields(scrape, OBJECTS, overview.object_totals, cluster)
        if isinstance(overview.queue_totals, QueueTotals):
            emit_fields(scrape, TOTALS, overview.queue_totals, cluster)

    def emit_nodes(self, scrape: Scrape, found: Sequence[Node], _: Alarms | None) -> None:
        """Emit the metrics of each node."""
        for node in found:
            labels = (self._cluster, node.name, self._self(node.name))
            emit_fields(scrape, NODES, node, *labels)
            if isinstance(node.partitions, list):
                scrape.emit(PARTITIONS, len(node.partitions), *labels)

    def emit_builds(self, scrape: Scrape, found: Sequence[Node]) -> None:
        """Emit nothing: the versions are emitted with the overview."""

    def emit_queue(self, scrape: Scrape, queue: Queue, _: float) -> None:
        """Emit the metrics of a queue."""
        durable = str(queue.durable).lower() if isinstance(queue.durable, bool) else ""
        names = (queue.vhost, queue.name, durable, queue.policy or "")
        labels = (self._cluster, *names, self._self(node_of(queue)))
        emit_fields(scrape, QUEUES, queue, *labels)
        if isinstance(queue.message_stats, MessageStats):
            emit_fields(scrape, FLOWS, queue.message_stats, *labels)
        emit_known(scrape, HEAD_TIMESTAMP, head_timestamp(queue), *labels)
        emit_known(scrape, IDLE_SINCE, idle_since(queue), *labels)
        emit_known(scrape, MAX_LENGTH, max_length(queue), *labels)
        _emit_properties(scrape, queue, labels)

    def emit_detailed(self, scrape: Scrape, found: Sequence[Queue]) -> None:
        """Emit nothing: the other exporter does not have these metrics."""

    def emit_exchanges(self, scrape: Scrape, found: Sequence[Exchange]) -> None:
        """Emit the metrics of each exchange."""
        for exchange in found:
            if isinstance(exchange.message_stats, ExchangeStats):
                labels = (self._cluster, exchange.vhost, exchange.name)
                emit_fields(scrape, EXCHANGES, exchange.message_stats, *labels)

    @property
    def _cluster(self) -> str:
        return self.overview.cluster_name or ""

    def _self(self, node: str | None) -> str:
        return "1" if node and node == self.overview.node else "0"


def _emit_properties(scrape: Scrape, queue: Queue, labels: tuple[str, ...]) -> None:
    state = queue.state
    if state == "running" and idle_since(queue) is not None:
        state = "idle"
    if state:
        scrape.emit(STATE, state in {"idle", "running"}, *labels, state)
    for field, metric in MEMBERS.items():
        names = getattr(queue, field)
        if isinstance(names, list):
            scrape.emit(metric, len(names), *labels)
