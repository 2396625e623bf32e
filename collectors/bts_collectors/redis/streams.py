"""Streams and their consumer groups: lengths, lag in messages and in seconds, pending entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from hiredis import ReplyError

from bts_collectors.redis.connection import Command, Reply
from bts_collectors.redis.discovery import Names
from bts_collectors.redis.lag import Question, age_seconds, ask_entries, judge
from bts_collectors.redis.streamstate import (
    Group,
    Id,
    Stream,
    ask_many,
    ask_plainly,
    parse_groups,
    parse_id,
    parse_stream,
    plain_state,
)
from bts_collectors.redis.visit import Rounds, Visit, text
from bts_exporter import Metric, backlog, counter, gauge

#: Streams or groups that one script looks at, so that it does not hold up the server for long.
BATCH = 20
#: Seconds until scripts are tried again where they were refused: every refusal is a line in ACL LOG.
RETRY = 600.0

_T = TypeVar("_T")
_STREAM = ("db", "stream")
_GROUP = (*_STREAM, "group")

LENGTH = gauge("redis_stream_length", "Field length of XINFO STREAM.", _STREAM)
GROUPS = gauge("redis_stream_groups", "Field groups of XINFO STREAM.", _STREAM)
RADIX_KEYS = gauge(
    "redis_stream_radix_tree_keys", "Field radix-tree-keys of XINFO STREAM.", _STREAM
)
RADIX_NODES = gauge(
    "redis_stream_radix_tree_nodes", "Field radix-tree-nodes of XINFO STREAM.", _STREAM
)
ADDED = counter("redis_stream_entries_added_total", "Field entries-added of XINFO STREAM.", _STREAM)
LAST_GENERATED = gauge(
    "redis_stream_last_generated_id",
    "Field last-generated-id of XINFO STREAM, its milliseconds.",
    _STREAM,
)
MAX_DELETED = gauge(
    "redis_stream_max_deleted_entry_id",
    "Field max-deleted-entry-id of XINFO STREAM, its milliseconds.",
    _STREAM,
)
FIRST_ENTRY = gauge(
    "redis_stream_first_entry_id",
    "Field first-entry of XINFO STREAM, its id's milliseconds.",
    _STREAM,
)
LAST_ENTRY = gauge(
    "redis_stream_last_entry_id",
    "Field last-entry of XINFO STREAM, its id's milliseconds.",
    _STREAM,
)
CONSUMERS = gauge("redis_stream_group_consumers", "Field consumers of XINFO GROUPS.", _GROUP)
PENDING = gauge("redis_stream_group_messages_pending", "Field pending of XINFO GROUPS.", _GROUP)
LAST_DELIVERED = gauge(
    "redis_stream_group_last_delivered_id",
    "Field last-delivered-id of XINFO GROUPS, its milliseconds.",
    _GROUP,
)
READ = gauge("redis_stream_group_entries_read", "Field entries-read of XINFO GROUPS.", _GROUP)
LAG = gauge(
    "redis_stream_group_lag",
    "Entries not delivered to the group yet, from XINFO STREAM and GROUPS or counted; no sample"
    " where neither tells it exactly.",
    _GROUP,
)
LAG_SECONDS = gauge(
    "redis_stream_group_lag_seconds",
    "Age of the oldest entry not delivered to the group yet, by its id; 0 when there is none.",
    _GROUP,
)
PENDING_AGE = gauge(
    "redis_stream_group_oldest_pending_age_seconds",
    "Age of the oldest entry delivered and not acknowledged (XPENDING), by its id; 0 when there is"
    " none.",
    _GROUP,
)

METRICS: tuple[Metric, ...] = (
    LENGTH,
    GROUPS,
    RADIX_KEYS,
    RADIX_NODES,
    ADDED,
    LAST_GENERATED,
    MAX_DELETED,
    FIRST_ENTRY,
    LAST_ENTRY,
    CONSUMERS,
    PENDING,
    LAST_DELIVERED,
    READ,
    LAG,
    LAG_SECONDS,
    PENDING_AGE,
)


@dataclass(slots=True)
class _Found:
    """A group with what is known of its lag so far."""

    stream: bytes
    group: Group
    lag: int | None
    counting: bool
    head: Id | None

    @property
    def is_open(self) -> bool:
        """Return whether the entries themselves must be looked at."""
        return self.counting or (self.lag != 0 and self.head is None)


class Streams:
    """Reads the streams of `names`; remembers which of them no script may read."""

    def __init__(self, names: Names, clock: Callable[[], float] = monotonic) -> None:
        """Take the names to read, and a clock in seconds."""
        self._names = names
        self._clock = clock
        self._plain: set[bytes] = set()
        self._retry = 0.0

    def read(self, visit: Visit) -> Rounds:
        """Emit all streams and their groups."""
        names = self._names.all()
        if self._plain and self._clock() >= self._retry:
            self._plain.clear()
        scripted = [name for name in names if name not in self._plain]
        states: dict[bytes, Reply] = {}
        batches = _batches(scripted)
        replies = yield [ask_many(batch, visit.version) for batch in batches]
        for batch, reply in zip(batches, replies, strict=True):
            if isinstance(reply, ReplyError):
                # EVAL_RO is not allowed, or not for one of these names.
                self._plain.update(batch)
                self._retry = self._clock() + RETRY
            else:
                states.update(zip(batch, reply, strict=True))
        found = self._streams(visit, states)
        plain = [name for name in names if name in self._plain]
        for batch in _batches(plain):
            # One batch a round: here the payloads of first and last entries come along.
            replies = yield [command for name in batch for command in ask_plainly(name)]
            triples = zip(*[iter(replies)] * 3, strict=True)
            found += self._streams(visit, dict(zip(batch, map(plain_state, triples), strict=True)))
        yield from self._groups(visit, found)

    def _streams(self, visit: Visit, states: dict[bytes, Reply]) -> list[_Found]:
        """Emit the streams among `states`, and return their groups."""
        found: list[_Found] = []
        for name, state in states.items():
            if isinstance(state, list) and not isinstance(state[0], ReplyError):
                stream = parse_stream(state[0])
                _emit_stream(visit, name, stream)
                if isinstance(state[1], ReplyError):
                    visit.refused("XINFO GROUPS", state[1])
                else:
                    found += (
                        _Found(name, group, *judge(stream, group, visit.version))
                        for group in parse_groups(state[1])
                    )
            else:
                self._not_a_stream(visit, name, state)
        return found

    def _not_a_stream(self, visit: Visit, name: bytes, state: Reply) -> None:
        if isinstance(state, list):
            visit.refused("XINFO STREAM", state[0])
        elif isinstance(state, ReplyError):
            visit.refused("TYPE", state)
        elif not self._names.forget(name) and state != b"none":
            visit.unexpected(f"has a {text(state)} named {text(name)!r}, which `streams` asks for")

    def _groups(self, visit: Visit, found: list[_Found]) -> Rounds:
        """Look at the entries where the state is not enough, and emit the groups."""
        waiting = [one for one in found if one.is_open and one.stream not in self._plain]
        pending = [one for one in found if one.group.pending]
        batches = _batches(waiting)
        commands: list[Command] = [
            ask_entries(
                [Question(one.stream, one.group.last_delivered, one.counting) for one in batch],
                visit.version,
            )
            for batch in batches
        ]
        commands += (("XPENDING", one.stream, one.group.name, "-", "+", 1) for one in pending)
        replies = yield commands
        for batch, reply in zip(batches, replies, strict=False):
            _take_entries(visit, batch, reply)
        oldest = dict(zip(map(id, pending), replies[len(batches) :], strict=True))
        for one in found:
            _emit_group(visit, one)
            _emit_pending(visit, one, oldest.get(id(one), []))


def _take_entries(visit: Visit, batch: Sequence[_Found], reply: Reply) -> None:
    if isinstance(reply, ReplyError):
        visit.refused("EVAL_RO", reply)
        return
    for one, answer in zip(batch, reply, strict=True):
        if isinstance(answer, ReplyError):
            visit.refused("XRANGE", answer)
            continue
        counted, head = answer
        one.head = parse_id(head) if head else None
        if counted >= 0:
            one.lag = counted


def _emit_stream(visit: Visit, name: bytes, stream: Stream) -> None:
    labels = (visit.db, text(name))
    for metric, number in (
        (LENGTH, stream.length),
        (GROUPS, stream.groups),
        (RADIX_KEYS, stream.radix_tree_keys),
        (RADIX_NODES, stream.radix_tree_nodes),
        (ADDED, stream.entries_added),
    ):
        if number is not None:
            visit.scrape.emit(metric, number, *labels)
    for metric, entry in (
        (LAST_GENERATED, stream.last_generated),
        (MAX_DELETED, stream.max_deleted),
        (FIRST_ENTRY, stream.first),
        (LAST_ENTRY, stream.last),
    ):
        if entry is not None:
            visit.scrape.emit(metric, entry[0], *labels)
    if stream.entries_added is not None:
        visit.scrape.emit(backlog.PUBLISHED, stream.entries_added, "redis", labels[1], "")


def _emit_group(visit: Visit, one: _Found) -> None:
    group, emit = one.group, visit.scrape.emit
    labels = (visit.db, text(one.stream), text(group.name))
    common = ("redis", *labels[1:])
    emit(CONSUMERS, group.consumers, *labels)
    emit(PENDING, group.pending, *labels)
    emit(LAST_DELIVERED, group.last_delivered[0], *labels)
    emit(backlog.CONSUMERS, group.consumers, *common)
    emit(backlog.IN_FLIGHT, group.pending, *common)
    if group.entries_read is not None:
        emit(READ, group.entries_read, *labels)
    if one.lag is not None:
        emit(LAG, one.lag, *labels)
        emit(backlog.BACKLOG, one.lag, *common)
    seconds = 0.0 if one.lag == 0 else one.head and age_seconds(one.head, visit.now)
    if seconds is not None:
        emit(LAG_SECONDS, seconds, *labels)
        emit(backlog.LAG_SECONDS, seconds, *common)
        emit(backlog.LAG_METHOD, 1, *common, "message_time")


def _emit_pending(visit: Visit, one: _Found, reply: Reply) -> None:
    if isinstance(reply, ReplyError):
        visit.refused("XPENDING", reply)
        return
    seconds = age_seconds(parse_id(reply[0][0]), visit.now) if reply else 0.0
    if seconds is not None:
        labels = (visit.db, text(one.stream), text(one.group.name))
        visit.scrape.emit(PENDING_AGE, seconds, *labels)


def _batches(items: Sequence[_T]) -> list[Sequence[_T]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
