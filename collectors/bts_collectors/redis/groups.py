"""A stream's consumer groups: what XINFO GROUPS tells of them, and how far behind they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bts_collectors.redis.lag import MOST_COUNTED, age_seconds, consumed, judge, lost
from bts_collectors.redis.rows import Rows
from bts_collectors.redis.streamstate import Group, Id, Stream
from bts_collectors.redis.visit import Visit
from bts_exporter import Metric, backlog, gauge

LABELS = ("db", "stream", "group")

CONSUMERS = gauge("redis_stream_group_consumers", "Field consumers of XINFO GROUPS.", LABELS)
PENDING = gauge("redis_stream_group_messages_pending", "Field pending of XINFO GROUPS.", LABELS)
LAST_DELIVERED = gauge(
    "redis_stream_group_last_delivered_id",
    "Field last-delivered-id of XINFO GROUPS, its milliseconds.",
    LABELS,
)
READ = gauge("redis_stream_group_entries_read", "Field entries-read of XINFO GROUPS.", LABELS)
LAG = gauge(
    "redis_stream_group_lag",
    "Entries not delivered to the group yet, from XINFO STREAM and GROUPS or counted; no sample"
    " where neither tells.",
    LABELS,
)
LAG_EXACT = gauge(
    "redis_stream_group_lag_exact",
    "1 if redis_stream_group_lag is certain; 0 if it is missing, or the server's own figure that"
    " its version may have wrong and that is too large to be checked by counting.",
    LABELS,
)
LAG_SECONDS = gauge(
    "redis_stream_group_lag_seconds",
    "Age of the oldest entry not delivered to the group yet, by its id; 0 when there is none.",
    LABELS,
)
LOST = gauge(
    "redis_stream_group_entries_lost",
    "Entries trimmed or deleted from the start of the stream before the group was delivered them,"
    " until it goes on: entries-added less length of XINFO STREAM, less entries-read of XINFO GROUPS.",
    LABELS,
)
METRICS: tuple[Metric, ...] = (
    CONSUMERS,
    PENDING,
    LAST_DELIVERED,
    READ,
    LAG,
    LAG_EXACT,
    LAG_SECONDS,
    LOST,
)


class Labels(NamedTuple):
    """The label values of a group, made once: there may be thousands of groups."""

    #: Of its own metrics.
    own: tuple[str, str, str]
    #: Of those in the common vocabulary, and how its seconds are found.
    common: tuple[str, str, str]
    method: tuple[str, str, str, str]

    @classmethod
    def of(cls, db: str, stream: str, group: str) -> Labels:
        """Return the label values of a group of `stream`."""
        common = ("redis", stream, group)
        return cls((db, stream, group), common, (*common, "message_time"))


@dataclass(slots=True)
class Standing:
    """How a group stands: what is known of its lag so far."""

    #: The stream's key.
    name: bytes
    stream: Stream
    group: Group
    labels: Labels
    lag: int | None = None
    #: Whether the lag is certain.
    exact: bool = False
    #: The first entry not delivered yet, None if it is not known or there is none.
    head: Id | None = None

    @property
    def is_open(self) -> bool:
        """Return whether the entries themselves must be looked at."""
        return not self.exact or (self.lag != 0 and self.head is None)

    @property
    def is_worth_counting(self) -> bool:
        """Return whether a long count may tell what a short one did not."""
        return not self.exact and self.head is not None and (self.lag or 0) <= MOST_COUNTED


def emit_states(visit: Visit, found: Sequence[Standing]) -> None:
    """Emit what XINFO GROUPS told, and judge the lag by it."""
    for one in found:
        one.lag, one.exact, one.head = judge(one.stream, one.group, visit.version)
    groups = [one.group for one in found]
    consumers, pending = [group.consumers for group in groups], [group.pending for group in groups]
    own = Rows(visit.scrape, [one.labels.own for one in found])
    own.emit(CONSUMERS, consumers)
    own.emit(PENDING, pending)
    own.emit(LAST_DELIVERED, [group.last_delivered[0] for group in groups])
    own.emit(READ, [group.entries_read for group in groups])
    own.emit(LOST, [lost(one.stream, one.group) for one in found])
    common = Rows(visit.scrape, [one.labels.common for one in found])
    common.emit(backlog.CONSUMERS, consumers)
    common.emit(backlog.IN_FLIGHT, pending)


def emit_lags(visit: Visit, found: Sequence[Standing]) -> None:
    """Emit how far behind the groups are, as far as that is known now."""
    lags, seconds = [one.lag for one in found], [_age(one, visit.now) for one in found]
    own = Rows(visit.scrape, [one.labels.own for one in found])
    own.emit(LAG_EXACT, [int(one.exact) for one in found])
    own.emit(LAG, lags)
    own.emit(LAG_SECONDS, seconds)
    common = Rows(visit.scrape, [one.labels.common for one in found])
    common.emit(backlog.BACKLOG, lags)
    common.emit(backlog.CONSUMED, [_consumed(one) for one in found])
    common.emit(backlog.LAG_SECONDS, seconds)
    methods = Rows(visit.scrape, [one.labels.method for one in found])
    methods.emit(backlog.LAG_METHOD, [None if age is None else 1 for age in seconds])


def _age(one: Standing, now: int | None) -> float | None:
    if one.lag == 0:
        return 0
    return one.head and age_seconds(one.head, now)


def _consumed(one: Standing) -> int | None:
    return consumed(one.stream, one.group, one.lag) if one.exact and one.lag is not None else None
