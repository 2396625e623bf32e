"""The oldest pending entry of a group (delivered, not acknowledged): its age, its delivery and their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hiredis import ReplyError

from bts_collectors.redis.client.batching import RequestBatches
from bts_collectors.redis.client.connection import Reply
from bts_collectors.redis.client.errors import ReplyShapeError
from bts_collectors.redis.streams.columns import Columns
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.groups import LABELS, GroupState
from bts_collectors.redis.streams.held import Held, Pending
from bts_collectors.redis.streams.lag import age_seconds
from bts_collectors.redis.streams.state import Id, parse_id
from bts_exporter import Metric, backlog, gauge

AGE = gauge(
    "redis_stream_group_oldest_pending_age_seconds",
    "Age of the oldest entry that was delivered and not acknowledged, by its id (XPENDING); 0 if no"
    " entry is pending.",
    LABELS,
)
DELIVERIES = gauge(
    "redis_stream_group_oldest_pending_deliveries",
    "Deliveries of the oldest entry that was not acknowledged (XPENDING); 0 if no entry is pending.",
    LABELS,
)
METRICS: tuple[Metric, ...] = (AGE, DELIVERIES)

#: Values of an entry.
_ENTRY_VALUES = 4


class Oldest(NamedTuple):
    """The oldest pending entry of a group; None for an unknown time."""

    state: GroupState
    #: Seconds since the entry was added.
    age: float | None
    deliveries: int
    held: backlog.Age | None


def read(context: StreamContext, groups: Sequence[GroupState]) -> RequestBatches:
    """Emit the oldest pending entry of every group."""
    requested = [state for state in groups if state.group.pending]
    oldest = [_without_entries(state) for state in groups if not state.group.pending]
    if context.command_support.expects("xpending"):
        replies = yield [
            ("XPENDING", state.name, state.group.name, "-", "+", 1) for state in requested
        ]
        now, ticks = context.clock.now(), context.ticks()
        for state, reply in zip(requested, replies, strict=True):
            if isinstance(reply, ReplyError):
                context.refused("xpending", reply)
                continue
            try:
                entry, idle, deliveries = parse(reply)
            except ReplyShapeError as error:
                subject = f"pending entries of {state.labels.own[1:]!r}"
                context.scrape_context.unexpected_reply(subject, error)
                continue
            if entry is None:
                oldest.append(_without_entries(state))
                continue
            age = _held(state, Pending(entry, idle / 1000, deliveries), ticks)
            oldest.append(Oldest(state, age_seconds(entry, now), deliveries, age))
    _emit(context, oldest)


def _held(state: GroupState, oldest: Pending, now: float) -> backlog.Age:
    """Return the time since the delivery of the entry that was delivered first."""
    if state.history.held is None:
        state.history.held = Held(state.history.moves_when_idle())
    held, group, stream = state.history.held, state.group, state.stream
    last = max(group.last_delivered, stream.last_generated or group.last_delivered)
    return held.age(oldest, now, last, state.settings.moved, is_only=group.pending == 1)


def _without_entries(state: GroupState) -> Oldest:
    """Return the values of a group without pending entries."""
    if state.history.held is not None:
        state.history.held.clear(state.settings.moved)
    return Oldest(state, 0, 0, None)


def _emit(context: StreamContext, oldest: Sequence[Oldest]) -> None:
    scrape = context.scrape_context.scrape
    columns = Columns(scrape, [state.labels.own for state, *_ in oldest])
    columns.emit(AGE, [found.age for found in oldest])
    columns.emit(DELIVERIES, [found.deliveries for found in oldest])
    held: dict[tuple[str, ...], float] = {}
    methods: dict[tuple[str, ...], float] = {}
    for state, _, _, age in oldest:
        labels = state.labels.common
        held[labels] = 0 if age is None else age.seconds
        if age is not None:
            methods[*labels, age.method] = 1
    for metric, samples in ((backlog.IN_FLIGHT_OLDEST, held), (backlog.IN_FLIGHT_METHOD, methods)):
        if samples:
            scrape.emit_all(metric, samples)


def parse(reply: Reply) -> tuple[Id | None, int, int]:
    """Return id, idle milliseconds and deliveries of the first entry of an XPENDING reply; (None, 0, 0) if empty.

    ReplyShapeError if it is odd. An entry is its id, its consumer, its idle time, its deliveries.
    """
    # There are tens of thousands, and `match` takes three times as long.
    if type(reply) is list:
        if not reply:
            return None, 0, 0
        entry = reply[0]
        if type(entry) is list and len(entry) == _ENTRY_VALUES:
            raw, _, idle, deliveries = entry
            if type(idle) is int and type(deliveries) is int:
                return parse_id(raw), idle, deliveries
    msg = "the entry is not a list of id, consumer, idle time and deliveries"
    raise ReplyShapeError(msg)
