"""Streams: what XINFO STREAM tells of them, window by window; their groups have files of their own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from operator import attrgetter
from time import monotonic
from typing import NamedTuple

from hiredis import ReplyError

from bts_collectors.redis.client.command_support import RETRY, Refusals
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import (
    MISSHAPEN,
    Rounds,
    Visit,
    isolated,
    label,
    text,
    together,
)
from bts_collectors.redis.client.errors import Lost, is_denied, is_passing
from bts_collectors.redis.keyspace.scanner import Names
from bts_collectors.redis.streams import consumers, groups, head_entries, pending
from bts_collectors.redis.streams.columns import Rows
from bts_collectors.redis.streams.context import Reading
from bts_collectors.redis.streams.groups import Known, Standing
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
        self._refusals = Refusals(clock)
        #: Streams that a script may not read, and until when that is believed.
        self._plain: set[bytes] = set()
        self._retry = 0.0
        self._labels: dict[bytes, _Labels] = {}

    def read(self, visit: Visit) -> tuple[Rounds, Rounds]:
        """Return what emits all streams and their groups, in two parts that may take turns."""
        if self._plain and self._clock() >= self._retry:
            self._plain.clear()
        reading = Reading(visit, self._refusals, ticks=self._clock)
        names = self._names.all()
        windows = iter([names[start : start + WINDOW] for start in range(0, len(names), WINDOW)])
        for gone in self._labels.keys() - dict.fromkeys(names):
            del self._labels[gone]
        return self._windows(reading, windows), self._windows(reading, windows)

    def emit_refusals(self, scrape: Scrape) -> None:
        """Emit which commands the server answers, once the streams are read."""
        self._refusals.emit(scrape)

    def _windows(self, reading: Reading, windows: Iterator[Sequence[bytes]]) -> Rounds:
        for names in windows:
            yield from isolated(reading.visit, self._window(reading, names), "streams")

    def _window(self, reading: Reading, names: Sequence[bytes]) -> Rounds:
        """Emit the streams of `names` and their groups."""
        streams: list[tuple[Stream, _Labels]] = []
        found: list[Standing] = []
        states = yield from self._states(reading, names)
        settings = reading.settings()
        for name, state in states.items():
            if isinstance(state, list) and not isinstance(state[0], ReplyError):
                try:
                    stream = parse_stream(state[0])
                except MISSHAPEN as error:
                    reading.visit.misshapen(f"stream {label(name)!r}", error)
                    continue
                if (labels := self._labels.get(name)) is None:
                    labels = self._labels[name] = _labels(reading.visit.db, label(name))
                streams.append((stream, labels))
                found += self._groups(reading, name, *streams[-1], state[1])
            else:
                self._no_stream(reading.visit, name, state)
        for standing in found:
            standing.settings = settings
        _emit(reading, streams)
        groups.emit_states(reading.visit, found)
        waiting = [one for one in found if one.is_open]
        plain = self._plain_among(reading.visit, names)
        if not self._refusals.expects(head_entries.EXCLUSIVE_RANGE):
            plain = dict.fromkeys(names)
        parts = (
            head_entries.by_script(reading, [one for one in waiting if one.name not in plain]),
            head_entries.plainly(reading, [one for one in waiting if one.name in plain]),
            pending.read(reading, found),
            consumers.read(reading, found, self._stale_after, each=self._each_consumer),
        )
        yield from together([isolated(reading.visit, part, "groups") for part in parts])
        groups.emit_lags(reading, found)

    def _states(
        self, reading: Reading, names: Sequence[bytes]
    ) -> Generator[Sequence[Command], list[Reply], dict[bytes, Reply]]:
        """Return the state of every stream that there is an answer for."""
        visit = reading.visit
        states: dict[bytes, Reply] = {}
        left_over: list[bytes] = []  # of scripts that told nothing
        plain = self._plain_among(visit, names)
        #: Streams for the script, with the number of their groups as far as it is known.
        left = {name: self._size(name) for name in names if name not in plain}
        while left:
            left = yield from self._states_by_script(visit, left, states, left_over)
        unread = [name for name in names if name not in states]
        rest = list(dict.fromkeys((*self._plain_among(visit, unread), *left_over)))
        for start in range(0, len(rest), BATCH):
            # One batch a round: here the payloads of first and last entries come along.
            batch = rest[start : start + BATCH]
            replies = yield [command for name in batch for command in ask_plainly(name)]
            for name, triple in zip(batch, zip(*[iter(replies)] * 3, strict=True), strict=True):
                try:
                    states[name] = plain_state(triple)
                except MISSHAPEN as error:
                    reading.visit.misshapen(f"stream {label(name)!r}", error)
        return states

    def _states_by_script(
        self,
        visit: Visit,
        left: dict[bytes, int],
        states: dict[bytes, Reply],
        left_over: list[bytes],
    ) -> Generator[Sequence[Command], list[Reply], dict[bytes, int]]:
        """Add to `states`; return the streams that turned out to have too many groups for their batch."""
        large = [name for name, count in left.items() if count > MOST_GROUPS]
        yield from self._large_states(visit, large, states)
        batches = _light(visit.batches([n for n in left if n not in large], BATCH, _itself), left)
        replies = (yield [self._ask(batch) for batch in batches]) if batches else []
        again: dict[bytes, int] = {}
        for batch, reply in zip(batches, replies, strict=True):
            if isinstance(reply, Lost) and not visit.clustered:
                left_over += batch
            if not self._is_read(visit, batch, reply):
                continue
            for name, state in zip(batch, reply, strict=True):
                if type(state) is list and type(state[1]) is int:
                    again[name] = state[1]
                else:
                    states[name] = state
        return again

    def _large_states(
        self, visit: Visit, names: Sequence[bytes], states: dict[bytes, Reply]
    ) -> Rounds:
        """Add streams with many groups to `states`: the server hands groups over faster than any script."""
        for name in names:
            # One a round, so that other clients have their turn.
            reply, of_groups = yield [self._ask([name], 0), ("XINFO", "GROUPS", name)]
            if self._is_read(visit, [name], reply):
                (state,) = reply
                states[name] = [state[0], plain_groups(of_groups)] if type(state) is list else state

    def _is_read(self, visit: Visit, batch: Sequence[bytes], reply: Reply) -> bool:
        """Return whether the script has read the streams in `batch`; note what it means if not."""
        if isinstance(reply, ReplyError):
            self._refused(visit, batch, reply)
            return False
        if not is_scripts_reply(reply, len(batch)):
            self._refusals.refused(EVALUATE.lower(), ReplyError("odd reply"))
            return False
        self._refusals.answered(EVALUATE.lower())
        return True

    def _ask(self, names: Sequence[bytes], most: int = MOST_GROUPS) -> Command:
        """Return the script's command for some streams that have at most so many groups together."""
        consumers = self._refusals.expects("xinfo|consumers") and not self._each_consumer
        return ask_many(names, self._stale_after, consumers=consumers, groups=most)

    def _size(self, name: bytes) -> int:
        """Return how many groups a stream had last."""
        kept = self._labels.get(name)
        return len(kept.groups) if kept else 0

    def _plain_among(self, visit: Visit, names: Sequence[bytes]) -> dict[bytes, None]:
        """Return the streams, in their order, that no script may read as far as that is known."""
        if not runs_scripts(visit.version) or not self._refusals.expects(EVALUATE.lower()):
            return dict.fromkeys(names)
        return dict.fromkeys(name for name in names if name in self._plain)

    def _refused(self, visit: Visit, batch: Sequence[bytes], reply: ReplyError) -> None:
        """Note that no script may run, or none on one of the streams in `batch`."""
        if is_passing(reply):
            visit.refused(EVALUATE, reply)
        elif is_denied(reply) and "key" in str(reply):
            self._plain.update(batch)
            self._retry = self._clock() + RETRY
        else:  # whatever its words are: plain commands tell the same
            self._refusals.refused(EVALUATE.lower(), reply)

    def _groups(
        self, reading: Reading, name: bytes, stream: Stream, labels: _Labels, reply: Reply
    ) -> list[Standing]:
        """Return what a reply of XINFO GROUPS tells of the groups of `stream`."""
        visit = reading.visit
        if self._names.spelled(name):
            visit.scrape.emit(EXISTS, 1, *labels.own)
        if isinstance(reply, ReplyError):
            visit.refused("XINFO GROUPS", reply)
            return []
        found: list[Standing] = []
        known = labels.groups.copy()
        labels.groups.clear()  # of groups that are gone
        for values in reply:
            try:
                group = parse_group(values)
            except MISSHAPEN as error:
                visit.misshapen(f"a group of {labels.own[-1]!r}", error)
                continue
            kept = known.get(group.name)
            if kept is None:
                kept = Known(groups.Labels.of(*labels.own, label(group.name)), History())
            labels.groups[group.name] = kept
            found.append(Standing(name, stream, group, kept.labels, history=kept.history))
        return found

    def _no_stream(self, visit: Visit, name: bytes, state: Reply) -> None:
        """Note what there is in place of a stream; what is known of one that is gone is forgotten."""
        if type(state) is bytes:
            self._labels.pop(name, None)
        if isinstance(state, list):
            visit.refused("XINFO STREAM", state[0])
        elif isinstance(state, ReplyError):
            visit.refused("TYPE", state)
        elif not self._names.forget(name):
            visit.scrape.emit(EXISTS, 0, visit.db, label(name))
            if state != b"none":
                what = f"has a {text(state)} named {text(name)!r}, which `streams` asks for"
                visit.unexpected(what)


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


def _emit(reading: Reading, found: Sequence[tuple[Stream, _Labels]]) -> None:
    visit, now = reading.visit, reading.clock.now()
    streams = [stream for stream, _ in found]
    own = Rows(visit.scrape, [labels.own for _, labels in found])
    for metric, number in _NUMBERS.items():
        own.emit(metric, map(number, streams))
    for metric, identity in _IDS.items():
        own.emit(metric, [entry and entry[0] for entry in map(identity, streams)])
    last = [stream.last_generated for stream in streams]
    own.emit(LAST_AGE, [entry and age_seconds(entry, now) for entry in last])
    common = Rows(visit.scrape, [labels.common for _, labels in found])
    common.emit(backlog.PUBLISHED, [stream.entries_added for stream in streams])
