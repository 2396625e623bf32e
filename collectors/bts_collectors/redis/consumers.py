"""The consumers of a group: how many are stuck with entries, and one by one for who asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from hiredis import ReplyError

from bts_collectors.redis.groups import LABELS, Standing
from bts_collectors.redis.reading import Reading
from bts_collectors.redis.streamstate import fields_of
from bts_collectors.redis.visit import Rounds, Visit, label
from bts_exporter import Metric, gauge

#: Consumers of one group; of a group with more of them none is looked at.
MOST = 1000

STALE = gauge(
    "redis_stream_group_consumers_stale",
    "Consumers that hold pending entries and have asked for nothing for `stream_stale_after`"
    " (pending and idle of XINFO CONSUMERS).",
    LABELS,
)
MAX_IDLE = gauge(
    "redis_stream_group_consumer_max_idle_seconds",
    "The longest idle of XINFO CONSUMERS among the consumers that hold pending entries; 0 when none"
    " does.",
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


class Consumer(msgspec.Struct, frozen=True, gc=False):
    """A consumer of a group."""

    name: bytes
    pending: int
    #: Milliseconds since it asked for entries, claimed or acknowledged them.
    idle: int


def parse(reply: Sequence[list[Any]]) -> list[Consumer]:
    """Return the consumers that a reply of XINFO CONSUMERS describes."""
    found = map(fields_of, reply)
    return [Consumer(fields[b"name"], fields[b"pending"], fields[b"idle"]) for fields in found]


def read(reading: Reading, groups: Sequence[Standing], stale_after: float, *, each: bool) -> Rounds:
    """Emit how the consumers of every group are; `stale_after` is in seconds."""
    if not reading.refusals.expects("xinfo|consumers"):
        return
    asked: list[Standing] = []
    for one in groups:
        if not (one.group.pending or (each and one.group.consumers)):
            _emit(reading.visit, one, [], stale_after)
        elif one.group.consumers <= MOST:
            asked.append(one)
    replies = yield [("XINFO", "CONSUMERS", one.name, one.group.name) for one in asked]
    for one, reply in zip(asked, replies, strict=True):
        if isinstance(reply, ReplyError):
            reading.refused("xinfo|consumers", reply)
            continue
        found = parse(reply)
        _emit(reading.visit, one, found, stale_after)
        for consumer in found if each else ():
            labels = (*one.labels.own, label(consumer.name))
            reading.visit.scrape.put(PENDING, labels, consumer.pending)
            reading.visit.scrape.put(IDLE, labels, consumer.idle / 1000)


def _emit(visit: Visit, one: Standing, found: Sequence[Consumer], stale_after: float) -> None:
    idle = [consumer.idle / 1000 for consumer in found if consumer.pending]
    visit.scrape.put(STALE, one.labels.own, sum(seconds >= stale_after for seconds in idle))
    visit.scrape.put(MAX_IDLE, one.labels.own, max(idle, default=0))
