"""The cluster as a whole, from /api/overview."""

from __future__ import annotations

from collections.abc import Iterable

from bts_collectors.rabbitmq.api.models import MessageStats, Node, ObjectTotals, Overview
from bts_collectors.rabbitmq.metrics.emit import emit_fields, emit_known
from bts_exporter import Scrape, counter, gauge

#: The protocol that counts of the overview are given for: it does not tell protocols apart.
PROTOCOL = "amqp091"
#: As above, for the types of queues.
QUEUE_TYPE = "any"
#: Where samples come from, beside the endpoints that RabbitMQ's own exporter names here.
ENDPOINT = "management"

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
    "Versions of each node that runs (/api/nodes applications; /api/overview rabbitmq_version, erlang_version, product_*).",
    ("rabbitmq_version", "erlang_version", "product_name", "product_version", "node"),
)
RATES_MODE = gauge(
    "rabbitmq_management_rates_mode_info",
    "Which statistics the management plug-in collects; with none, no messages are counted (/api/overview rates_mode).",
    ("mode",),
)
STATS_DISABLED = gauge(
    "rabbitmq_management_stats_disabled",
    "Whether the management plug-in collects no statistics (/api/overview disable_stats).",
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
#: Under names that public rules use; those of RabbitMQ's own exporter fall when a channel is closed.
UNROUTABLE = {
    "drop_unroutable": counter(
        "rabbitmq_channel_messages_unroutable_dropped_total",
        "As rabbitmq_global_messages_unroutable_dropped_total (/api/overview message_stats.drop_unroutable).",
    ),
    "return_unroutable": counter(
        "rabbitmq_channel_messages_unroutable_returned_total",
        "As rabbitmq_global_messages_unroutable_returned_total (/api/overview message_stats.return_unroutable).",
    ),
}
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
        "Messages dropped since no queue takes them (/api/overview message_stats.drop_unroutable).",
        ("protocol",),
    ),
    "return_unroutable": counter(
        "rabbitmq_global_messages_unroutable_returned_total",
        "Messages returned since no queue takes them (/api/overview message_stats.return_unroutable).",
        ("protocol",),
    ),
}
OUT = {
    "deliver_get": counter(
        "rabbitmq_global_messages_delivered_total",
        "Messages delivered in any way (/api/overview message_stats.deliver_get).",
        ("protocol", "queue_type"),
    ),
    "deliver": counter(
        "rabbitmq_global_messages_delivered_consume_manual_ack_total",
        "Messages delivered to consumers that acknowledge (/api/overview message_stats.deliver).",
        ("protocol", "queue_type"),
    ),
    "deliver_no_ack": counter(
        "rabbitmq_global_messages_delivered_consume_auto_ack_total",
        "Messages delivered to consumers that acknowledge nothing (/api/overview message_stats.deliver_no_ack).",
        ("protocol", "queue_type"),
    ),
    "get": counter(
        "rabbitmq_global_messages_delivered_get_manual_ack_total",
        "Messages fetched, to be acknowledged (/api/overview message_stats.get).",
        ("protocol", "queue_type"),
    ),
    "get_no_ack": counter(
        "rabbitmq_global_messages_delivered_get_auto_ack_total",
        "Messages fetched, not to be acknowledged (/api/overview message_stats.get_no_ack).",
        ("protocol", "queue_type"),
    ),
    "get_empty": counter(
        "rabbitmq_global_messages_get_empty_total",
        "Fetches that found no message (/api/overview message_stats.get_empty).",
        ("protocol", "queue_type"),
    ),
    "redeliver": counter(
        "rabbitmq_global_messages_redelivered_total",
        "Messages delivered again (/api/overview message_stats.redeliver).",
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
    CONSUMERS,
    IN,
    OUT,
)


def emit_overview(scrape: Scrape, overview: Overview, *, cluster: bool = True) -> None:
    """Emit what the overview holds; without `cluster` only what is of the answering node."""
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
    if isinstance(stats, MessageStats):
        emit_fields(scrape, UNROUTABLE, stats)
        emit_fields(scrape, IN, stats, PROTOCOL)
        emit_fields(scrape, OUT, stats, PROTOCOL, QUEUE_TYPE)


def emit_identity(
    scrape: Scrape, overview: Overview, endpoint: str, permanent_id: str = ""
) -> None:
    """Emit who answers, once for a target: dashboards join every series with it."""
    # The node is missing for users without the tag `monitoring`.
    node, cluster = overview.node or "", overview.cluster_name or ""
    scrape.emit(IDENTITY, 1, node, cluster, permanent_id, endpoint)


def emit_builds(scrape: Scrape, overview: Overview, nodes: Iterable[Node]) -> None:
    """Emit the versions of the nodes that run, or of the one that answers if no others are known."""
    emitted = False
    for node in nodes:
        if node.running is True:
            own = overview.node in {None, node.name}
            _emit_build(scrape, overview, node.name, "" if own else version_of(node))
            emitted = True
    if not emitted:
        _emit_build(scrape, overview, overview.node or "", "")


def _emit_build(scrape: Scrape, overview: Overview, node: str, version: str) -> None:
    """Emit the versions of a node: the overview's, or of another node no more than `version`."""
    answering = overview.rabbitmq_version or ""
    erlang = "" if version else overview.erlang_version or ""
    product = overview.product_version or ""
    if version and product == answering:
        product = version
    name = overview.product_name or ""
    scrape.emit(BUILD, 1, version or answering, erlang, name, product, node)


def version_of(node: Node) -> str:
    """Return the version of RabbitMQ that a node runs, empty if it does not say."""
    for application in node.applications if isinstance(node.applications, list) else ():
        if application.name == "rabbit":
            return application.version or ""
    return ""
