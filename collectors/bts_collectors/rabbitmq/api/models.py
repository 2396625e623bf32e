"""The fields of the management API that are used, typed, for RabbitMQ 3.8 to 4.x.

Everything but names may be missing: fields depend on the version, the queue type and the queue's age.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import msgspec

#: A number, or a text instead of it: `NaN`, `unknown`, `disk_free_monitoring_disabled`, empty.
Number = int | float | str | None
#: The types of a known number; isinstance is faster with a tuple than with a union.
NUMBERS = (int, float)
Text = str | None
Flag = bool | str | None
#: Erlang may write an empty object or text as an empty list.
Nothing = list[Any] | None
#: Virtual host and name of a queue.
Key = tuple[str, str]

#: Queue types that the API abbreviates; others are given in full.
CLASSIC, QUORUM, STREAM = SHORT_TYPES = ("classic", "quorum", "stream")


class ApiModel(msgspec.Struct, gc=False):
    """A JSON object of the API; unknown fields are ignored."""


class MessageStats(ApiModel):
    """`message_stats`: cumulative counts; each is missing until its first event."""

    publish: Number = None
    confirm: Number = None
    drop_unroutable: Number = None
    return_unroutable: Number = None
    ack: Number = None
    deliver: Number = None
    deliver_no_ack: Number = None
    deliver_get: Number = None
    get: Number = None
    get_no_ack: Number = None
    get_empty: Number = None
    redeliver: Number = None


class ObjectTotals(ApiModel):
    """`object_totals` of the overview; `consumers` requires the tag monitoring."""

    connections: Number = None
    channels: Number = None
    consumers: Number = None
    queues: Number = None
    exchanges: Number = None


class QueueTotals(ApiModel):
    """`queue_totals` of the overview; empty until the first queue is created."""

    messages: Number = None
    messages_ready: Number = None
    messages_unacknowledged: Number = None


class Overview(ApiModel):
    """/api/overview."""

    rabbitmq_version: Text = None
    erlang_version: Text = None
    product_name: Text = None
    product_version: Text = None
    cluster_name: Text = None
    node: Text = None
    disable_stats: Flag = None
    rates_mode: Text = None
    object_totals: ObjectTotals | Nothing = None
    queue_totals: QueueTotals | Nothing = None
    message_stats: MessageStats | Nothing = None


class Application(ApiModel):
    """An item of a node's `applications`; `rabbit` is RabbitMQ."""

    name: Text = None
    version: Text = None


class ClusterLink(ApiModel):
    """An item of a node's `cluster_links`: an established connection to another node or a command-line tool."""

    name: Text = None


class Node(ApiModel):
    """An item of /api/nodes; a node that is down has few fields besides its name."""

    name: str
    running: Flag = None
    #: From 4.0 on; null before.
    being_drained: Flag = None
    applications: list[Application] | str | None = None
    partitions: list[Any] | str | None = None
    #: Missing if statistics are disabled.
    cluster_links: list[ClusterLink] | str | None = None
    uptime: Number = None
    fd_used: Number = None
    fd_total: Number = None
    sockets_used: Number = None
    sockets_total: Number = None
    mem_used: Number = None
    mem_limit: Number = None
    mem_alarm: Flag = None
    disk_free: Number = None
    disk_free_limit: Number = None
    disk_free_alarm: Flag = None
    proc_used: Number = None
    proc_total: Number = None
    run_queue: Number = None
    gc_num: Number = None
    gc_bytes_reclaimed: Number = None
    context_switches: Number = None
    net_ticktime: Number = None
    io_read_count: Number = None
    io_read_bytes: Number = None
    io_write_count: Number = None
    io_write_bytes: Number = None
    io_sync_count: Number = None
    io_seek_count: Number = None
    io_reopen_count: Number = None
    mnesia_ram_tx_count: Number = None
    mnesia_disk_tx_count: Number = None
    msg_store_read_count: Number = None
    msg_store_write_count: Number = None
    queue_index_read_count: Number = None
    queue_index_write_count: Number = None
    connection_created: Number = None
    connection_closed: Number = None
    channel_created: Number = None
    channel_closed: Number = None
    queue_declared: Number = None
    queue_created: Number = None
    queue_deleted: Number = None


class Arguments(ApiModel):
    """`arguments` of a queue."""

    max_length: Number = msgspec.field(default=None, name="x-max-length")
    max_length_bytes: Number = msgspec.field(default=None, name="x-max-length-bytes")
    overflow: Text = msgspec.field(default=None, name="x-overflow")
    message_ttl: Number = msgspec.field(default=None, name="x-message-ttl")
    max_priority: Number = msgspec.field(default=None, name="x-max-priority")
    #: Of streams: a number and a unit, such as `7D`.
    max_age: Text = msgspec.field(default=None, name="x-max-age")
    #: Empty for the default exchange.
    dead_letter_exchange: Text = msgspec.field(default=None, name="x-dead-letter-exchange")
    consumer_timeout: Number = msgspec.field(default=None, name="x-consumer-timeout")


class Policy(ApiModel):
    """`effective_policy_definition` of a queue: its policy and operator policy together."""

    max_length: Number = msgspec.field(default=None, name="max-length")
    max_length_bytes: Number = msgspec.field(default=None, name="max-length-bytes")
    overflow: Text = None
    message_ttl: Number = msgspec.field(default=None, name="message-ttl")
    max_age: Text = msgspec.field(default=None, name="max-age")
    dead_letter_exchange: Text = msgspec.field(default=None, name="dead-letter-exchange")
    consumer_timeout: Number = msgspec.field(default=None, name="consumer-timeout")


class Totals(ApiModel):
    """An item of /api/queues when only totals are requested."""

    name: str
    vhost: str
    type: Text = None
    state: Text = None
    #: For replicated queues, some versions have `node`, some `leader`, some neither.
    node: Text = None
    leader: str | msgspec.UnsetType | None = msgspec.UNSET
    policy: Text = None
    durable: Flag = None
    members: list[Any] | str | None = None
    online: list[Any] | str | None = None
    arguments: Arguments | Nothing = None
    messages: Number = None
    messages_ready: Number = None
    messages_unacknowledged: Number = None


class Queue(Totals):
    """An item of /api/queues."""

    effective_policy_definition: Policy | Nothing = None
    message_stats: MessageStats | Nothing = None
    messages_ram: Number = None
    messages_persistent: Number = None
    message_bytes: Number = None
    message_bytes_ready: Number = None
    message_bytes_unacknowledged: Number = None
    memory: Number = None
    consumers: Number = None
    consumer_capacity: Number = None
    consumer_utilisation: Number = None
    head_message_timestamp: Number = None
    idle_since: Text | int = None


class QueueName(ApiModel):
    """`queue` of a consumer."""

    name: str
    vhost: str


class Consumer(ApiModel):
    """An item of /api/consumers."""

    queue: QueueName
    ack_required: Flag = None


class Vhost(ApiModel):
    """An item of /api/vhosts."""

    name: str


#: Fields of a queue that describe its current state.
CURRENT_FIELDS = (
    "messages",
    "messages_ready",
    "messages_unacknowledged",
    "messages_ram",
    "messages_persistent",
    "message_bytes",
    "message_bytes_ready",
    "message_bytes_unacknowledged",
    "memory",
    "consumers",
    "consumer_capacity",
    "consumer_utilisation",
    "head_message_timestamp",
    "idle_since",
)
#: States in which the numbers are current; in others the broker reports zeros or old values.
LIVE = {None, "running", "idle", "flow", "syncing", "live"}
#: Values that mean "no leader"; a missing field means "unknown".
NO_NODE = {None, "", "none", "undefined"}

OVERVIEW = msgspec.json.Decoder(Overview)
NODES = msgspec.json.Decoder(list[Node])
QUEUES = msgspec.json.Decoder(list[Queue])
QUEUE = msgspec.json.Decoder(Queue)
TOTAL = msgspec.json.Decoder(Totals)
VHOSTS = msgspec.json.Decoder(list[Vhost])
CONSUMERS = msgspec.json.Decoder(list[Consumer])


def known(value: object) -> float | None:
    """Return `value` if it is a number or truth value; None for a text or a missing value."""
    return value if isinstance(value, NUMBERS) else None


def node_of(queue: Totals) -> str | None:
    """Return the node of a queue, of a replicated one the leader; None if unknown.

    A queue without a leader is assigned to one of its members, so that it does not disappear.
    """
    for node in (queue.node, queue.leader):
        if isinstance(node, str) and node not in NO_NODE:
            return node
    for nodes in (queue.online, queue.members):
        names = [name for name in nodes if isinstance(name, str)] if isinstance(nodes, list) else ()
        if names:
            return min(names)
    return None


def is_leaderless(queue: Totals) -> bool:
    """Return whether a quorum queue has no leader, so that it cannot be used."""
    members = isinstance(queue.members, list) and bool(queue.members)
    return queue.type == QUORUM and members and queue.leader in NO_NODE


def lacks_majority(queue: Totals) -> bool:
    """Return whether a quorum queue has too few running members to elect a leader."""
    if queue.type != QUORUM:
        return False
    if not isinstance(queue.members, list) or not isinstance(queue.online, list):
        return queue.state == "minority"
    return len(queue.online) <= len(queue.members) // 2


def is_live(queue: Totals) -> bool:
    """Return whether the numbers of a queue are current."""
    led = isinstance(queue.leader, str) and queue.leader not in NO_NODE
    return not is_leaderless(queue) and (queue.state in LIVE or (queue.state == "minority" and led))


def normalize(queue: Queue) -> None:
    """Abbreviate the type, and remove numbers that are not current.

    The broker reports zeros for a stopped virtual host, and old values for a lost node.
    """
    if queue.type is not None:
        kind = queue.type.removeprefix("rabbit_").removesuffix("_queue")
        queue.type = kind if kind in SHORT_TYPES else queue.type
    if not is_live(queue):
        for field in CURRENT_FIELDS:
            setattr(queue, field, None)


def depth(queue: Queue) -> float:
    """Return the number of ready messages, 0 if unknown; used to sort queues."""
    return known(queue.messages_ready) or 0


@cache
def columns(model: type[ApiModel]) -> str:
    """Return the query parameter `columns` that limits the response to the fields of `model`."""
    return "columns=" + ",".join(_paths(model))


def _paths(model: type[ApiModel]) -> Iterator[str]:
    for field in msgspec.structs.fields(model):
        parts = [part for part in (field.type, *get_args(field.type)) if _is_model(part)]
        if parts:
            yield from (f"{field.encode_name}.{path}" for path in _paths(parts[0]))
        else:
            yield field.encode_name


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, ApiModel)
