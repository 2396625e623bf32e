"""The oldest pending entry of a group (delivered, not acknowledged): its age and its deliveries."""

from __future__ import annotations

from collections.abc import Sequence

from hiredis import ReplyError

from bts_collectors.redis.client.batching import RequestBatches
from bts_collectors.redis.client.connection import Reply
from bts_collectors.redis.client.errors import ReplyShapeError
from bts_collectors.redis.streams.columns import Columns
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.groups import LABELS, GroupState
from bts_collectors.redis.streams.lag import age_seconds
from bts_collectors.redis.streams.state import Id, parse_id
from bts_exporter import Metric, gauge

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


def read(context: StreamContext, groups: Sequence[GroupState]) -> RequestBatches:
    """Emit the oldest pending entry of every group."""
    requested = [state for state in groups if state.group.pending]
    #: Age in seconds and deliveries of each group's oldest entry.
    oldest: list[tuple[GroupState, float | None, int]] = [
        (state, 0, 0) for state in groups if not state.group.pending
    ]
    if context.command_support.expects("xpending"):
        replies = yield [
            ("XPENDING", state.name, state.group.name, "-", "+", 1) for state in requested
        ]
        now = context.clock.now()
        for state, reply in zip(requested, replies, strict=True):
            if isinstance(reply, ReplyError):
                context.refused("xpending", reply)
                continue
            try:
                entry, deliveries = parse(reply)
            except ReplyShapeError as error:
                subject = f"pending entries of {state.labels.own[1:]!r}"
                context.scrape_context.unexpected_reply(subject, error)
                continue
            oldest.append((state, age_seconds(entry, now) if entry else 0, deliveries))
    columns = Columns(context.scrape_context.scrape, [state.labels.own for state, _, _ in oldest])
    columns.emit(AGE, [seconds for _, seconds, _ in oldest])
    columns.emit(DELIVERIES, [deliveries for _, _, deliveries in oldest])


def parse(reply: Reply) -> tuple[Id | None, int]:
    """Return id and deliveries of the first entry of an XPENDING reply; (None, 0) if it is empty.

    ReplyShapeError if it is odd. An entry is its id, its consumer, its idle time, its deliveries.
    """
    # There are tens of thousands, and `match` takes three times as long.
    if type(reply) is list:
        if not reply:
            return None, 0
        entry = reply[0]
        if type(entry) is list and len(entry) == _ENTRY_VALUES and type(entry[-1]) is int:
            return parse_id(entry[0]), entry[-1]
    msg = "the entry is not a list of id, consumer, idle time and deliveries"
    raise ReplyShapeError(msg)
