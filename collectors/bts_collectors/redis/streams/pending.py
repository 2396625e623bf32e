"""The oldest pending entry of a group (delivered, not acknowledged): its age, its delivery and their number."""

from __future__ import annotations

from collections.abc import Sequence

from hiredis import ReplyError

from bts_collectors.redis.client.batching import RequestBatches
from bts_collectors.redis.client.connection import Reply
from bts_collectors.redis.client.errors import ReplyShapeError
from bts_collectors.redis.streams.columns import Columns
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.groups import LABELS, GroupState, Labels
from bts_collectors.redis.streams.held import Held, Pending
from bts_collectors.redis.streams.lag import age_seconds
from bts_collectors.redis.streams.state import parse_id
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


#: A group, the seconds since its oldest pending entry was added (None if unknown), the entry's deliveries and how long
#: it is held. A plain tuple: there are tens of thousands, and making a named one takes seven times as long.
_Row = tuple[GroupState, float | None, int, backlog.Age | None]


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
                entry = parse(reply)
            except ReplyShapeError as error:
                subject = f"pending entries of {state.labels.own[1:]!r}"
                context.scrape_context.unexpected_reply(subject, error)
                continue
            if entry is None:
                oldest.append(_without_entries(state))
                continue
            held = _held(state, entry, ticks)
            oldest.append((state, age_seconds(entry.entry, now), entry.deliveries, held))
    _emit(context, oldest)


def _held(state: GroupState, oldest: Pending, now: float) -> backlog.Age:
    """Return the time since the delivery of the entry that was delivered first."""
    if state.history.held is None:
        state.history.held = Held(state.history.moves_when_idle())
    held, group, stream = state.history.held, state.group, state.stream
    last = max(group.last_delivered, stream.last_generated or group.last_delivered)
    return held.age(oldest, now, last, state.settings.moved, is_only=group.pending == 1)


def _without_entries(state: GroupState) -> _Row:
    """Return the values of a group without pending entries."""
    if state.history.held is not None:
        state.history.held.clear(state.settings.moved)
    return state, 0, 0, None


def _emit(context: StreamContext, oldest: Sequence[_Row]) -> None:
    scrape = context.scrape_context.scrape
    columns = Columns(scrape, [row[0].labels.own for row in oldest])
    columns.emit(AGE, [row[1] for row in oldest])
    columns.emit(DELIVERIES, [row[2] for row in oldest])
    Columns(scrape, [row[0].labels.common for row in oldest]).emit(
        backlog.IN_FLIGHT_OLDEST, [row[3].seconds if row[3] else 0 for row in oldest]
    )
    held = [(row[0].labels, row[3]) for row in oldest if row[3] is not None]
    methods = Columns(scrape, [_method(labels, age) for labels, age in held])
    methods.emit(backlog.IN_FLIGHT_METHOD, [1] * len(held))


def _method(labels: Labels, held: backlog.Age) -> tuple[str, str, str, str]:
    """Return the label values that name how the time since the delivery is known."""
    return labels.delivery if held.method == "delivery_time" else (*labels.common, held.method)


def parse(reply: Reply) -> Pending | None:
    """Return the first entry of an XPENDING reply; None if it is empty.

    ReplyShapeError if it is odd. An entry is its id, its consumer, its idle time, its deliveries.
    """
    # There are tens of thousands, and `match` takes three times as long.
    if type(reply) is list:
        if not reply:
            return None
        entry = reply[0]
        if type(entry) is list and len(entry) == _ENTRY_VALUES:
            raw, _, idle, deliveries = entry
            if type(idle) is int and type(deliveries) is int:
                return Pending(parse_id(raw), idle / 1000, deliveries)
    msg = "the entry is not a list of id, consumer, idle time and deliveries"
    raise ReplyShapeError(msg)
