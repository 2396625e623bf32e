"""Streams: what XINFO STREAM tells of them, window by window; their groups have files of their own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from operator import attrgetter
from time import monotonic
from typing import NamedTuple

from hiredis import ReplyError

from bts_collectors.redis.client.command_support import RETRY, CommandSupport
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import (
    MISSHAPEN,
    RequestBatches,
    ScrapeContext,
    isolated,
    label,
    text,
    together,
)
from bts_collectors.redis.client.errors import Lost, is_denied, is_passing
from bts_collectors.redis.keyspace.scanner import Names
from bts_collectors.redis.streams import consumers, groups, head_entries, pending
from bts_collectors.redis.streams.columns import Columns
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.groups import GroupState, Known
from bts_collectors.redis.streams.history import History
from bts_collectors.redis.streams.lag import age_seconds
from bts_collectors.redis.streams.state import (
    EVALUATE,
    MOST_GROUPS,
    Id,
    Stream,
    ask_many,
    ask_plainly,
    is_scripts_reply,
    parse_group,
    parse_stream,
    plain_groups,
    plain_state,
    runs_scripts,
)
from bts_exporter import Metric, Scrape, backlog, counter, gauge

#: Streams that one script looks at: 0.25 ms of the server's time where each has two groups.
BATCH = 10
#: Streams that are read together: what is known of them is not kept longer, and the server has
#: time for others in between.
WINDOW = 200

_LABELS = ("db", "stream")

EXISTS = gauge(
    "redis_stream_exists",
    "1 if there is a stream of a name that `streams` spells out, 0 if there is none (TYPE).",
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
    "Time since an entry was added, by field last-generated-id of XINFO STREAM.",
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
    """The label values of a stream and its groups, kept from one collection to the next."""

    own: tuple[str, str]
    common: tuple[str, str, str]
    groups: dict[bytes, Known]


class Streams:
    """Reads the streams of `names`; remembers what the server refused of them."""

    def __init__(
        self,
        names: Names,
        *,
        stale_after: float = 300.0,
        each_consumer: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Take the names to read; `stale_after` is in seconds, and so is the clock."""
        self._names = names
        self._stale_after = stale_after
        self._each_consumer = each_consumer
        self._clock = clock
        self._command_support = CommandSupport(clock)
        #: Streams that a script may not read, and until when that is believed.
        self._plain: set[bytes] = set()
        self._retry = 0.0
        self._labels: dict[bytes, _Labels] = {}

    def read(self, scrape_context: ScrapeContext) -> tuple[RequestBatches, RequestBatches]:
        """Return what emits all streams and their groups, in two parts that may take turns."""
        if self._plain and self._clock() >= self._retry:
            self._plain.clear()
        context = StreamContext(scrape_context, self._command_support, ticks=self._clock)
        names = self._names.all()
        windows = iter([names[start : start + WINDOW] for start in range(0, len(names), WINDOW)])
        for gone in self._labels.keys() - dict.fromkeys(names):
            del self._labels[gone]
        return self._windows(context, windows), self._windows(context, windows)

    def emit_command_support(self, scrape: Scrape) -> None:
        """Emit which commands the server answers, once the streams are read."""
        self._command_support.emit(scrape)

    def _windows(
        self, context: StreamContext, windows: Iterator[Sequence[bytes]]
    ) -> RequestBatches:
        for names in windows:
            yield from isolated(context.scrape_context, self._window(context, names), "streams")

    def _window(self, context: StreamContext, names: Sequence[bytes]) -> RequestBatches:
        """Emit the streams of `names` and their groups."""
        streams: list[tuple[Stream, _Labels]] = []
        found: list[GroupState] = []
        states = yield from self._states(context, names)
        settings = context.settings()
        for name, state in states.items():
            if isinstance(state, list) and not isinstance(state[0], ReplyError):
                try:
                    stream = parse_stream(state[0])
                except MISSHAPEN as error:
                    context.scrape_context.misshapen(f"stream {label(name)!r}", error)
                    continue
                if (labels := self._labels.get(name)) is None:
                    labels = self._labels[name] = _labels(context.scrape_context.db, label(name))
                streams.append((stream, labels))
                found += self._groups(context, name, *streams[-1], state[1])
            else:
                self._no_stream(context.scrape_context, name, state)
        for group_state in found:
            group_state.settings = settings
        _emit(context, streams)
        groups.emit_states(context.scrape_context, found)
        waiting = [group_state for group_state in found if group_state.is_open]
        plain = self._plain_among(context.scrape_context, names)
        if not self._command_support.expects(head_entries.EXCLUSIVE_RANGE):
            plain = dict.fromkeys(names)
        parts = (
            head_entries.by_script(
                context, [group_state for group_state in waiting if group_state.name not in plain]
            ),
            head_entries.plainly(
                context, [group_state for group_state in waiting if group_state.name in plain]
            ),
            pending.read(context, found),
            consumers.read(context, found, self._stale_after, each=self._each_consumer),
        )
        yield from together([isolated(context.scrape_context, part, "groups") for part in parts])
        groups.emit_lags(context, found)

    def _states(
        self, context: StreamContext, names: Sequence[bytes]
    ) -> Generator[Sequence[Command], list[Reply], dict[bytes, Reply]]:
        """Return the state of every stream that there is an answer for."""
        scrape_context = context.scrape_context
        states: dict[bytes, Reply] = {}
        left_over: list[bytes] = []  # of scripts that told nothing
        plain = self._plain_among(scrape_context, names)
        #: Streams for the script, with the number of their groups as far as it is known.
        left = {name: self._size(name) for name in names if name not in plain}
        while left:
            left = yield from self._states_by_script(scrape_context, left, states, left_over)
        unread = [name for name in names if name not in states]
        rest = list(dict.fromkeys((*self._plain_among(scrape_context, unread), *left_over)))
        for start in range(0, len(rest), BATCH):
            # One batch a round: here the payloads of first and last entries come along.
            batch = rest[start : start + BATCH]
            replies = yield [command for name in batch for command in ask_plainly(name)]
            for name, triple in zip(batch, zip(*[iter(replies)] * 3, strict=True), strict=True):
                try:
                    states[name] = plain_state(triple)
                except MISSHAPEN as error:
                    context.scrape_context.misshapen(f"stream {label(name)!r}", error)
        return states

    def _states_by_script(
        self,
        scrape_context: ScrapeContext,
        left: dict[bytes, int],
        states: dict[bytes, Reply],
        left_over: list[bytes],
    ) -> Generator[Sequence[Command], list[Reply], dict[bytes, int]]:
        """Add to `states`; return the streams that turned out to have too many groups for their batch."""
        large = [name for name, count in left.items() if count > MOST_GROUPS]
        yield from self._large_states(scrape_context, large, states)
        batches = _light(
            scrape_context.batches([n for n in left if n not in large], BATCH, _itself), left
        )
        replies = (yield [self._ask(batch) for batch in batches]) if batches else []
        again: dict[bytes, int] = {}
        for batch, reply in zip(batches, replies, strict=True):
            if isinstance(reply, Lost) and not scrape_context.clustered:
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
        """Add streams with many groups to `states`: the server hands groups over faster than any script."""
        for name in names:
            # One a round, so that other clients have their turn.
            reply, of_groups = yield [self._ask([name], 0), ("XINFO", "GROUPS", name)]
            if self._is_read(scrape_context, [name], reply):
                (state,) = reply
                states[name] = [state[0], plain_groups(of_groups)] if type(state) is list else state

    def _is_read(self, scrape_context: ScrapeContext, batch: Sequence[bytes], reply: Reply) -> bool:
        """Return whether the script has read the streams in `batch`; note what it means if not."""
        if isinstance(reply, ReplyError):
            self._refused(scrape_context, batch, reply)
            return False
        if not is_scripts_reply(reply, len(batch)):
            self._command_support.refused(EVALUATE.lower(), ReplyError("odd reply"))
            return False
        self._command_support.answered(EVALUATE.lower())
        return True

    def _ask(self, names: Sequence[bytes], most: int = MOST_GROUPS) -> Command:
        """Return the script's command for some streams that have at most so many groups together."""
        consumers = self._command_support.expects("xinfo|consumers") and not self._each_consumer
        return ask_many(names, self._stale_after, consumers=consumers, groups=most)

    def _size(self, name: bytes) -> int:
        """Return how many groups a stream had last."""
        kept = self._labels.get(name)
        return len(kept.groups) if kept else 0

    def _plain_among(
        self, scrape_context: ScrapeContext, names: Sequence[bytes]
    ) -> dict[bytes, None]:
        """Return the streams, in their order, that no script may read as far as that is known."""
        if not runs_scripts(scrape_context.version) or not self._command_support.expects(
            EVALUATE.lower()
        ):
            return dict.fromkeys(names)
        return dict.fromkeys(name for name in names if name in self._plain)

    def _refused(
        self, scrape_context: ScrapeContext, batch: Sequence[bytes], reply: ReplyError
    ) -> None:
        """Note that no script may run, or none on one of the streams in `batch`."""
        if is_passing(reply):
            scrape_context.refused(EVALUATE, reply)
        elif is_denied(reply) and "key" in str(reply):
            self._plain.update(batch)
            self._retry = self._clock() + RETRY
        else:  # whatever its words are: plain commands tell the same
            self._command_support.refused(EVALUATE.lower(), reply)

    def _groups(
        self, context: StreamContext, name: bytes, stream: Stream, labels: _Labels, reply: Reply
    ) -> list[GroupState]:
        """Return what a reply of XINFO GROUPS tells of the groups of `stream`."""
        scrape_context = context.scrape_context
        if self._names.spelled(name):
            scrape_context.scrape.put(EXISTS, labels.own, 1)
        if isinstance(reply, ReplyError):
            scrape_context.refused("XINFO GROUPS", reply)
            return []
        found: list[GroupState] = []
        known = labels.groups.copy()
        labels.groups.clear()  # of groups that are gone
        for values in reply:
            try:
                group = parse_group(values)
            except MISSHAPEN as error:
                scrape_context.misshapen(f"a group of {labels.own[-1]!r}", error)
                continue
            kept = known.get(group.name)
            if kept is None:
                kept = Known(groups.Labels.of(*labels.own, label(group.name)), History())
            labels.groups[group.name] = kept
            found.append(GroupState(name, stream, group, kept.labels, history=kept.history))
        return found

    def _no_stream(self, scrape_context: ScrapeContext, name: bytes, state: Reply) -> None:
        """Note what there is in place of a stream; what is known of one that is gone is forgotten."""
        if type(state) is bytes:
            self._labels.pop(name, None)
        if isinstance(state, list):
            scrape_context.refused("XINFO STREAM", state[0])
        elif isinstance(state, ReplyError):
            scrape_context.refused("TYPE", state)
        elif not self._names.forget(name):
            scrape_context.scrape.put(EXISTS, (scrape_context.db, label(name)), 0)
            if state != b"none":
                what = f"has a {text(state)} named {text(name)!r}, which `streams` asks for"
                scrape_context.unexpected(what)


def _labels(db: str, stream: str) -> _Labels:
    return _Labels((db, stream), ("redis", stream, ""), {})


def _itself(name: bytes) -> bytes:
    return name


def _light(batches: Sequence[Sequence[bytes]], sizes: dict[bytes, int]) -> list[Sequence[bytes]]:
    """Return `batches`, those split whose streams have too many groups together for one script."""
    light: list[Sequence[bytes]] = []
    for batch in batches:
        start, room = 0, MOST_GROUPS
        for place, name in enumerate(batch):
            if sizes[name] > room:
                light.append(batch[start:place])
                start, room = place, MOST_GROUPS
            room -= sizes[name]
        light.append(batch[start:])
    return light


def _emit(context: StreamContext, found: Sequence[tuple[Stream, _Labels]]) -> None:
    scrape_context, now = context.scrape_context, context.clock.now()
    streams = [stream for stream, _ in found]
    own = Columns(scrape_context.scrape, [labels.own for _, labels in found])
    for metric, number in _NUMBERS.items():
        own.emit(metric, map(number, streams))
    for metric, identity in _IDS.items():
        own.emit(metric, [entry and entry[0] for entry in map(identity, streams)])
    last = [stream.last_generated for stream in streams]
    own.emit(LAST_AGE, [entry and age_seconds(entry, now) for entry in last])
    common = Columns(scrape_context.scrape, [labels.common for _, labels in found])
    common.emit(backlog.PUBLISHED, [stream.entries_added for stream in streams])
