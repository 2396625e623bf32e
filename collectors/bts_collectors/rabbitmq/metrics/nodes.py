"""Metrics of single nodes, from /api/nodes, and their alarms, from the source that is most current."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bts_collectors.rabbitmq.api.models import Node, known
from bts_collectors.rabbitmq.metrics.emit import emit_fields
from bts_collectors.rabbitmq.metrics.health import Alarms
from bts_exporter import Scrape, counter, gauge

#: Not `rabbitmq_node`: that label belongs to rabbitmq_identity_info, and joins with it would fail.
LABELS = ("node",)

MILLISECONDS = 1000

FIELDS = {
    "running": gauge(
        "rabbitmq_node_running",
        "Whether the node is running (/api/nodes running).",
        LABELS,
    ),
    "being_drained": gauge(
        "rabbitmq_node_being_drained",
        "Whether the node is in maintenance mode: it has closed its listeners (/api/nodes being_drained).",
        LABELS,
    ),
    "fd_used": gauge(
        "rabbitmq_process_open_fds",
        "Open file descriptors (/api/nodes fd_used).",
        LABELS,
    ),
    "fd_total": gauge(
        "rabbitmq_process_max_fds",
        "Limit of open file descriptors (/api/nodes fd_total).",
        LABELS,
    ),
    "sockets_used": gauge(
        "rabbitmq_process_open_tcp_sockets",
        "Open TCP sockets (/api/nodes sockets_used).",
        LABELS,
    ),
    "sockets_total": gauge(
        "rabbitmq_process_max_tcp_sockets",
        "Limit of open TCP sockets (/api/nodes sockets_total).",
        LABELS,
    ),
    "mem_used": gauge(
        "rabbitmq_process_resident_memory_bytes",
        "Memory in use (/api/nodes mem_used).",
        LABELS,
    ),
    "mem_limit": gauge(
        "rabbitmq_resident_memory_limit_bytes",
        "Memory in use above which publishers are blocked (/api/nodes mem_limit).",
        LABELS,
    ),
    "disk_free": gauge(
        "rabbitmq_disk_space_available_bytes",
        "Free disk space (/api/nodes disk_free).",
        LABELS,
    ),
    "disk_free_limit": gauge(
        "rabbitmq_disk_space_available_limit_bytes",
        "Free disk space below which publishers are blocked (/api/nodes disk_free_limit).",
        LABELS,
    ),
    "proc_used": gauge(
        "rabbitmq_erlang_processes_used",
        "Erlang processes (/api/nodes proc_used).",
        LABELS,
    ),
    "proc_total": gauge(
        "rabbitmq_erlang_processes_limit",
        "Limit of Erlang processes (/api/nodes proc_total).",
        LABELS,
    ),
    "run_queue": gauge(
        "rabbitmq_erlang_scheduler_run_queue",
        "Erlang processes waiting for a scheduler (/api/nodes run_queue).",
        LABELS,
    ),
    "gc_num": counter(
        "rabbitmq_erlang_gc_runs_total",
        "Garbage collections (/api/nodes gc_num).",
        LABELS,
    ),
    "gc_bytes_reclaimed": counter(
        "rabbitmq_erlang_gc_reclaimed_bytes_total",
        "Memory freed by garbage collection (/api/nodes gc_bytes_reclaimed).",
        LABELS,
    ),
    "context_switches": counter(
        "rabbitmq_erlang_scheduler_context_switches_total",
        "Context switches of the schedulers (/api/nodes context_switches).",
        LABELS,
    ),
    "net_ticktime": gauge(
        "rabbitmq_erlang_net_ticktime_seconds",
        "Interval of the heartbeats between nodes (/api/nodes net_ticktime).",
        LABELS,
    ),
    "io_read_count": counter(
        "rabbitmq_io_read_ops_total",
        "Reads from disk (/api/nodes io_read_count).",
        LABELS,
    ),
    "io_read_bytes": counter(
        "rabbitmq_io_read_bytes_total",
        "Bytes read from disk (/api/nodes io_read_bytes).",
        LABELS,
    ),
    "io_write_count": counter(
        "rabbitmq_io_write_ops_total",
        "Writes to disk (/api/nodes io_write_count).",
        LABELS,
    ),
    "io_write_bytes": counter(
        "rabbitmq_io_write_bytes_total",
        "Bytes written to disk (/api/nodes io_write_bytes).",
        LABELS,
    ),
    "io_sync_count": counter(
        "rabbitmq_io_sync_ops_total",
        "Calls of fsync (/api/nodes io_sync_count).",
        LABELS,
    ),
    "io_seek_count": counter(
        "rabbitmq_io_seek_ops_total",
        "Seeks in files (/api/nodes io_seek_count).",
        LABELS,
    ),
    "io_reopen_count": counter(
        "rabbitmq_io_reopen_ops_total",
        "Files reopened (/api/nodes io_reopen_count).",
        LABELS,
    ),
    "mnesia_ram_tx_count": counter(
        "rabbitmq_schema_db_ram_tx_total",
        "Mnesia transactions in memory (/api/nodes mnesia_ram_tx_count).",
        LABELS,
    ),
    "mnesia_disk_tx_count": counter(
        "rabbitmq_schema_db_disk_tx_total",
        "Mnesia transactions on disk (/api/nodes mnesia_disk_tx_count).",
        LABELS,
    ),
    "msg_store_read_count": counter(
        "rabbitmq_msg_store_read_total",
        "Messages read from the message store (/api/nodes msg_store_read_count).",
        LABELS,
    ),
    "msg_store_write_count": counter(
        "rabbitmq_msg_store_write_total",
        "Messages written to the message store (/api/nodes msg_store_write_count).",
        LABELS,
    ),
    "queue_index_read_count": counter(
        "rabbitmq_queue_index_read_ops_total",
        "Reads from queue indexes (/api/nodes queue_index_read_count).",
        LABELS,
    ),
    "queue_index_write_count": counter(
        "rabbitmq_queue_index_write_ops_total",
        "Writes to queue indexes (/api/nodes queue_index_write_count).",
        LABELS,
    ),
    "connection_created": counter(
        "rabbitmq_connections_opened_total",
        "Connections opened (/api/nodes connection_created).",
        LABELS,
    ),
    "connection_closed": counter(
        "rabbitmq_connections_closed_total",
        "Connections closed (/api/nodes connection_closed).",
        LABELS,
    ),
    "channel_created": counter(
        "rabbitmq_channels_opened_total",
        "Channels opened (/api/nodes channel_created).",
        LABELS,
    ),
    "channel_closed": counter(
        "rabbitmq_channels_closed_total",
        "Channels closed (/api/nodes channel_closed).",
        LABELS,
    ),
    "queue_declared": counter(
        "rabbitmq_queues_declared_total",
        "Declarations of queues, new or not (/api/nodes queue_declared).",
        LABELS,
    ),
    "queue_created": counter(
        "rabbitmq_queues_created_total",
        "Queues created (/api/nodes queue_created).",
        LABELS,
    ),
    "queue_deleted": counter(
        "rabbitmq_queues_deleted_total",
        "Queues deleted (/api/nodes queue_deleted).",
        LABELS,
    ),
}
#: By the resource, as alarms name it.
ALARMS = {
    "memory": gauge(
        "rabbitmq_alarms_memory_used_watermark",
        "Whether publishers are blocked because memory is low (/api/health/checks/alarms, else /api/nodes mem_alarm).",
        LABELS,
    ),
    "disk": gauge(
        "rabbitmq_alarms_free_disk_space_watermark",
        "Whether publishers are blocked because disk space is low (/api/health/checks/alarms, else /api/nodes disk_free_alarm).",
        LABELS,
    ),
}
#: Nodes do not report this alarm to each other.
FD_ALARM = gauge(
    "rabbitmq_alarms_file_descriptor_limit",
    "Whether the node that answers has no file descriptors left (/api/health/checks/alarms).",
    LABELS,
)
#: How alarms name the resource of FD_ALARM.
FILE_DESCRIPTORS = "file descriptors"
#: The same from /api/nodes, which is seconds late.
ALARM_FIELDS = {"mem_alarm": ALARMS["memory"], "disk_free_alarm": ALARMS["disk"]}
UPTIME = gauge(
    "rabbitmq_erlang_uptime_seconds",
    "Time since the node was started (/api/nodes uptime, there in milliseconds).",
    LABELS,
)
PARTITIONS = gauge(
    "rabbitmq_node_partitions",
    "Nodes that this node is partitioned from (/api/nodes partitions).",
    LABELS,
)
LINK = gauge(
    "erlang_vm_dist_node_state",
    "Connection to another node of the cluster: 3 is up, 0 is down or that node is not running; 1 and 2 (pending) only with RabbitMQ's own exporter (/api/nodes cluster_links).",
    ("node", "peer", "rabbitmq_cluster"),
)
DOWN, UP = 0, 3
METRICS = (FIELDS, ALARMS, FD_ALARM, UPTIME, PARTITIONS, LINK)


def emit_nodes(
    scrape: Scrape,
    nodes: Sequence[Node],
    alarms: Alarms | None = None,
    answering: str | None = None,
) -> None:
    """Emit the metrics of each node; `alarms` are the active ones, None if unknown.

    `answering` is the node that knows them.
    """
    for node in nodes:
        emit_fields(scrape, FIELDS, node, node.name)
        _emit_alarms(scrape, node, alarms)
        if alarms is not None and node.name == answering:
            scrape.emit(FD_ALARM, (node.name, FILE_DESCRIPTORS) in alarms, node.name)
        uptime = known(node.uptime)
        if uptime is not None:
            scrape.emit(UPTIME, uptime / MILLISECONDS, node.name)
        if isinstance(node.partitions, list):
            scrape.emit(PARTITIONS, len(node.partitions), node.name)


def emit_links(
    scrape: Scrape, nodes: Iterable[Node], members: Iterable[Node], cluster: str
) -> None:
    """Emit the connections of each running node of `nodes` to the other members of the cluster.

    The only node of a cluster is connected to itself: rules find a series, as with more nodes.
    """
    # RabbitMQ continues to list the connection to a node that was killed.
    running = {member.name: member.running is True for member in members}
    for node in nodes:
        if running.get(node.name) and isinstance(node.cluster_links, list):
            linked = {node.name, *(link.name for link in node.cluster_links)}
            for peer in sorted(running.keys() - {node.name}) or [node.name]:
                state = UP if running[peer] and peer in linked else DOWN
                scrape.emit(LINK, state, node.name, peer, cluster)


def _emit_alarms(scrape: Scrape, node: Node, alarms: Alarms | None) -> None:
    if alarms is None:
        emit_fields(scrape, ALARM_FIELDS, node, node.name)
    elif node.running:
        for resource, metric in ALARMS.items():
            scrape.emit(metric, (node.name, resource) in alarms, node.name)
