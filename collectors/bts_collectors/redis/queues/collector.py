"""Queues that libraries keep in Redis, or that are plain keys: how much is in them, and since when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from time import monotonic
from typing import NamedTuple

from hiredis import ReplyError

from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import Rounds, ServerClock, Visit, label, together
from bts_collectors.redis.keyspace.scanner import MOST_NAMES, Names
from bts_collectors.redis.queues.config import QueueSettings, Wanted
from bts_collectors.redis.queues.history import QueueHistory
from bts_collectors.redis.queues.libraries import Arq, BullMQ, Celery, Dramatiq, Huey, Rq, Sidekiq
from bts_collectors.redis.queues.queue_library import Depth, Lists, Preset, Sets, SortedSets, total
from bts_collectors.redis.streams.lag import age_seconds
from bts_exporter import Metric, backlog, gauge

#: Queues read at a time: of some a whole message comes along, to tell its age.
BATCH = 100

#: Commands whose replies are a number, and those whose replies are a list of texts; all others give
#: one text or none.
_COUNTS = frozenset({"EXISTS", "HLEN", "LLEN", "SCARD", "ZCARD", "ZCOUNT"})
_LISTS = frozenset({"SMEMBERS", "ZRANGE"})
_LIBRARIES = (Celery, Rq, Sidekiq, BullMQ, Dramatiq, Arq, Huey)
_PLAIN = {"lists": Lists, "sets": Sets, "zsets": SortedSets}

MESSAGES = gauge(
    "redis_queue_messages",
    "Messages or jobs of a queue by state: LLEN, ZCARD, SCARD, HLEN of the library's keys; an empty"
    " queue stands for all of them together.",
    ("library", "db", "queue", "state"),
)
OLDEST = gauge(
    "redis_queue_oldest_age_seconds",
    "Age of the message that is next in line, by the time that the library wrote into it; where that"
    " cannot be right, the time since it was seen first; 0 when there is none.",
    ("library", "db", "queue"),
)
OLDEST_ACTIVE = gauge(
    "redis_queue_oldest_active_age_seconds",
    "Time since the message that is not acknowledged for longest was given to a worker, by"
    " `unacked_index` of Celery; 0 when there is none.",
    ("library", "db"),
)
METRICS: tuple[Metric, ...] = (MESSAGES, OLDEST, OLDEST_ACTIVE)


class _Queue(NamedTuple):
    """A queue to read."""

    preset: Preset
    name: bytes
    #: Whether no other setting tells the vocabulary of it already.
    is_first: bool
    history: QueueHistory


class Queues:
    """Reads the queues that the settings want."""

    def __init__(self, settings: QueueSettings, clock: Callable[[], float] = monotonic) -> None:
        """Take the settings, and a clock in seconds that never goes back."""
        self._clock = clock
        self._histories: dict[tuple[str, bytes], QueueHistory] = {}
        self._presets: list[Preset] = []
        #: What to look for in the key space, by setting.
        self.names: dict[str, Names] = {}
        #: Settings whose library had more queues registered than are looked at.
        self.truncated: set[str] = set()
        for setting, kind, wanted in _chosen(settings):
            preset = kind(wanted)
            self._presets.append(preset)
            self.names[f"queues.{setting}"] = preset.found

    @property
    def are_wanted(self) -> bool:
        """Return whether the settings want any queues."""
        return bool(self._presets)

    def read(self, visit: Visit) -> Rounds:
        """Emit all queues."""
        if visit.now is None and any(preset.needs_time for preset in self._presets):
            yield ()  # the round trip that tells the server's time comes first
        members: dict[Preset, Sequence[bytes]] = {}
        registering = [preset for preset in self._presets if preset.registered]
        if registering:
            replies = yield [("SMEMBERS", preset.registered) for preset in registering]
            self.truncated.clear()
            for preset, reply in zip(registering, replies, strict=True):
                if isinstance(reply, ReplyError):
                    visit.refused("SMEMBERS", reply)
                elif not _is_sound("SMEMBERS", reply):
                    visit.unexpected("answers SMEMBERS with something else than Redis does")
                else:
                    members[preset] = sorted(reply)[:MOST_NAMES]
                    if len(reply) > MOST_NAMES:
                        self.truncated.add(f"queues.{preset.library}")
        clock = ServerClock(visit, self._clock)
        parts = [_read_rest(visit, preset) for preset in self._presets]
        parts += [_read(visit, queue, clock) for queue in self._queues(members)]
        for start in range(0, len(parts), BATCH):
            yield from together(parts[start : start + BATCH])

    def _queues(self, members: dict[Preset, Sequence[bytes]]) -> Iterator[_Queue]:
        unlisted = {one.library for one in self._presets if one.registered and one not in members}
        before = self._histories
        self._histories = {}
        told: set[bytes] = set()
        for preset in self._presets:
            for name in preset.queues(members.get(preset, ())):
                key = (preset.library, name)
                # A key that was a list and is a sorted set now is kept by both settings for a while.
                if key not in self._histories:
                    history = self._histories[key] = before.get(key) or QueueHistory()
                    yield _Queue(preset, name, preset.destination(name) not in told, history)
                    told.add(preset.destination(name))
        for key, history in before.items():
            if key[0] in unlisted:  # it may be there nevertheless, and is not new then
                self._histories.setdefault(key, history)


def _chosen(settings: QueueSettings) -> Iterator[tuple[str, type[Preset], Wanted]]:
    """Yield the settings that want something; libraries first, since they know more of a key."""
    for library in _LIBRARIES:
        wanted: Wanted = getattr(settings, library.library)
        if wanted.on:
            yield library.library, library, wanted
    for setting, plain in _PLAIN.items():
        if names := getattr(settings, setting):
            yield setting, plain, Wanted(names=names)


def _read(visit: Visit, queue: _Queue, clock: ServerClock) -> Rounds:
    look = queue.preset.look(queue.name, clock.now())
    try:
        commands = next(look)
        while True:
            replies = yield commands
            pairs = zip(commands, replies, strict=True)
            commands = look.send([_known(visit, queue, *pair) for pair in pairs])
    except StopIteration as end:
        _emit(visit, queue, end.value, clock)


def _known(visit: Visit, queue: _Queue, command: Command, reply: Reply) -> Reply:
    """Return a reply, None for a refusal."""
    if not isinstance(reply, ReplyError):
        if _is_sound(name := str(command[0]), reply):
            return reply
        visit.unexpected(f"answers {name} with something else than Redis does")
        return None
    found, key = queue.preset.found, command[1]
    if str(reply).startswith("WRONGTYPE") and key in found.all():
        # What a pattern found has become something else since.
        found.forget(key)
    else:
        visit.refused(str(command[0]), reply)
    return None


def _is_sound(command: str, reply: Reply) -> bool:
    """Return whether a reply has the shape that the command's replies have."""
    if command in _COUNTS:
        return type(reply) is int
    if command in _LISTS:
        return isinstance(reply, list) and all(type(item) is bytes for item in reply)
    return reply is None or type(reply) is bytes


def _emit(visit: Visit, queue: _Queue, depth: Depth, clock: ServerClock) -> None:
    labels = (queue.preset.library, visit.db, label(queue.name))
    for state, count in depth.states.items():
        if count is not None:
            visit.scrape.emit(MESSAGES, count, *labels, state)
    waiting = total((depth.states.get("ready"), depth.states.get("paused", 0)))
    age = queue.history.age(depth, waiting, clock.ticks(), clock.now())
    drain = queue.history.drain(waiting, clock.ticks())
    if age is not None:
        visit.scrape.emit(OLDEST, age.seconds, *labels)
    if queue.is_first:
        _emit_common(visit, queue, waiting, depth.states.get("active"), age)
        if drain is not None:
            common = ("redis", label(queue.preset.destination(queue.name)), "")
            visit.scrape.emit(backlog.DRAIN_SECONDS, drain, *common)


def _emit_common(
    visit: Visit, queue: _Queue, waiting: int | None, active: int | None, age: backlog.Age | None
) -> None:
    emit = visit.scrape.emit
    common = ("redis", label(queue.preset.destination(queue.name)), "")
    if waiting is not None:
        emit(backlog.BACKLOG, waiting, *common)
    if active is not None:
        emit(backlog.IN_FLIGHT, active, *common)
    if age is not None:
        emit(backlog.LAG_SECONDS, age.seconds, *common)
        emit(backlog.LAG_METHOD, 1, *common, age.method)


def _read_rest(visit: Visit, preset: Preset) -> Rounds:
    rest = preset.rest()
    timed = [each.times for each in rest if each.times]
    counts: list[Command] = [(each.command, each.key) for each in rest]
    replies = yield [*counts, *(("ZRANGE", key, 0, 0, "WITHSCORES") for key in timed)]
    for each, reply in zip(rest, replies, strict=False):
        if _is_refused(visit, each.command, reply):
            continue
        visit.scrape.emit(MESSAGES, reply, preset.library, visit.db, "", each.state)
        if each.state == "active":
            visit.scrape.emit(backlog.IN_FLIGHT, reply, "redis", label(each.key), "")
    for reply in replies[len(rest) :]:
        if _is_refused(visit, "ZRANGE", reply):
            continue
        since = _score(reply[-1]) if reply else 0.0
        seconds = age_seconds((int(since * 1000), 0), visit.now) if reply else 0
        if seconds is not None:
            visit.scrape.emit(OLDEST_ACTIVE, seconds, preset.library, visit.db)


def _is_refused(visit: Visit, command: str, reply: Reply) -> bool:
    """Return whether a reply tells nothing, and note why."""
    if isinstance(reply, ReplyError):
        visit.refused(command, reply)
    elif not _is_sound(command, reply):
        visit.unexpected(f"answers {command} with something else than Redis does")
    else:
        return False
    return True


def _score(raw: bytes) -> float:
    """Return the number that a sorted set has for a member, 0 for what is none."""
    try:
        number = float(raw)
    except ValueError:
        return 0.0
    return number if isfinite(number) else 0.0
