"""Metrics of single queues, from /api/queues and /api/consumers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from bts_collectors.rabbitmq.api.models import (
    NUMBERS,
    QUORUM,
    SHORT_TYPES,
    STREAM,
    Arguments,
    Key,
    MessageStats,
    Policy,
    Queue,
    is_leaderless,
    known,
    lacks_majority,
    node_of,
)
from bts_collectors.rabbitmq.metrics.emit import emit_fields, emit_known
from bts_exporter import Scrape, counter, gauge

LABELS = ("vhost", "queue")

#: Unix times from this value on are in milliseconds: in seconds, it is the year 5138.
MILLISECONDS_FROM = 100_000_000_000

#: Date, hour, rest of the time, offset from UTC.
_IDLE = re.compile(r"(\d+-\d\d-\d\d)[ T](\d{1,2})(:\d\d:\d\d)(?:\.\d+)?(Z|z|[+-]\d\d:?\d\d)?")

GAUGES = {
    "messages_ready": gauge(
        "rabbitmq_queue_messages_ready",
        "Messages ready for delivery; for a stream, the length of its log (/api/queues messages_ready).",
        LABELS,
    ),
    "messages_unacknowledged": gauge(
        "rabbitmq_queue_messages_unacked",
        "Messages delivered but not yet acknowledged (/api/queues messages_unacknowledged).",
        LABELS,
    ),
    "messages": gauge(
        "rabbitmq_queue_messages",
        "Messages, ready and unacknowledged (/api/queues messages).",
        LABELS,
    ),
    "messages_ram": gauge(
        "rabbitmq_queue_messages_ram",
        "Messages held in memory (/api/queues messages_ram).",
        LABELS,
    ),
    "messages_persistent": gauge(
        "rabbitmq_queue_messages_persistent",
        "Persistent messages (/api/queues messages_persistent).",
        LABELS,
    ),
    "message_bytes": gauge(
        "rabbitmq_queue_messages_bytes",
        "Size of the bodies of all messages (/api/queues message_bytes).",
        LABELS,
    ),
    "message_bytes_ready": gauge(
        "rabbitmq_queue_messages_ready_bytes",
        "Size of the bodies of ready messages (/api/queues message_bytes_ready).",
        LABELS,
    ),
    "message_bytes_unacknowledged": gauge(
        "rabbitmq_queue_messages_unacked_bytes",
        "Size of the bodies of unacknowledged messages (/api/queues message_bytes_unacknowledged).",
        LABELS,
    ),
    "memory": gauge(
        "rabbitmq_queue_process_memory_bytes",
        "Memory of the queue's Erlang process (/api/queues memory).",
        LABELS,
    ),
    "consumers": gauge(
        "rabbitmq_queue_consumers",
        "Consumers attached to the queue (/api/queues consumers).",
        LABELS,
    ),
    "consumer_capacity": gauge(
        "rabbitmq_queue_consumer_capacity",
        "Share of time in which the queue could deliver immediately to consumers (/api/queues consumer_capacity).",
        LABELS,
    ),
    "consumer_utilisation": gauge(
        "rabbitmq_queue_consumer_utilisation",
        "Name of rabbitmq_queue_consumer_capacity before RabbitMQ 3.9 (/api/queues consumer_utilisation).",
        LABELS,
    ),
}
COUNTERS = {
    "publish": counter(
        "rabbitmq_queue_messages_published_total",
        "Messages published into the queue (/api/queues message_stats.publish).",
        LABELS,
    ),
    "deliver": counter(
        "rabbitmq_queue_messages_delivered_ack_total",
        "Messages delivered to consumers with manual acknowledgement (/api/queues message_stats.deliver).",
        LABELS,
    ),
    "deliver_no_ack": counter(
        "rabbitmq_queue_messages_delivered_total",
        "Messages delivered to consumers with automatic acknowledgement (/api/queues message_stats.deliver_no_ack).",
        LABELS,
    ),
    "get": counter(
        "rabbitmq_queue_get_ack_total",
        "Messages fetched with manual acknowledgement (/api/queues message_stats.get).",
        LABELS,
    ),
    "get_no_ack": counter(
        "rabbitmq_queue_get_total",
        "Messages fetched with automatic acknowledgement (/api/queues message_stats.get_no_ack).",
        LABELS,
    ),
    "get_empty": counter(
        "rabbitmq_queue_get_empty_total",
        "Fetches from the empty queue (/api/queues message_stats.get_empty).",
        LABELS,
    ),
    "redeliver": counter(
        "rabbitmq_queue_messages_redelivered_total",
        "Messages redelivered (/api/queues message_stats.redeliver).",
        LABELS,
    ),
    "ack": counter(
        "rabbitmq_queue_messages_acked_total",
        "Messages acknowledged by consumers (/api/queues message_stats.ack).",
        LABELS,
    ),
}
INFO = gauge(
    "rabbitmq_queue_info",
    "Type, durability, policy and node of the queue (/api/queues type, durable, policy, node).",
    (*LABELS, "queue_type", "durable", "policy", "node"),
)
STATE = gauge(
    "rabbitmq_queue_state",
    "1 for the current state of the queue (/api/queues state).",
    (*LABELS, "state"),
)
LEADERLESS = gauge(
    "rabbitmq_quorum_queues_without_leader",
    "Quorum queues without a leader, which cannot be used (/api/queues leader).",
)
MINORITY = gauge(
    "rabbitmq_quorum_queues_without_majority",
    "Quorum queues with at least half of their members down (/api/queues online, members).",
)
HAS_LEADER = gauge(
    "rabbitmq_queue_has_leader",
    "Whether a quorum queue has a leader (/api/queues leader).",
    LABELS,
)
MEMBERS = gauge(
    "rabbitmq_queue_members",
    "Replicas of a quorum queue or stream (/api/queues members).",
    LABELS,
)
ONLINE = gauge(
    "rabbitmq_queue_members_online",
    "Running replicas of a quorum queue or stream (/api/queues online).",
    LABELS,
)
#: Names that RabbitMQ's own alerts for single queues use.
DETAILED = {
    "messages": gauge(
        "rabbitmq_detailed_queue_messages",
        "Same as rabbitmq_queue_messages (/api/queues messages).",
        LABELS,
    ),
    "consumers": gauge(
        "rabbitmq_detailed_queue_consumers",
        "Same as rabbitmq_queue_consumers (/api/queues consumers).",
        LABELS,
    ),
}
MAX_LENGTH = gauge(
    "rabbitmq_queue_max_length",
    "Maximum number of messages, the lower one of argument and policy"
    " (/api/queues arguments.x-max-length, effective_policy_definition.max-length).",
    LABELS,
)
IDLE_SINCE = gauge(
    "rabbitmq_queue_idle_since_seconds",
    "Unix time since which the queue has been idle (/api/queues idle_since).",
    LABELS,
)
HEAD_TIMESTAMP = gauge(
    "rabbitmq_queue_head_message_timestamp",
    "Timestamp set by the publisher of the oldest unacknowledged message, as Unix time"
    " (/api/queues head_message_timestamp).",
    LABELS,
)
HEAD_AGE = gauge(
    "rabbitmq_queue_head_message_age_seconds",
    "Age of the oldest unacknowledged message by the timestamp of its publisher"
    " (the exporter's clock less /api/queues head_message_timestamp).",
    LABELS,
)
AUTO_ACK = gauge(
    "rabbitmq_queue_consumers_auto_ack",
    "Consumers with automatic acknowledgement: what they have not processed is not counted as waiting"
    " (/api/consumers ack_required).",
    LABELS,
)
PERMISSION_GAP = gauge(
    "rabbitmq_permission_gap",
    "Queues of the cluster that the exporter's user has no permission to see"
    " (/api/overview object_totals.queues less the length of /api/queues).",
)
METRICS = (
    GAUGES,
    COUNTERS,
    DETAILED,
    INFO,
    STATE,
    LEADERLESS,
    MINORITY,
    HAS_LEADER,
    MEMBERS,
    ONLINE,
    MAX_LENGTH,
    IDLE_SINCE,
    HEAD_TIMESTAMP,
    HEAD_AGE,
    AUTO_ACK,
    PERMISSION_GAP,
)


def emit_queue(scrape: Scrape, queue: Queue, now: float) -> None:
    """Emit the metrics of a queue; `now` is Unix time."""
    labels = (queue.vhost, queue.name)
    emit_fields(scrape, GAUGES, queue, *labels)
    if isinstance(queue.message_stats, MessageStats):
        emit_fields(scrape, COUNTERS, queue.message_stats, *labels)
    _emit_properties(scrape, queue)
    emit_known(scrape, IDLE_SINCE, idle_since(queue), *labels)
    published = head_timestamp(queue)
    if published is not None:
        scrape.emit(HEAD_TIMESTAMP, published, *labels)
        if published <= now:  # a future time means that a clock is wrong
            scrape.emit(HEAD_AGE, now - published, *labels)


def emit_detailed(scrape: Scrape, queues: Sequence[Queue]) -> None:
    """Emit the metrics that RabbitMQ's own alerts for single queues use."""
    for field, metric in DETAILED.items():
        samples: dict[tuple[str, ...], float] = {
            (queue.vhost, queue.name): value
            for queue in queues
            if isinstance(value := getattr(queue, field), NUMBERS)
        }
        if samples:
            scrape.emit_all(metric, samples)


def emit_quorum(scrape: Scrape, queues: Iterable[Queue]) -> None:
    """Emit how many quorum queues are unavailable, if there are quorum queues."""
    quorum = [queue for queue in queues if queue.type == QUORUM]
    if quorum:
        scrape.emit(LEADERLESS, sum(map(is_leaderless, quorum)))
        scrape.emit(MINORITY, sum(map(lacks_majority, quorum)))


def emit_auto_ack(scrape: Scrape, queue: Queue, counts: Counter[Key] | None) -> None:
    """Emit the consumers with automatic acknowledgement; `counts` is None if unknown.

    Streams have no such metric: their consumers read a log that is kept.
    """
    key = (queue.vhost, queue.name)
    if queue.type == STREAM or known(queue.consumers) is None:
        return
    if counts is not None:
        scrape.emit(AUTO_ACK, counts[key], *key)
    elif queue.consumers == 0:
        scrape.emit(AUTO_ACK, 0, *key)


def head_timestamp(queue: Queue) -> float | None:
    """Return the publisher's timestamp of the oldest message as Unix time; None if it has none."""
    timestamp = known(queue.head_message_timestamp)
    if timestamp is None or timestamp <= 0:
        return None
    return timestamp / 1000 if timestamp >= MILLISECONDS_FROM else timestamp


def idle_since(queue: Queue) -> float | None:
    """Return the Unix time since which the queue has been idle; None if unknown.

    The format is `2026-01-02T03:04:05.678+00:00` with the offset of the broker's time zone, and
    `2026-01-02 3:04:05` in UTC before RabbitMQ 3.9.
    """
    match = _IDLE.fullmatch(str(queue.idle_since).strip())
    if match is None:
        return None
    date, hour, minutes, zone = match.groups()
    offset = "+00:00" if zone in {None, "Z", "z"} else zone
    try:
        return datetime.fromisoformat(f"{date}T{hour:0>2}{minutes}{offset}").timestamp()
    except ValueError:
        return None


def queue_type(queue: Queue) -> str:
    """Return the type as in RabbitMQ's own exporter, such as `rabbit_classic_queue`."""
    kind = queue.type or ""
    return f"rabbit_{kind}_queue" if kind in SHORT_TYPES else kind


def max_length(queue: Queue) -> float | None:
    """Return the effective maximum length; None if there is none."""
    arguments, policy = queue.arguments, queue.effective_policy_definition
    limits = (
        known(arguments.max_length) if isinstance(arguments, Arguments) else None,
        known(policy.max_length) if isinstance(policy, Policy) else None,
    )
    return min((limit for limit in limits if limit is not None), default=None)


def _emit_properties(scrape: Scrape, queue: Queue) -> None:
    labels = (queue.vhost, queue.name)
    durable = str(queue.durable).lower() if isinstance(queue.durable, bool) else ""
    if queue.type:
        properties = (queue_type(queue), durable, queue.policy or "", node_of(queue) or "")
        scrape.emit(INFO, 1, *labels, *properties)
    if queue.state:
        scrape.emit(STATE, 1, *labels, queue.state)
    if queue.type == QUORUM and isinstance(queue.members, list):
        scrape.emit(HAS_LEADER, not is_leaderless(queue), *labels)
    for metric, names in ((MEMBERS, queue.members), (ONLINE, queue.online)):
        if isinstance(names, list):
            scrape.emit(metric, len(names), *labels)
    emit_known(scrape, MAX_LENGTH, max_length(queue), *labels)
