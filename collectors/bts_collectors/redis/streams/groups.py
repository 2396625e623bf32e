"""A stream's consumer groups: what XINFO GROUPS tells of them, and how far behind they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.streams.columns import Columns
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.history import History, Settings
from bts_collectors.redis.streams.lag import age_seconds, judge
from bts_collectors.redis.streams.state import Group, Id, Stream
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
    "1 if redis_stream_group_lag is certain: proved by the ids and the length of the stream, or"
    " counted; 0 if it is missing, or the server's own figure where too many entries are to be counted.",
    LABELS,
)
LAG_SECONDS = gauge(
    "redis_stream_group_lag_seconds",
    "Age of the oldest entry not delivered to the group yet, by its id; where the id cannot be right,"
    " the time since it was seen first; 0 when there is none.",
    LABELS,
)
LOST = gauge(
    "redis_stream_group_entries_lost",
    "Entries trimmed or deleted from the start of the stream before the group was delivered them,"
    " until it goes on; no sample where some may have gone unseen between two collections.",
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


_START: Id = (0, 0)
_UNKNOWN = Settings()
_NONE_WAITS = backlog.Age(0, "message_time")


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


class Known(NamedTuple):
    """What is kept of a group from one collection to the next."""

    labels: Labels
    history: History


@dataclass(slots=True)
class GroupState:
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
    #: Whether nothing has happened to stream and group since the collection before.
    is_same: bool = False
    history: History = field(default_factory=History)
    settings: Settings = _UNKNOWN

    @property
    def is_open(self) -> bool:
        """Return whether the entries themselves must be looked at."""
        return not self.exact or (self.lag != 0 and self.head is None)

    @property
    def is_worth_counting(self) -> bool:
        """Return whether a long count may tell what a short one did not."""
        return not self.exact and self.head is not None


def emit_states(scrape_context: ScrapeContext, found: Sequence[GroupState]) -> None:
    """Emit what XINFO GROUPS told, and judge the lag by it."""
    for state in found:
        state.lag, state.exact, state.head = judge(state.stream, state.group)
        if state.is_open:
            state.history.recall(state)
    groups = [state.group for state in found]
    consumers, pending = [group.consumers for group in groups], [group.pending for group in groups]
    own = Columns(scrape_context.scrape, [state.labels.own for state in found])
    own.emit(CONSUMERS, consumers)
    own.emit(PENDING, pending)
    own.emit(LAST_DELIVERED, [group.last_delivered[0] for group in groups])
    own.emit(READ, [group.entries_read for group in groups])
    common = Columns(scrape_context.scrape, [state.labels.common for state in found])
    common.emit(backlog.CONSUMERS, consumers)
    common.emit(backlog.IN_FLIGHT, pending)


def emit_lags(context: StreamContext, found: Sequence[GroupState]) -> None:
    """Emit how far behind the groups are, as far as that is known now."""
    scrape, ticks, now = context.scrape_context.scrape, context.ticks(), context.clock.now()
    flows = [state.history.take(state, ticks) for state in found]
    ages = [_age(state, ticks, now) for state in found]
    lags, seconds = [state.lag for state in found], [age and age.seconds for age in ages]
    own = Columns(scrape, [state.labels.own for state in found])
    own.emit(LAG_EXACT, [int(state.exact) for state in found])
    own.emit(LAG, lags)
    own.emit(LAG_SECONDS, seconds)
    own.emit(LOST, [flow.lost for flow in flows])
    common = Columns(scrape, [state.labels.common for state in found])
    common.emit(backlog.BACKLOG, lags)
    common.emit(backlog.CONSUMED, [flow.consumed for flow in flows])
    common.emit(backlog.DRAIN_SECONDS, [flow.drain for flow in flows])
    common.emit(backlog.LAG_SECONDS, seconds)
    methods = Columns(scrape, [_method(*pair) for pair in zip(found, ages, strict=True)])
    methods.emit(backlog.LAG_METHOD, [None if age is None else 1 for age in ages])


def _method(state: GroupState, age: backlog.Age | None) -> tuple[str, str, str, str]:
    """Return the label values that say how the seconds are found."""
    if age is None or age.method == "message_time":
        return state.labels.method
    return (*state.labels.common, age.method)


def _age(state: GroupState, ticks: float, now: int | None) -> backlog.Age | None:
    """Return the age of the first entry that waits; `now` is the server's clock in milliseconds."""
    waiting, stream = state.history.waiting, state.stream
    if state.lag == 0:
        waiting.clear(ticks, max(stream.last_generated or _START, state.group.last_delivered))
        return _NONE_WAITS
    if state.head is None:
        return None
    return waiting.age(ticks, state.head, stream.last or state.head, age_seconds(state.head, now))
