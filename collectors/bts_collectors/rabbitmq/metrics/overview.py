"""Metrics of the whole cluster, from /api/overview."""

from __future__ import annotations

from collections.abc import Iterable

from bts_collectors.rabbitmq.api.models import (
    MessageStats,
    Node,
    ObjectTotals,
    Overview,
    QueueTotals,
)
from bts_collectors.rabbitmq.metrics.emit import emit_fields, emit_known
from bts_exporter import Scrape, counter, gauge

#: Label `protocol`: the overview does not distinguish protocols.
PROTOCOL = "amqp091"
#: Label `queue_type`: the overview does not distinguish queue types.
QUEUE_TYPE = "any"
#: Label `rabbitmq_endpoint`; RabbitMQ's own exporter has other values of it.
ENDPOINT = "management"

#: Values of `rates_mode` with which messages are counted.
COUNTING_MODES = {"basic", "detailed"}

UP = gauge(
    "rabbitmq_up",
    "Whether the source answers (/api/overview, /metrics, or a connection over AMQP).",
)
IDENTITY = gauge(
    "rabbitmq_identity_info",
    "The node that answers and the cluster it belongs to (/api/overview node, cluster_name).",
    ("rabbitmq_node", "rabbitmq_cluster", "rabbitmq_cluster_permanent_id", "rabbitmq_endpoint"),
)
BUILD = gauge(
    "rabbitmq_build_info",
    "Versions of each running node (/api/nodes applications; /api/overview rabbitmq_version, erlang_version, product_*).",
    ("rabbitmq_version", "erlang_version", "product_name", "product_version", "node"),
)
RATES_MODE = gauge(
    "rabbitmq_management_rates_mode_info",
    "Statistics that the management plugin collects; with the mode none, messages are not counted (/api/overview rates_mode).",
    ("mode",),
)
STATS_DISABLED = gauge(
    "rabbitmq_management_stats_disabled",
    "Whether the statistics of the management plugin are disabled (/api/overview disable_stats).",
)
OBJECTS = {
    "connections": gauge(
        "rabbitmq_connections",
        "Open connections (/api/overview object_totals.connections).",
    ),
    "channels": gauge(
        "rabbitmq_channels",
        "Open channels (/api/overview object_totals.channels).",
    ),
    "consumers": gauge(
        "rabbitmq_consumers",
        "Attached consumers (/api/overview object_totals.consumers).",
    ),
    "queues": gauge(
        "rabbitmq_queues",
        "Queues (/api/overview object_totals.queues).",
    ),
    "exchanges": gauge(
        "rabbitmq_exchanges",
        "Exchanges (/api/overview object_totals.exchanges).",
    ),
}
#: Names that public rules use. RabbitMQ's own counters of these names fall when a channel is closed.
UNROUTABLE = {
    "drop_unroutable": counter(
        "rabbitmq_channel_messages_unroutable_dropped_total",
        "Same as rabbitmq_global_messages_unroutable_dropped_total (/api/overview message_stats.drop_unroutable).",
    ),
    "return_unroutable": counter(
        "rabbitmq_channel_messages_unroutable_returned_total",
        "Same as rabbitmq_global_messages_unroutable_returned_total (/api/overview message_stats.return_unroutable).",
    ),
}
#: Names of dashboards for RabbitMQ before 3.10, by the field of the overview; as above.
CHANNEL = {
    field: counter(
        f"rabbitmq_channel_{name}_total",
        f"Same as {same} (/api/overview message_stats.{field}).",
    )
    for field, name, same in (
        ("publish", "messages_published", "rabbitmq_global_messages_received_total"),
        ("confirm", "messages_confirmed", "rabbitmq_global_messages_confirmed_total"),
        (
            "deliver",
            "messages_delivered_ack",
            "rabbitmq_global_messages_delivered_consume_manual_ack_total",
        ),
        (
            "deliver_no_ack",
            "messages_delivered",
            "rabbitmq_global_messages_delivered_consume_auto_ack_total",
        ),
        ("get", "get_ack", "rabbitmq_global_messages_delivered_get_manual_ack_total"),
        ("get_no_ack", "get", "rabbitmq_global_messages_delivered_get_auto_ack_total"),
        ("get_empty", "get_empty", "rabbitmq_global_messages_get_empty_total"),
        ("redeliver", "messages_redelivered", "rabbitmq_global_messages_redelivered_total"),
        ("ack", "messages_acked", "rabbitmq_global_messages_acknowledged_total"),
    )
}
CHANNEL_CONSUMERS = gauge(
    "rabbitmq_channel_consumers",
    "Same as rabbitmq_consumers (/api/overview object_totals.consumers).",
)
CHANNEL_UNACKED = gauge(
    "rabbitmq_channel_messages_unacked",
    "Messages delivered but not yet acknowledged, of all queues (/api/overview queue_totals.messages_unacknowledged).",
)
CONSUMERS = gauge(
    "rabbitmq_global_consumers",
    "Attached consumers (/api/overview object_totals.consumers).",
    ("protocol",),
)
IN = {
    "publish": counter(
        "rabbitmq_global_messages_received_total",
        "Messages received from publishers (/api/overview message_stats.publish).",
        ("protocol",),
    ),
    "confirm": counter(
        "rabbitmq_global_messages_confirmed_total",
        "Messages confirmed to publishers (/api/overview message_stats.confirm).",
        ("protocol",),
    ),
    "drop_unroutable": counter(
        "rabbitmq_global_messages_unroutable_dropped_total",
        "Messages dropped because they could not be routed (/api/overview message_stats.drop_unroutable).",
        ("protocol",),
    ),
    "return_unroutable": counter(
        "rabbitmq_global_messages_unroutable_returned_total",
        "Messages returned because they could not be routed (/api/overview message_stats.return_unroutable).",
        ("protocol",),
    ),
}
OUT = {
    "deliver_get": counter(
        "rabbitmq_global_messages_delivered_total",
        "Messages delivered to consumers or fetched (/api/overview message_stats.deliver_get).",
        ("protocol", "queue_type"),
    ),
    "deliver": counter(
        "rabbitmq_global_messages_delivered_consume_manual_ack_total",
        "Messages delivered to consumers with manual acknowledgement (/api/overview message_stats.deliver).",
        ("protocol", "queue_type"),
    ),
    "deliver_no_ack": counter(
        "rabbitmq_global_messages_delivered_consume_auto_ack_total",
        "Messages delivered to consumers with automatic acknowledgement (/api/overview message_stats.deliver_no_ack).",
        ("protocol", "queue_type"),
    ),
    "get": counter(
        "rabbitmq_global_messages_delivered_get_manual_ack_total",
        "Messages fetched with manual acknowledgement (/api/overview message_stats.get).",
        ("protocol", "queue_type"),
    ),
    "get_no_ack": counter(
        "rabbitmq_global_messages_delivered_get_auto_ack_total",
        "Messages fetched with automatic acknowledgement (/api/overview message_stats.get_no_ack).",
        ("protocol", "queue_type"),
    ),
    "get_empty": counter(
        "rabbitmq_global_messages_get_empty_total",
        "Fetches from an empty queue (/api/overview message_stats.get_empty).",
        ("protocol", "queue_type"),
    ),
    "redeliver": counter(
        "rabbitmq_global_messages_redelivered_total",
        "Messages redelivered (/api/overview message_stats.redeliver).",
        ("protocol", "queue_type"),
    ),
    "ack": counter(
        "rabbitmq_global_messages_acknowledged_total",
        "Messages acknowledged by consumers (/api/overview message_stats.ack).",
        ("protocol", "queue_type"),
    ),
}
METRICS = (
    UP,
    IDENTITY,
    BUILD,
    STATS_DISABLED,
    RATES_MODE,
    OBJECTS,
    UNROUTABLE,
    CHANNEL,
    CHANNEL_CONSUMERS,
    CHANNEL_UNACKED,
    CONSUMERS,
    IN,
    OUT,
)


def emit_overview(scrape: Scrape, overview: Overview, *, cluster: bool = True) -> None:
    """Emit the metrics of the overview; without `cluster` only those of the node that answers."""
    emit_identity(scrape, overview, ENDPOINT)
    emit_known(scrape, STATS_DISABLED, overview.disable_stats)
    if overview.rates_mode:
        scrape.emit(RATES_MODE, 1, overview.rates_mode)
    if not cluster:
        return
    totals, stats = overview.object_totals, overview.message_stats
    if isinstance(totals, ObjectTotals):
        emit_fields(scrape, OBJECTS, totals)
        emit_known(scrape, CONSUMERS, totals.consumers, PROTOCOL)
        emit_known(scrape, CHANNEL_CONSUMERS, totals.consumers)
    if isinstance(overview.queue_totals, QueueTotals):
        emit_known(scrape, CHANNEL_UNACKED, overview.queue_totals.messages_unacknowledged)
    if stats is not None and counts_messages(overview):
        # RabbitMQ leaves out a count before its first event. Rules would miss an event that creates the counter.
        stats = with_zeros(stats)
    if isinstance(stats, MessageStats):
        emit_fields(scrape, UNROUTABLE, stats)
        emit_fields(scrape, CHANNEL, stats)
        emit_fields(scrape, IN, stats, PROTOCOL)
        emit_fields(scrape, OUT, stats, PROTOCOL, QUEUE_TYPE)


def counts_messages(overview: Overview) -> bool:
    """Return whether the management plugin certainly counts messages."""
    return overview.disable_stats is False and overview.rates_mode in COUNTING_MODES


def with_zeros(stats: object) -> MessageStats:
    """Return the counts of messages with 0 for those that are missing."""
    found = stats if isinstance(stats, MessageStats) else MessageStats()
    counts = {field: getattr(found, field) for field in MessageStats.__struct_fields__}
    return MessageStats(**{field: 0 if count is None else count for field, count in counts.items()})


def emit_identity(
    scrape: Scrape, overview: Overview, endpoint: str, permanent_id: str = ""
) -> None:
    """Emit the identity of the node that answers, once for a target: dashboards join series with it."""
    # Users without the tag `monitoring` do not see the node.
    node, cluster = overview.node or "", overview.cluster_name or ""
    scrape.emit(IDENTITY, 1, node, cluster, permanent_id, endpoint)


def emit_builds(scrape: Scrape, overview: Overview, nodes: Iterable[Node]) -> None:
    """Emit the versions of the running nodes, or of the one that answers if no nodes are known."""
    emitted = False
    for node in nodes:
        if node.running is True:
            own = overview.node in {None, node.name}
            _emit_build(scrape, overview, node.name, "" if own else version_of(node))
            emitted = True
    if not emitted:
        _emit_build(scrape, overview, overview.node or "", "")


def _emit_build(scrape: Scrape, overview: Overview, node: str, version: str) -> None:
    """Emit the versions of a node: those of the overview, or only `version` for another node."""
    answering = overview.rabbitmq_version or ""
    erlang = "" if version else overview.erlang_version or ""
    product = overview.product_version or ""
    if version and product == answering:
        product = version
    name = overview.product_name or ""
    scrape.emit(BUILD, 1, version or answering, erlang, name, product, node)


def version_of(node: Node) -> str:
    """Return the RabbitMQ version of a node, empty if unknown."""
    for application in node.applications if isinstance(node.applications, list) else ():
        if application.name == "rabbit":
            return application.version or ""
    return ""
