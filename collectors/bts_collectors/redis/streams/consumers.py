"""The consumers of a group: how many are stale, and with `stream_consumers` each consumer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hiredis import ReplyError

from bts_collectors.redis.client.batching import RequestBatches
from bts_collectors.redis.client.connection import Reply
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.client.errors import ReplyShapeError
from bts_collectors.redis.client.labels import label
from bts_collectors.redis.streams.columns import Columns
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.flat_map import FlatMap
from bts_collectors.redis.streams.groups import LABELS, GroupState
from bts_exporter import Metric, gauge

#: The consumers of a group with more of them are not read.
MOST = 1000

STALE = gauge(
    "redis_stream_group_consumers_stale",
    "Consumers that have pending entries and were idle for `stream_stale_after` or longer (pending and"
    " idle of XINFO CONSUMERS); before Redis 7.2 the only value is 0.",
    LABELS,
)
MAX_IDLE = gauge(
    "redis_stream_group_consumer_max_idle_seconds",
    "The longest idle time among the consumers that have pending entries (XINFO CONSUMERS); 0 without"
    " such consumers; from Redis 7.2.",
    LABELS,
)
PENDING = gauge(
    "redis_stream_group_consumer_messages_pending",
    "Field pending of XINFO CONSUMERS; with `stream_consumers: true`.",
    (*LABELS, "consumer"),
)
IDLE = gauge(
    "redis_stream_group_consumer_idle_seconds",
    "Field idle of XINFO CONSUMERS; with `stream_consumers: true`.",
    (*LABELS, "consumer"),
)
METRICS: tuple[Metric, ...] = (STALE, MAX_IDLE, PENDING, IDLE)

#: Types of a number that a server may leave out.
_OPTIONAL = frozenset((int, type(None)))
_CONSUMER = FlatMap(b"name", b"pending", b"idle", b"inactive")


class Consumer(NamedTuple):
    """A consumer of a group."""

    name: bytes
    pending: int
    #: Milliseconds since it read, claimed or acknowledged entries. Before Redis 7.2, which has no
    #: `inactive`, the time also grows while the consumer polls an empty stream.
    idle: int
    inactive: int | None = None


def parse(reply: Reply) -> list[Consumer]:
    """Return the consumers of an XINFO CONSUMERS reply; ReplyShapeError if it is odd."""
    if type(reply) is not list:
        msg = "the consumers are not a list"
        raise ReplyShapeError(msg)
    consumers = [Consumer._make(values) for values in map(_CONSUMER.of, reply)]
    for name, pending, idle, inactive in consumers:
        if (
            type(name) is not bytes
            or type(pending) is not int
            or type(idle) is not int
            or type(inactive) not in _OPTIONAL
        ):
            msg = "a field has an unexpected type"
            raise ReplyShapeError(msg)
    return consumers


def read(
    context: StreamContext, groups: Sequence[GroupState], stale_after: float, *, each: bool
) -> RequestBatches:
    """Emit the consumers of every group; `stale_after` is in seconds."""
    if not context.command_support.expects("xinfo|consumers"):
        return
    requested: list[GroupState] = []
    #: Of each group the stale consumers, and the longest idle time in milliseconds.
    known: list[tuple[GroupState, int, int]] = []
    for state in groups:
        group = state.group
        if not (group.pending or (each and group.consumers)):
            known.append((state, 0, 0))
        elif group.stale is not None and group.idle is not None:
            known.append((state, group.stale, group.idle))
        elif group.consumers <= MOST:
            requested.append(state)
    listed: list[tuple[GroupState, list[Consumer]]] = []
    replies = yield [("XINFO", "CONSUMERS", state.name, state.group.name) for state in requested]
    for state, reply in zip(requested, replies, strict=True):
        if isinstance(reply, ReplyError):
            context.refused("xinfo|consumers", reply)
            continue
        try:
            consumers = parse(reply)
        except ReplyShapeError as error:
            subject = f"consumers of {state.labels.own[1:]!r}"
            context.scrape_context.unexpected_reply(subject, error)
            continue
        listed.append((state, consumers))
        known.append((state, *_judge(consumers, stale_after)))
    columns = Columns(context.scrape_context.scrape, [state.labels.own for state, _, _ in known])
    columns.emit(STALE, [None if stale < 0 else stale for _, stale, _ in known])
    columns.emit(MAX_IDLE, [None if idle < 0 else idle / 1000 for _, _, idle in known])
    if each:
        _emit_each(context.scrape_context, listed)


def _judge(consumers: Sequence[Consumer], stale_after: float) -> tuple[int, int]:
    """Return how many consumers with pending entries are stale, and the longest idle time (ms).

    A number is -1 if it is unknown, because a consumer that polls in vain looks like a dead one.
    """
    holding = [consumer for consumer in consumers if consumer.pending]
    stale = sum(consumer.idle >= stale_after * 1000 for consumer in holding)
    if any(consumer.inactive is None for consumer in holding):
        return (-1 if stale else 0), -1
    return stale, max((consumer.idle for consumer in holding), default=0)


def _emit_each(
    scrape_context: ScrapeContext, listed: Sequence[tuple[GroupState, list[Consumer]]]
) -> None:
    rows = [(state.labels.own, consumer) for state, consumers in listed for consumer in consumers]
    labels = [(*own, label(consumer.name)) for own, consumer in rows]
    columns = Columns(scrape_context.scrape, labels)
    columns.emit(PENDING, [consumer.pending for _, consumer in rows])
    columns.emit(IDLE, [consumer.idle / 1000 for _, consumer in rows])
