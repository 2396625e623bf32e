"""The oldest entry that was delivered to a group and not acknowledged: how old, how often tried."""

from __future__ import annotations

from collections.abc import Sequence

from hiredis import ReplyError

from bts_collectors.redis.groups import LABELS, Standing
from bts_collectors.redis.lag import age_seconds
from bts_collectors.redis.reading import Reading
from bts_collectors.redis.streamstate import parse_id
from bts_collectors.redis.visit import Rounds, Visit
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


def read(reading: Reading, groups: Sequence[Standing]) -> Rounds:
    """Emit the oldest pending entry of every group."""
    asked = [one for one in groups if one.group.pending]
    for one in groups:
        if not one.group.pending:
            _emit(reading.visit, one, 0, 0)
    if not reading.refusals.expects("xpending"):
        return
    replies = yield [("XPENDING", one.name, one.group.name, "-", "+", 1) for one in asked]
    for one, reply in zip(asked, replies, strict=True):
        if isinstance(reply, ReplyError):
            reading.refused("xpending", reply)
        elif reply:
            entry, _, _, deliveries = reply[0]
            _emit(reading.visit, one, age_seconds(parse_id(entry), reading.visit.now), deliveries)
        else:
            _emit(reading.visit, one, 0, 0)  # acknowledged meanwhile


def _emit(visit: Visit, one: Standing, seconds: float | None, deliveries: int) -> None:
    if seconds is not None:
        visit.scrape.put(AGE, one.labels.own, seconds)
    visit.scrape.put(DELIVERIES, one.labels.own, deliveries)
