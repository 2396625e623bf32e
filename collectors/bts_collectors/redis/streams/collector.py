"""Streams: the fields of XINFO STREAM, and the readers of their groups."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from operator import attrgetter
from time import monotonic
from typing import NamedTuple

from hiredis import ReplyError

from bts_collectors.redis.client.batching import RequestBatches, together
from bts_collectors.redis.client.command_support import RETRY_SECONDS, CommandSupport
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.client.errors import NoReplyError, ReplyShapeError, is_denied, is_passing
from bts_collectors.redis.client.labels import label, text
from bts_collectors.redis.client.scripts import EVALUATE, runs_scripts
from bts_collectors.redis.keyspace.scanner import Names
from bts_collectors.redis.streams import consumers, groups, head_entries, pending
from bts_collectors.redis.streams.columns import Columns
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.groups import GroupState, Known
from bts_collectors.redis.streams.history import History
from bts_collectors.redis.streams.lag import age_seconds
from bts_collectors.redis.streams.state import (
    MOST_GROUPS,
    Id,
    Stream,
    is_scripts_reply,
    parse_group,
    parse_stream,
    plain_commands,
    plain_groups,
    plain_state,
    state_command,
)
from bts_exporter import Metric, Scrape, backlog, counter, gauge

#: Streams that one script reads: 0.25 ms of the server's time if each has two groups.
BATCH = 10
#: Streams that are read together. It limits the memory for their state, and other clients of the server
#: are served in between.
WINDOW = 200

_LABELS = ("db", "stream")

EXISTS = gauge(
    "redis_stream_exists",
    "1 if a stream that `streams` names exists, else 0 (TYPE).",
    _LABELS,
)
LENGTH = gauge("redis_stream_length", "Field length of XINFO STREAM.", _LABELS)
GROUPS = gauge("redis_stream_groups", "Field groups of XINFO STREAM.", _LABELS)
RADIX_KEYS = gauge(
    "redis_stream_radix_tree_keys", "Field radix-tree-keys of XINFO STREAM.", _LABELS
)
RADIX_NODES = gauge(
    "redis_stream_radix_tree_nodes", "Field radix-tree-nodes of XINFO STREAM.", _LABELS
)
ADDED = counter("redis_stream_entries_added_total", "Field entries-added of XINFO STREAM.", _LABELS)
LAST_GENERATED = gauge(
    "redis_stream_last_generated_id",
    "Field last-generated-id of XINFO STREAM, its milliseconds.",
    _LABELS,
)
MAX_DELETED = gauge(
    "redis_stream_max_deleted_entry_id",
    "Field max-deleted-entry-id of XINFO STREAM, its milliseconds.",
    _LABELS,
)
FIRST_ENTRY = gauge(
    "redis_stream_first_entry_id",
    "Field first-entry of XINFO STREAM, its id's milliseconds.",
    _LABELS,
)
LAST_ENTRY = gauge(
    "redis_stream_last_entry_id",
    "Field last-entry of XINFO STREAM, its id's milliseconds.",
    _LABELS,
)
LAST_AGE = gauge(
    "redis_stream_last_entry_age_seconds",
    "Time since the latest entry was added, by field last-generated-id of XINFO STREAM.",
    _LABELS,
)

METRICS: tuple[object, ...] = (
    EXISTS,
    LENGTH,
    GROUPS,
    RADIX_KEYS,
    RADIX_NODES,
    ADDED,
    LAST_GENERATED,
    MAX_DELETED,
    FIRST_ENTRY,
    LAST_ENTRY,
    LAST_AGE,
    groups.METRICS,
    pending.METRICS,
    consumers.METRICS,
)


_NUMBERS: dict[Metric, Callable[[Stream], int | None]] = {
    LENGTH: attrgetter("length"),
    GROUPS: attrgetter("groups"),
    RADIX_KEYS: attrgetter("radix_tree_keys"),
    RADIX_NODES: attrgetter("radix_tree_nodes"),
    ADDED: attrgetter("entries_added"),
}
_IDS: dict[Metric, Callable[[Stream], Id | None]] = {
    LAST_GENERATED: attrgetter("last_generated"),
    MAX_DELETED: attrgetter("max_deleted"),
    FIRST_ENTRY: attrgetter("first"),
    LAST_ENTRY: attrgetter("last"),
}


class _Labels(NamedTuple):
    """The label values of a stream, and its groups, kept between scrapes."""

    own: tuple[str, str]
    common: tuple[str, str, str]
    groups: dict[bytes, Known]


class Streams:
    """Reads the streams of `names`, and remembers which commands the server refused."""

    def __init__(
        self,
        names: Names,
        *,
        stale_after: float = 300.0,
        each_consumer: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Take the names to read. `stale_after` and the clock (monotonic) are in seconds."""
        self._names = names
        self._stale_after = stale_after
        self._each_consumer = each_consumer
        self._clock = clock
        self._command_support = CommandSupport(clock)
        #: Streams that a script may not read, and when to try again.
        self._plain: set[bytes] = set()
        self._retry = 0.0
        self._labels: dict[bytes, _Labels] = {}

    def read(self, scrape_context: ScrapeContext) -> tuple[RequestBatches, RequestBatches]:
        """Return two readers that emit all streams and their groups; they may take turns."""
        if self._plain and self._clock() >= self._retry:
            self._plain.clear()
        context = StreamContext(scrape_context, self._command_support, ticks=self._clock)
        names = self._names.all()
        windows = iter([names[start : start + WINDOW] for start in range(0, len(names), WINDOW)])
        for gone in self._labels.keys() - dict.fromkeys(names):
            del self._labels[gone]
        return self._windows(context, windows), self._windows(context, windows)

    def emit_command_support(self, scrape: Scrape) -> None:
        """Emit which commands the server answers, after the streams were read."""
        self._command_support.emit(scrape)

    def _windows(
        self, context: StreamContext, windows: Iterator[Sequence[bytes]]
    ) -> RequestBatches:
        for names in windows:
            yield from self._window(context, names)

    def _window(self, context: StreamContext, names: Sequence[bytes]) -> RequestBatches:
        """Emit the streams of `names` and their groups."""
        scrape_context = context.scrape_context
        streams: list[tuple[Stream, _Labels]] = []
        group_states: list[GroupState] = []
        replies = yield from self._states(context, names)
        settings = context.settings()
        for name, reply in replies.items():
            if not isinstance(reply, list) or isinstance(reply[0], ReplyError):
                self._no_stream(scrape_context, name, reply)
                continue
            try:
                stream = parse_stream(reply[0])
            except ReplyShapeError as error:
                _unexpected_reply(scrape_context, name, error)
                continue
            if (labels := self._labels.get(name)) is None:
                labels = self._labels[name] = _labels(scrape_context.db, label(name))
            streams.append((stream, labels))
            group_states += self._groups(scrape_context, name, *streams[-1], reply[1])
        for group_state in group_states:
            group_state.settings = settings
        _emit(context, streams)
        groups.emit_states(scrape_context, group_states)
        yield from together(self._group_readers(context, names, group_states))
        groups.emit_lags(context, group_states)

    def _group_readers(
        self, context: StreamContext, names: Sequence[bytes], group_states: Sequence[GroupState]
    ) -> Sequence[RequestBatches]:
        """Return what reads the entries, pending entries and consumers of groups."""
        is_open = [state for state in group_states if state.is_open]
        plain = self._plain_among(context.scrape_context, names)
        if not self._command_support.expects(head_entries.EXCLUSIVE_RANGE):
            plain = dict.fromkeys(names)
        return (
            head_entries.by_script(
                context, [state for state in is_open if state.name not in plain]
            ),
            head_entries.plainly(context, [state for state in is_open if state.name in plain]),
            pending.read(context, group_states),
            consumers.read(context, group_states, self._stale_after, each=self._each_consumer),
        )

    def _states(
        self, context: StreamContext, names: Sequence[bytes]
    ) -> Generator[Sequence[Command], list[Reply], dict[bytes, Reply]]:
        """Return the state of every stream for which there is a reply."""
        scrape_context = context.scrape_context
        states: dict[bytes, Reply] = {}
        left_over: list[bytes] = []  # of scripts that were lost
        plain = self._plain_among(scrape_context, names)
        #: Streams for the script, with the number of their groups as far as it is known.
        left = {name: self._size(name) for name in names if name not in plain}
        while left:
            left = yield from self._states_by_script(scrape_context, left, states, left_over)
        unread = [name for name in names if name not in states]
        rest = list(dict.fromkeys((*self._plain_among(scrape_context, unread), *left_over)))
        for start in range(0, len(rest), BATCH):
            # One batch per round trip: these replies include the payloads of first and last entries.
            batch = rest[start : start + BATCH]
            replies = yield [command for name in batch for command in plain_commands(name)]
            for name, triple in zip(batch, zip(*[iter(replies)] * 3, strict=True), strict=True):
                try:
                    states[name] = plain_state(triple)
                except ReplyShapeError as error:
                    _unexpected_reply(scrape_context, name, error)
        return states

    def _states_by_script(
        self,
        scrape_context: ScrapeContext,
        left: dict[bytes, int],
        states: dict[bytes, Reply],
        left_over: list[bytes],
    ) -> Generator[Sequence[Command], list[Reply], dict[bytes, int]]:
        """Add to `states`; return the streams whose batch had too many groups for one script."""
        large = [name for name, count in left.items() if count > MOST_GROUPS]
        yield from self._large_states(scrape_context, large, states)
        small = [name for name in left if name not in large]
        batches = _split(scrape_context.batches(small, BATCH, _itself), left)
        replies = (yield [self._script_command(batch) for batch in batches]) if batches else []
        again: dict[bytes, int] = {}
        for batch, reply in zip(batches, replies, strict=True):
            if isinstance(reply, NoReplyError) and not scrape_context.clustered:
                left_over += batch
            if not self._is_read(scrape_context, batch, reply):
                continue
            for name, state in zip(batch, reply, strict=True):
                if type(state) is list and type(state[1]) is int:
                    again[name] = state[1]
                else:
                    states[name] = state
        return again

    def _large_states(
        self, scrape_context: ScrapeContext, names: Sequence[bytes], states: dict[bytes, Reply]
    ) -> RequestBatches:
        """Add streams with many groups to `states`: for them plain XINFO GROUPS is faster than a script."""
        for name in names:
            # One stream per round trip: other clients of the server are served in between.
            reply, of_groups = yield [self._script_command([name], 0), ("XINFO", "GROUPS", name)]
            if not self._is_read(scrape_context, [name], reply):
                continue
            (state,) = reply
            try:
                states[name] = [state[0], plain_groups(of_groups)] if type(state) is list else state
            except ReplyShapeError as error:
                _unexpected_reply(scrape_context, name, error)

    def _is_read(self, scrape_context: ScrapeContext, batch: Sequence[bytes], reply: Reply) -> bool:
        """Return whether the script read the streams in `batch`; note why if it did not."""
        if isinstance(reply, ReplyError):
            self._refused(scrape_context, batch, reply)
            return False
        if not is_scripts_reply(reply, len(batch)):
            self._command_support.refused(EVALUATE.lower(), ReplyError("odd reply"))
            return False
        self._command_support.answered(EVALUATE.lower())
        return True

    def _script_command(self, names: Sequence[bytes], most: int = MOST_GROUPS) -> Command:
        """Return the script's command for streams with at most `most` groups together."""
        consumers = self._command_support.expects("xinfo|consumers") and not self._each_consumer
        return state_command(names, self._stale_after, consumers=consumers, groups=most)

    def _size(self, name: bytes) -> int:
        """Return how many groups a stream had in the previous scrape."""
        kept = self._labels.get(name)
        return len(kept.groups) if kept else 0

    def _plain_among(
        self, scrape_context: ScrapeContext, names: Sequence[bytes]
    ) -> dict[bytes, None]:
        """Return the streams, in order, that a script may not read, as far as it is known."""
        if not runs_scripts(scrape_context.version) or not self._command_support.expects(
            EVALUATE.lower()
        ):
            return dict.fromkeys(names)
        return dict.fromkeys(name for name in names if name in self._plain)

    def _refused(
        self, scrape_context: ScrapeContext, batch: Sequence[bytes], reply: ReplyError
    ) -> None:
        """Note that scripts are not allowed, or not allowed to read one of the streams in `batch`."""
        if is_passing(reply):
            scrape_context.refused(EVALUATE, reply)
        elif is_denied(reply) and "key" in str(reply):
            self._plain.update(batch)
            self._retry = self._clock() + RETRY_SECONDS
        else:  # whatever the reason is: plain commands return the same
            self._command_support.refused(EVALUATE.lower(), reply)

    def _groups(
        self,
        scrape_context: ScrapeContext,
        name: bytes,
        stream: Stream,
        labels: _Labels,
        reply: Reply,
    ) -> list[GroupState]:
        """Return the groups of `stream` in a reply of XINFO GROUPS."""
        if self._names.is_listed(name):
            scrape_context.scrape.emit(EXISTS, 1, *labels.own)
        if isinstance(reply, ReplyError):
            scrape_context.refused("XINFO GROUPS", reply)
            return []
        group_states: list[GroupState] = []
        known = labels.groups.copy()
        labels.groups.clear()  # forgets deleted groups
        for values in reply:
            try:
                group = parse_group(values)
            except ReplyShapeError as error:
                scrape_context.unexpected_reply(f"a group of stream {labels.own[-1]!r}", error)
                continue
            kept = known.get(group.name)
            if kept is None:
                kept = Known(groups.Labels.of(*labels.own, label(group.name)), History())
            labels.groups[group.name] = kept
            group_states.append(GroupState(name, stream, group, kept.labels, history=kept.history))
        return group_states

    def _no_stream(self, scrape_context: ScrapeContext, name: bytes, state: Reply) -> None:
        """Note the reply for a key that is not a stream; forget the groups of a deleted stream."""
        if type(state) is bytes:
            self._labels.pop(name, None)
        if isinstance(state, list):
            scrape_context.refused("XINFO STREAM", state[0])
        elif isinstance(state, ReplyError):
            scrape_context.refused("TYPE", state)
        elif not self._names.forget(name):
            scrape_context.scrape.emit(EXISTS, 0, scrape_context.db, label(name))
            if state != b"none":
                what = f"has a {text(state)} named {text(name)!r}, but `streams` needs a stream"
                scrape_context.unexpected(what)


def _labels(db: str, stream: str) -> _Labels:
    return _Labels((db, stream), ("redis", stream, ""), {})


def _itself(name: bytes) -> bytes:
    return name


def _unexpected_reply(scrape_context: ScrapeContext, name: bytes, error: ReplyShapeError) -> None:
    scrape_context.unexpected_reply(f"stream {label(name)!r}", error)


def _split(batches: Sequence[Sequence[bytes]], sizes: dict[bytes, int]) -> list[Sequence[bytes]]:
    """Return `batches`, split where their streams have too many groups for one script."""
    parts: list[Sequence[bytes]] = []
    for batch in batches:
        start, room = 0, MOST_GROUPS
        for position, name in enumerate(batch):
            if sizes[name] > room:
                parts.append(batch[start:position])
                start, room = position, MOST_GROUPS
            room -= sizes[name]
        parts.append(batch[start:])
    return parts


def _emit(context: StreamContext, streams: Sequence[tuple[Stream, _Labels]]) -> None:
    scrape_context, now = context.scrape_context, context.clock.now()
    states = [stream for stream, _ in streams]
    own = Columns(scrape_context.scrape, [labels.own for _, labels in streams])
    for metric, number in _NUMBERS.items():
        own.emit(metric, map(number, states))
    for metric, identity in _IDS.items():
        own.emit(metric, [entry and entry[0] for entry in map(identity, states)])
    last = [stream.last_generated for stream in states]
    own.emit(LAST_AGE, [entry and age_seconds(entry, now) for entry in last])
    common = Columns(scrape_context.scrape, [labels.common for _, labels in streams])
    common.emit(backlog.PUBLISHED, [stream.entries_added for stream in states])
