"""Queues of job libraries, and plain keys that are queues: their length and their oldest message."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import isfinite
from time import monotonic
from typing import NamedTuple

import msgspec
from hiredis import ReplyError

from bts_collectors.redis.client.batching import RequestBatches, together
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import ScrapeContext, ServerClock
from bts_collectors.redis.client.labels import label
from bts_collectors.redis.keyspace import globs
from bts_collectors.redis.keyspace.scanner import MOST_NAMES, Names
from bts_collectors.redis.lists.ages import ListAges, WaitingList, oldest
from bts_collectors.redis.lists.list_age import ListState
from bts_collectors.redis.queues.arq import Arq
from bts_collectors.redis.queues.bullmq import BullMQ
from bts_collectors.redis.queues.celery import Celery
from bts_collectors.redis.queues.config import LibrarySettings, QueueSettings
from bts_collectors.redis.queues.dramatiq import Dramatiq
from bts_collectors.redis.queues.history import QueueHistory
from bts_collectors.redis.queues.huey import Huey
from bts_collectors.redis.queues.queue_library import (
    Depth,
    Lists,
    QueueLibrary,
    Sets,
    SortedSets,
    total,
)
from bts_collectors.redis.queues.rq import Rq
from bts_collectors.redis.queues.sidekiq import Sidekiq
from bts_collectors.redis.streams.lag import age_seconds
from bts_exporter import Match, Metric, Restored, Scrape, backlog, gauge

#: Queues that are read together. Some libraries need a whole message to know its age.
BATCH = 100
#: Lists whose history is stored for a restart of the exporter.
MOST_STORED = 2000

#: Commands that return a number, and commands that return a list of strings. All others return a string
#: or nil.
_COUNTS = frozenset({"EXISTS", "HLEN", "LLEN", "SCARD", "ZCARD", "ZCOUNT"})
_LISTS = frozenset({"SMEMBERS", "ZRANGE"})
_LIBRARIES = (Celery, Rq, Sidekiq, BullMQ, Dramatiq, Arq, Huey)
_PLAIN = {"lists": Lists, "sets": Sets, "zsets": SortedSets}

MESSAGES = gauge(
    "redis_queue_messages",
    "Messages or jobs of a queue by state: LLEN, ZCARD, SCARD, HLEN of the library's keys; an empty"
    " label queue means all queues together.",
    ("library", "db", "queue", "state"),
)
OLDEST = gauge(
    "redis_queue_oldest_age_seconds",
    "Age of the next message, by the time that the library wrote into it; if that is not plausible, the"
    " time since the message was first seen; of lists without such times, from when their elements were"
    " first seen; 0 if the queue is empty.",
    ("library", "db", "queue"),
)
OLDEST_ACTIVE = gauge(
    "redis_queue_oldest_active_age_seconds",
    "Time since the oldest unacknowledged message was delivered to a worker (`unacked_index` of Celery);"
    " 0 without such messages.",
    ("library", "db"),
)
METRICS: tuple[Metric, ...] = (MESSAGES, OLDEST, OLDEST_ACTIVE)


class _Queue(NamedTuple):
    """A queue to read."""

    library: QueueLibrary
    name: bytes
    #: Whether this is the first setting with this key, which emits the backlog metrics.
    is_first: bool
    history: QueueHistory


class StoredList(msgspec.Struct, frozen=True):
    """A list of a queue as it is stored."""

    library: str
    queue: bytes
    key: bytes
    state: ListState


class QueuesState(msgspec.Struct, frozen=True):
    """What is stored of all queues."""

    #: The process of the server, and how often elements were removed.
    removals: tuple[str, int] | None
    lists: list[StoredList]


class Queues:
    """Reads the queues that the settings want."""

    def __init__(self, settings: QueueSettings, clock: Callable[[], float] = monotonic) -> None:
        """Take the settings, and a monotonic clock in seconds."""
        self._clock = clock
        self._histories: dict[tuple[str, bytes], QueueHistory] = {}
        self._libraries: list[QueueLibrary] = []
        #: The names to find in the key space, by setting.
        self.names: dict[str, Names] = {}
        #: Settings whose library has registered more queues than are read.
        self.truncated: set[str] = set()
        self._read_last: dict[QueueLibrary, list[bytes]] = {}
        self._ages = ListAges(clock)
        #: Lists from before a restart, and what to add to their times; until they are read.
        self._stored: dict[tuple[str, bytes, bytes], tuple[ListState, float]] = {}
        for setting, kind, wanted in _chosen(settings):
            library = kind(wanted)
            self._libraries.append(library)
            self.names[f"queues.{setting}"] = library.key_names

    @property
    def are_configured(self) -> bool:
        """Return whether the settings want any queues."""
        return bool(self._libraries)

    def save(self) -> QueuesState:
        """Return what `restore` needs, of at most MOST_STORED lists; the longest ones first."""
        found = [
            (library, queue, key, each)
            for (library, queue), history in self._histories.items()
            for key, each in history.lists.items()
        ]
        found.sort(key=lambda names: -names[-1].length)
        states = (
            StoredList(library, queue, key, state)
            for library, queue, key, each in found
            if (state := each.save()) is not None
        )
        return QueuesState(self._ages.removals, list(islice(states, MOST_STORED)))

    def restore(self, stored: Restored) -> None:
        """Take what was stored before a restart of the exporter."""
        self._ages.restore(stored.state.removals)
        for each in stored.state.lists:
            self._stored[each.library, each.queue, each.key] = each.state, stored.shift

    def matches(self) -> Iterator[Match]:
        """Yield how many queues of the last collection each pattern in the settings matches."""
        for (setting, names), library in zip(self.names.items(), self._libraries, strict=True):
            complete = not (names.truncated or setting in self.truncated)
            for pattern in library.patterns:
                is_match = globs.compiled([pattern.encode()]).fullmatch
                count = sum(map(bool, map(is_match, self._read_last.get(library, ()))))
                yield Match(setting, pattern, count, "queues", complete=complete)

    def read(self, context: ScrapeContext) -> RequestBatches:
        """Emit all queues."""
        if context.now is None and any(library.needs_time for library in self._libraries):
            yield ()  # INFO, which has the server's clock, comes with this round trip
        members: dict[QueueLibrary, Sequence[bytes]] = {}
        registering = [library for library in self._libraries if library.registered]
        if registering:
            replies = yield [("SMEMBERS", library.registered) for library in registering]
            self.truncated.clear()
            for library, reply in zip(registering, replies, strict=True):
                if isinstance(reply, ReplyError):
                    context.refused("SMEMBERS", reply, library.registered)
                elif not _is_sound("SMEMBERS", reply):
                    context.unexpected("sent an unexpected reply to SMEMBERS")
                else:
                    members[library] = sorted(reply)[:MOST_NAMES]
                    if len(reply) > MOST_NAMES:
                        self.truncated.add(f"queues.{library.label}")
        clock = ServerClock(context, self._clock)
        queues = list(self._queues(members))
        first = [_read_rest(context, library) for library in self._libraries]
        for start in range(0, len(queues), BATCH) or (0,):
            depths: list[tuple[_Queue, Depth]] = []
            batch = queues[start : start + BATCH]
            yield from together([*first, *(_read(context, each, clock, depths) for each in batch)])
            if first:
                self._ages.begin(context)  # INFO came with this round trip, or before
                first = []
            yield from self._emit(context, depths, clock)
        self._ages.end()

    def _emit(
        self, context: ScrapeContext, depths: Sequence[tuple[_Queue, Depth]], clock: ServerClock
    ) -> RequestBatches:
        """Emit queues, after reading the ages of those in lists whose messages have no time."""
        lists = {queue: _lists(queue, depth, self._stored) for queue, depth in depths}
        ages = yield from self._ages.read(
            context, [each for some in lists.values() for each in some]
        )
        remaining = iter(ages)
        for queue, depth in depths:
            found = oldest(list(islice(remaining, len(lists[queue])))) if lists[queue] else None
            _emit(context, queue, depth, found, clock)

    def emit_command_support(self, scrape: Scrape) -> None:
        """Emit which commands for lists the server answers."""
        self._ages.emit_command_support(scrape)

    def _queues(self, members: dict[QueueLibrary, Sequence[bytes]]) -> Iterator[_Queue]:
        unlisted = {
            library.label
            for library in self._libraries
            if library.registered and library not in members
        }
        before = self._histories
        self._histories = {}
        emitted: set[bytes] = set()
        for library in self._libraries:
            names = self._read_last[library] = library.queues(members.get(library, ()))
            for name in names:
                key = (library.label, name)
                # A list that became a sorted set belongs to both settings for a while.
                if key not in self._histories:
                    history = self._histories[key] = before.get(key) or QueueHistory()
                    yield _Queue(library, name, library.destination(name) not in emitted, history)
                    emitted.add(library.destination(name))
        for key, history in before.items():
            if key[0] in unlisted:  # the queue may still exist, and is not new then
                self._histories.setdefault(key, history)


def _chosen(settings: QueueSettings) -> Iterator[tuple[str, type[QueueLibrary], LibrarySettings]]:
    """Yield the enabled settings; libraries first, since they have more metrics for a key."""
    for library in _LIBRARIES:
        wanted: LibrarySettings = getattr(settings, library.label)
        if wanted.on:
            yield library.label, library, wanted
    for setting, wanted in settings.plain().items():
        if wanted.names:
            yield setting, _PLAIN[setting], wanted


def _read(
    context: ScrapeContext,
    queue: _Queue,
    clock: ServerClock,
    depths: list[tuple[_Queue, Depth]],
) -> RequestBatches:
    """Add the queue and its depth to `depths`."""
    reader = queue.library.read_depth(queue.name, clock.now())
    try:
        commands = next(reader)
        while True:
            replies = yield commands
            pairs = zip(commands, replies, strict=True)
            commands = reader.send([_known(context, queue, *pair) for pair in pairs])
    except StopIteration as end:
        depths.append((queue, end.value))


def _lists(
    queue: _Queue, depth: Depth, stored: dict[tuple[str, bytes, bytes], tuple[ListState, float]]
) -> list[WaitingList]:
    """Return the lists of a queue whose messages have no time; take `stored` ones."""
    histories = queue.history.lists
    known = [(key, length) for key, length in depth.lists if length is not None]
    if len(known) < len(depth.lists):  # refused in this scrape
        for history in histories.values():
            history.miss()
        return []
    if depth.timed and depth.oldest is not None:
        known = []
    queue.history.lists = {
        key: histories.get(key) or queue.library.list_age(key) for key, _ in known
    }
    for key, history in queue.history.lists.items():
        if found := stored.pop((queue.library.label, queue.name, key), None):
            history.restore(*found)
    return [WaitingList(key, queue.history.lists[key], length) for key, length in known]


def _known(context: ScrapeContext, queue: _Queue, command: Command, reply: Reply) -> Reply:
    """Return a reply, None for a refused or odd one."""
    if not isinstance(reply, ReplyError):
        if _is_sound(name := str(command[0]), reply):
            return reply
        context.unexpected(f"sent an unexpected reply to {name}")
        return None
    key_names, key = queue.library.key_names, command[1]
    if str(reply).startswith("WRONGTYPE") and key in key_names.all():
        # A key that a pattern found has changed its type.
        key_names.forget(key)
    else:
        context.refused(str(command[0]), reply, key if isinstance(key, bytes) else b"")
    return None


def _is_sound(command: str, reply: Reply) -> bool:
    """Return whether a reply has the shape that the command returns."""
    if command in _COUNTS:
        return type(reply) is int
    if command in _LISTS:
        return isinstance(reply, list) and all(type(item) is bytes for item in reply)
    return reply is None or type(reply) is bytes


def _emit(
    context: ScrapeContext,
    queue: _Queue,
    depth: Depth,
    of_lists: backlog.Age | None,
    clock: ServerClock,
) -> None:
    labels = (queue.library.label, context.db, label(queue.name))
    for state, count in depth.states.items():
        if count is not None:
            context.scrape.emit(MESSAGES, count, *labels, state)
    waiting = total((depth.states.get("ready"), depth.states.get("paused", 0)))
    age = queue.history.age(depth, waiting, clock.ticks(), clock.now())
    age = of_lists if age is None else age
    drain = queue.history.drain(waiting, clock.ticks())
    if age is not None:
        context.scrape.emit(OLDEST, age.seconds, *labels)
    if queue.is_first:
        _emit_common(context, queue, waiting, depth.states.get("active"), age)
        if drain is not None:
            common = ("redis", label(queue.library.destination(queue.name)), "")
            context.scrape.emit(backlog.DRAIN_SECONDS, drain, *common)


def _emit_common(
    context: ScrapeContext,
    queue: _Queue,
    waiting: int | None,
    active: int | None,
    age: backlog.Age | None,
) -> None:
    emit = context.scrape.emit
    common = ("redis", label(queue.library.destination(queue.name)), "")
    if waiting is not None:
        emit(backlog.BACKLOG, waiting, *common)
    if active is not None:
        emit(backlog.IN_FLIGHT, active, *common)
    if age is not None:
        emit(backlog.LAG_SECONDS, age.seconds, *common)
        emit(backlog.LAG_METHOD, 1, *common, age.method)


def _read_rest(context: ScrapeContext, library: QueueLibrary) -> RequestBatches:
    rest = library.rest()
    timed = [each for each in rest if each.times]
    counts: list[Command] = [(each.command, each.key) for each in rest]
    replies = yield [*counts, *(("ZRANGE", each.times, 0, 0, "WITHSCORES") for each in timed)]
    found = dict(zip(rest, replies, strict=False))
    for each, reply in found.items():
        if _is_refused(context, each.command, each.key, reply):
            continue
        context.scrape.emit(MESSAGES, reply, library.label, context.db, "", each.state)
        if each.state == "active":
            context.scrape.emit(backlog.IN_FLIGHT, reply, "redis", label(each.key), "")
    for each, reply in zip(timed, replies[len(rest) :], strict=False):
        if _is_refused(context, "ZRANGE", each.times, reply):
            continue
        since = _score(reply[-1]) if reply else 0.0
        seconds = age_seconds((int(since * 1000), 0), context.now) if reply else 0
        if seconds is not None and (reply or not found[each]):  # both are of the same moment
            context.scrape.emit(OLDEST_ACTIVE, seconds, library.label, context.db)
            common = ("redis", label(each.key), "")
            context.scrape.emit(backlog.IN_FLIGHT_OLDEST, seconds, *common)
            if seconds:
                context.scrape.emit(backlog.IN_FLIGHT_METHOD, 1, *common, "delivery_time")


def _is_refused(context: ScrapeContext, command: str, key: bytes, reply: Reply) -> bool:
    """Return whether a reply is refused or odd, and note why."""
    if isinstance(reply, ReplyError):
        context.refused(command, reply, key)
    elif not _is_sound(command, reply):
        context.unexpected(f"sent an unexpected reply to {command}")
    else:
        return False
    return True


def _score(raw: bytes) -> float:
    """Return the score of a member of a sorted set, 0 if it is not a number."""
    try:
        number = float(raw)
    except ValueError:
        return 0.0
    return number if isfinite(number) else 0.0
