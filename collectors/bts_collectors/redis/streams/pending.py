"""The oldest entry that was delivered to a group and not acknowledged: how old, how often tried."""

from __future__ import annotations

from collections.abc import Sequence

from hiredis import ReplyError

from bts_collectors.redis.client.connection import Reply
from bts_collectors.redis.client.context import RequestBatches
from bts_collectors.redis.streams.columns import Columns
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.groups import LABELS, GroupState
from bts_collectors.redis.streams.lag import age_seconds
from bts_collectors.redis.streams.state import parse_id
from bts_exporter import Metric, gauge

AGE = gauge(
    "redis_stream_group_oldest_pending_age_seconds",
    "Age of the oldest entry delivered and not acknowledged (XPENDING), by its id; 0 when there is"
    " none.",
    LABELS,
)
DELIVERIES = gauge(
    "redis_stream_group_oldest_pending_deliveries",
    "How often the oldest entry not acknowledged was delivered (XPENDING); 0 when there is none.",
    LABELS,
)
METRICS: tuple[Metric, ...] = (AGE, DELIVERIES)

#: Of what XPENDING tells of an entry.
_PARTS = 4


def read(context: StreamContext, groups: Sequence[GroupState]) -> RequestBatches:
    """Emit the oldest pending entry of every group."""
    asked = [state for state in groups if state.group.pending]
    #: Age in seconds and deliveries of each group's oldest entry.
    told: list[tuple[GroupState, float | None, int]] = [
        (state, 0, 0) for state in groups if not state.group.pending
    ]
    if context.command_support.expects("xpending"):
        replies = yield [("XPENDING", state.name, state.group.name, "-", "+", 1) for state in asked]
        now = context.clock.now()
        for state, reply in zip(asked, replies, strict=True):
            if isinstance(reply, ReplyError):
                context.refused("xpending", reply)
                continue
            match reply:
                case [[bytes(entry), _, _, int(deliveries)], *_]:
                    age = age_seconds(parse_id(entry), now)
                    told.append((state, age, deliveries))
                case []:
                    told.append((state, 0, 0))  # acknowledged meanwhile
                case _:
                    context.scrape_context.unexpected(
                        "answers XPENDING with something else than Redis does"
                    )
    columns = Columns(context.scrape_context.scrape, [state.labels.own for state, _, _ in told])
    columns.emit(AGE, [seconds for _, seconds, _ in told])
    columns.emit(DELIVERIES, [deliveries for _, _, deliveries in told])


def _is_entry(entry: Reply) -> bool:
    """Return whether it is an entry's id, its consumer, its idle time, and how often it was delivered."""
    return (
        type(entry) is list
        and len(entry) == _PARTS
        and type(entry[0]) is bytes
        and type(entry[-1]) is int
    )
