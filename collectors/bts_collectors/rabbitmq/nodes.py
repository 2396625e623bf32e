"""The nodes of the cluster, one by one, from /api/nodes."""

from __future__ import annotations

from collections.abc import Sequence

from bts_collectors.rabbitmq.samples import emit_fields
from bts_collectors.rabbitmq.shapes import Node, known
from bts_exporter import Scrape, counter, gauge

#: Never `rabbitmq_node`: that label is the identity's, and panels that join both would fail.
LABELS = ("node",)

MILLISECONDS = 1000

FIELDS = {
    "running": gauge(
        "rabbitmq_node_running",
        "Whether the node runs (/api/nodes running).",
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
    "mem_alarm": gauge(
        "rabbitmq_alarms_memory_used_watermark",
        "Whether publishers are blocked for want of memory (/api/nodes mem_alarm).",
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
    "disk_free_alarm": gauge(
        "rabbitmq_alarms_free_disk_space_watermark",
        "Whether publishers are blocked for want of disk space (/api/nodes disk_free_alarm).",
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
        "Erlang processes that wait for a scheduler (/api/nodes run_queue).",
        LABELS,
    ),
    "gc_num": counter(
        "rabbitmq_erlang_gc_runs_total",
        "Garbage collections (/api/nodes gc_num).",
        LABELS,
    ),
    "gc_bytes_reclaimed": counter(
        "rabbitmq_erlang_gc_reclaimed_bytes_total",
        "Memory that garbage collections freed (/api/nodes gc_bytes_reclaimed).",
        LABELS,
    ),
    "context_switches": counter(
        "rabbitmq_erlang_scheduler_context_switches_total",
        "Context switches of the schedulers (/api/nodes context_switches).",
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
UPTIME = gauge(
    "rabbitmq_erlang_uptime_seconds",
    "Time since the node was started (/api/nodes uptime, there in milliseconds).",
    LABELS,
)
PARTITIONS = gauge(
    "rabbitmq_node_partitions",
    "Nodes that this node sees itself cut off from (/api/nodes partitions).",
    LABELS,
)
METRICS = (FIELDS, UPTIME, PARTITIONS)


def emit_nodes(scrape: Scrape, nodes: Sequence[Node]) -> None:
    """Emit what is known of each node."""
    for node in nodes:
        emit_fields(scrape, FIELDS, node, node.name)
        uptime = known(node.uptime)
        if uptime is not None:
            scrape.emit(UPTIME, uptime / MILLISECONDS, node.name)
        if isinstance(node.partitions, list):
            scrape.emit(PARTITIONS, len(node.partitions), node.name)
