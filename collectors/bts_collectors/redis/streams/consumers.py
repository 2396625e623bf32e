"""The consumers of a group: how many are stuck with entries, and with `stream_consumers` each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hiredis import ReplyError

from bts_collectors.redis.client.context import MISSHAPEN, RequestBatches, ScrapeContext, label
from bts_collectors.redis.streams.columns import Columns
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.flat_map import FlatMap
from bts_collectors.redis.streams.groups import LABELS, GroupState
from bts_exporter import Metric, gauge

#: Consumers of one group; of a group with more of them none is looked at.
MOST = 1000

STALE = gauge(
    "redis_stream_group_consumers_stale",
    "Consumers that hold pending entries and have asked for nothing for `stream_stale_after`"
    " (pending and idle of XINFO CONSUMERS); before Redis 7.2 only a 0 is told.",
    LABELS,
)
MAX_IDLE = gauge(
    "redis_stream_group_consumer_max_idle_seconds",
    "The longest idle of XINFO CONSUMERS among the consumers that hold pending entries; 0 when none"
    " does; not before Redis 7.2.",
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

_CONSUMER = FlatMap(b"name", b"pending", b"idle", b"inactive")


class Consumer(NamedTuple):
    """A consumer of a group."""

    name: bytes
    pending: int
    #: Milliseconds since it asked for entries, claimed or acknowledged them; before Redis 7.2, which has
    #: no `inactive`, it goes on while the consumer asks and there is nothing for it.
    idle: int
    inactive: int | None = None


def parse(reply: Sequence[list[Any]]) -> list[Consumer]:
    """Return the consumers that a reply of XINFO CONSUMERS describes."""
    return [Consumer._make(values) for values in map(_CONSUMER.of, reply)]


def read(
    context: StreamContext, groups: Sequence[GroupState], stale_after: float, *, each: bool
) -> RequestBatches:
    """Emit how the consumers of every group are; `stale_after` is in seconds."""
    if not context.command_support.expects("xinfo|consumers"):
        return
    asked: list[GroupState] = []
    #: Of each group how many consumers are stale, and the longest idle in milliseconds.
    told: list[tuple[GroupState, int, int]] = []
    for state in groups:
        group = state.group
        if not (group.pending or (each and group.consumers)):
            told.append((state, 0, 0))
        elif group.stale is not None and group.idle is not None:
            told.append((state, group.stale, group.idle))
        elif group.consumers <= MOST:
            asked.append(state)
    found: list[tuple[GroupState, list[Consumer]]] = []
    replies = yield [("XINFO", "CONSUMERS", state.name, state.group.name) for state in asked]
    for state, reply in zip(asked, replies, strict=True):
        if isinstance(reply, ReplyError):
            context.refused("xinfo|consumers", reply)
            continue
        try:
            found.append((state, parse(reply)))
            told.append((state, *_judged(found[-1][1], stale_after)))
        except MISSHAPEN as error:
            context.scrape_context.misshapen(f"the consumers of {state.labels.own[1:]!r}", error)
    columns = Columns(context.scrape_context.scrape, [state.labels.own for state, _, _ in told])
    columns.emit(STALE, [None if stale < 0 else stale for _, stale, _ in told])
    columns.emit(MAX_IDLE, [None if idle < 0 else idle / 1000 for _, _, idle in told])
    if each:
        _emit_each(context.scrape_context, found)


def _judged(consumers: Sequence[Consumer], stale_after: float) -> tuple[int, int]:
    """Return how many of those that hold entries are stale, and the longest idle in milliseconds.

    It is -1 where one that asks in vain is not told from one that does not ask.
    """
    holding = [consumer for consumer in consumers if consumer.pending]
    stale = sum(consumer.idle >= stale_after * 1000 for consumer in holding)
    if any(consumer.inactive is None for consumer in holding):
        return (-1 if stale else 0), -1
    return stale, max((consumer.idle for consumer in holding), default=0)


def _emit_each(
    scrape_context: ScrapeContext, told: Sequence[tuple[GroupState, list[Consumer]]]
) -> None:
    found = [(state.labels.own, consumer) for state, consumers in told for consumer in consumers]
    columns = Columns(
        scrape_context.scrape, [(*own, label(consumer.name)) for own, consumer in found]
    )
    columns.emit(PENDING, [consumer.pending for _, consumer in found])
    columns.emit(IDLE, [consumer.idle / 1000 for _, consumer in found])
