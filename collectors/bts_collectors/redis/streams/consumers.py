"""The consumers of a group: how many are stuck with entries, and one by one for who asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hiredis import ReplyError

from bts_collectors.redis.client.context import MISSHAPEN, Rounds, Visit, label
from bts_collectors.redis.streams.columns import Rows
from bts_collectors.redis.streams.context import Reading
from bts_collectors.redis.streams.flat_map import Fields
from bts_collectors.redis.streams.groups import LABELS, Standing
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

_CONSUMER = Fields(b"name", b"pending", b"idle", b"inactive")


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


def read(reading: Reading, groups: Sequence[Standing], stale_after: float, *, each: bool) -> Rounds:
    """Emit how the consumers of every group are; `stale_after` is in seconds."""
    if not reading.refusals.expects("xinfo|consumers"):
        return
    asked: list[Standing] = []
    #: Of each group how many consumers are stale, and the longest idle in milliseconds.
    told: list[tuple[Standing, int, int]] = []
    for one in groups:
        group = one.group
        if not (group.pending or (each and group.consumers)):
            told.append((one, 0, 0))
        elif group.stale is not None and group.idle is not None:
            told.append((one, group.stale, group.idle))
        elif group.consumers <= MOST:
            asked.append(one)
    found: list[tuple[Standing, list[Consumer]]] = []
    replies = yield [("XINFO", "CONSUMERS", one.name, one.group.name) for one in asked]
    for one, reply in zip(asked, replies, strict=True):
        if isinstance(reply, ReplyError):
            reading.refused("xinfo|consumers", reply)
            continue
        try:
            found.append((one, parse(reply)))
            told.append((one, *_judged(found[-1][1], stale_after)))
        except MISSHAPEN as error:
            reading.visit.misshapen(f"the consumers of {one.labels.own[1:]!r}", error)
    rows = Rows(reading.visit.scrape, [one.labels.own for one, _, _ in told])
    rows.emit(STALE, [None if stale < 0 else stale for _, stale, _ in told])
    rows.emit(MAX_IDLE, [None if idle < 0 else idle / 1000 for _, _, idle in told])
    if each:
        _emit_each(reading.visit, found)


def _judged(consumers: Sequence[Consumer], stale_after: float) -> tuple[int, int]:
    """Return how many of those that hold entries are stale, and the longest idle in milliseconds.

    It is -1 where one that asks in vain is not told from one that does not ask.
    """
    holding = [consumer for consumer in consumers if consumer.pending]
    stale = sum(consumer.idle >= stale_after * 1000 for consumer in holding)
    if any(consumer.inactive is None for consumer in holding):
        return (-1 if stale else 0), -1
    return stale, max((consumer.idle for consumer in holding), default=0)


def _emit_each(visit: Visit, told: Sequence[tuple[Standing, list[Consumer]]]) -> None:
    found = [(one.labels.own, consumer) for one, consumers in told for consumer in consumers]
    rows = Rows(visit.scrape, [(*own, label(consumer.name)) for own, consumer in found])
    rows.emit(PENDING, [consumer.pending for _, consumer in found])
    rows.emit(IDLE, [consumer.idle / 1000 for _, consumer in found])
