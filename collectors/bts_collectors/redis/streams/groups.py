"""Consumer groups: the fields of XINFO GROUPS, and the lag."""

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
    "Entries that were not delivered to the group yet, from XINFO STREAM and XINFO GROUPS or counted;"
    " no sample if it is unknown.",
    LABELS,
)
LAG_EXACT = gauge(
    "redis_stream_group_lag_exact",
    "1 if redis_stream_group_lag is certain: proved by the ids and the length of the stream, or"
    " counted; 0 if it is missing, or the server's own number because there are too many entries to"
    " count.",
    LABELS,
)
LAG_SECONDS = gauge(
    "redis_stream_group_lag_seconds",
    "Age of the oldest entry that was not delivered to the group yet, by its id; if the id is not a"
    " plausible time, the time since it was first seen; 0 without such entries.",
    LABELS,
)
LOST = gauge(
    "redis_stream_group_entries_lost",
    "Entries that were trimmed or deleted from the start of the stream before they were delivered to"
    " the group, until its next delivery; no sample if some may have been missed between two scrapes.",
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
_NO_AGE = backlog.Age(0, "message_time")


class Labels(NamedTuple):
    """The label values of a group, kept between scrapes: there may be thousands of groups."""

    #: For the redis_stream_group metrics.
    own: tuple[str, str, str]
    #: For the backlog metrics that all brokers share.
    common: tuple[str, str, str]
    #: For the usual methods: of the lag in seconds, and of the time since a delivery.
    method: tuple[str, str, str, str]
    delivery: tuple[str, str, str, str]

    @classmethod
    def of(cls, db: str, stream: str, group: str) -> Labels:
        """Return the label values of a group of `stream`."""
        common = ("redis", stream, group)
        return cls(
            (db, stream, group), common, (*common, "message_time"), (*common, "delivery_time")
        )


class Known(NamedTuple):
    """The part of a group that is kept between scrapes."""

    labels: Labels
    history: History


@dataclass(slots=True)
class GroupState:
    """A group in this scrape, with its lag as far as it is known."""

    #: The stream's key.
    name: bytes
    stream: Stream
    group: Group
    labels: Labels
    lag: int | None = None
    #: Whether the lag is certain.
    exact: bool = False
    #: The first undelivered entry; None if it is unknown or there is no such entry.
    head: Id | None = None
    #: Whether the undelivered entries are the same as in the previous scrape.
    is_same: bool = False
    history: History = field(default_factory=History)
    settings: Settings = _UNKNOWN

    @property
    def is_open(self) -> bool:
        """Return whether the entries themselves must be read."""
        return not self.exact or (self.lag != 0 and self.head is None)

    @property
    def is_worth_counting(self) -> bool:
        """Return whether the entries are worth a long count, after a short one was not enough."""
        return not self.exact and self.head is not None


def emit_states(scrape_context: ScrapeContext, states: Sequence[GroupState]) -> None:
    """Emit the fields of XINFO GROUPS, and judge the lag by them."""
    for state in states:
        state.lag, state.exact, state.head = judge(state.stream, state.group)
        if state.is_open:
            state.history.recall(state)
    groups = [state.group for state in states]
    consumers, pending = [group.consumers for group in groups], [group.pending for group in groups]
    own = Columns(scrape_context.scrape, [state.labels.own for state in states])
    own.emit(CONSUMERS, consumers)
    own.emit(PENDING, pending)
    own.emit(LAST_DELIVERED, [group.last_delivered[0] for group in groups])
    own.emit(READ, [group.entries_read for group in groups])
    common = Columns(scrape_context.scrape, [state.labels.common for state in states])
    common.emit(backlog.CONSUMERS, consumers)
    common.emit(backlog.IN_FLIGHT, pending)


def emit_lags(context: StreamContext, states: Sequence[GroupState]) -> None:
    """Emit the lag of the groups as far as it is known."""
    scrape, ticks, now = context.scrape_context.scrape, context.ticks(), context.clock.now()
    flows = [state.history.take(state, ticks) for state in states]
    ages = [_age(state, ticks, now) for state in states]
    lags, seconds = [state.lag for state in states], [age and age.seconds for age in ages]
    own = Columns(scrape, [state.labels.own for state in states])
    own.emit(LAG_EXACT, [int(state.exact) for state in states])
    own.emit(LAG, lags)
    own.emit(LAG_SECONDS, seconds)
    own.emit(LOST, [flow.lost for flow in flows])
    common = Columns(scrape, [state.labels.common for state in states])
    common.emit(backlog.BACKLOG, lags)
    common.emit(backlog.CONSUMED, [flow.consumed for flow in flows])
    common.emit(backlog.LOST, [flow.lost_in_total for flow in flows])
    common.emit(backlog.DRAIN_SECONDS, [flow.drain for flow in flows])
    common.emit(backlog.LAG_SECONDS, seconds)
    methods = Columns(scrape, [_method(*pair) for pair in zip(states, ages, strict=True)])
    methods.emit(backlog.LAG_METHOD, [None if age is None else 1 for age in ages])


def _method(state: GroupState, age: backlog.Age | None) -> tuple[str, str, str, str]:
    """Return the label values that name the method of the lag in seconds."""
    if age is None or age.method == "message_time":
        return state.labels.method
    return (*state.labels.common, age.method)


def _age(state: GroupState, ticks: float, now: int | None) -> backlog.Age | None:
    """Return the age of the first undelivered entry; `now` is the server's clock in milliseconds."""
    waiting, stream = state.history.waiting, state.stream
    if state.lag == 0:
        waiting.clear(ticks, max(stream.last_generated or _START, state.group.last_delivered))
        return _NO_AGE
    if state.head is None:
        return None
    return waiting.age(ticks, state.head, stream.last or state.head, age_seconds(state.head, now))
