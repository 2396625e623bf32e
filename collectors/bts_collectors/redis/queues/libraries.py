"""How libraries keep their queues in Redis, each from its own source.

Every command names one key, so that a cluster can be asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec

from bts_collectors.redis.client.connection import Reply
from bts_collectors.redis.keyspace import globs
from bts_collectors.redis.queues.config import Wanted, WantedCelery
from bts_collectors.redis.queues.queue_library import Depth, DepthReader, QueueLibrary, Rest, total

#: A time beyond it is in milliseconds: in seconds it would be the year 5138.
_LATEST_SECONDS = 1e11
#: A count that is no time in any unit that is used.
_NO_TIME = 1e15


#: What Huey leaves out of the names of its queues.
_NOT_IN_HUEY = re.compile(rb"[^A-Za-z0-9_]")


class Celery(QueueLibrary):
    """Celery, and all of kombu: a list, and one more for each priority that is in use."""

    label = "celery"
    default = ("celery",)
    joint = ""
    type_ = "list"
    #: Lists that are asked for where the settings do not say which priorities there are.
    _STEPS = range(10)

    def __init__(self, wanted: Wanted) -> None:
        options = wanted if isinstance(wanted, WantedCelery) else WantedCelery()
        self._options = options
        self._separator = options.sep.encode()
        self._steps = self._STEPS if options.priority_steps is None else options.priority_steps
        super().__init__(wanted)

    def _keys(self, head: str, pattern: str) -> Sequence[str]:
        # A queue may have nothing but messages with a priority.
        with_priority = globs.escaped(head) + pattern + globs.escaped(self._options.sep) + "[0-9]*"
        return (*super()._keys(head, pattern), with_priority)

    def name_of(self, key: bytes) -> bytes:
        """Return the queue without prefix and priority; the separator may be part of a queue's name, too."""
        whole = super().name_of(key)
        name, _, step = whole.rpartition(self._separator)
        if whole in self.spelled or not (name and step.isdigit() and self._has(int(step[:4]))):
            return whole
        return name if name in self.spelled or self._matches(name) else whole

    def _has(self, step: int) -> bool:
        return self._options.priority_steps is None or step in self._steps

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # the others'
        """Read the lengths of the lists; a message does not tell since when it has been waiting."""
        key = self.head + name
        lists = [b"%s%s%d" % (key, self._separator, step) if step else key for step in self._steps]
        sizes = yield [("LLEN", each) for each in lists]
        return Depth({"ready": total(sizes)})

    def rest(self) -> Sequence[Rest]:
        """Return what workers took and did not acknowledge yet."""
        messages = self.root + self._options.unacked_key.encode()
        times = self.root + self._options.unacked_index_key.encode()
        return (Rest("active", messages, "HLEN", times),)


class Rq(QueueLibrary):
    """RQ: a list of jobs, a registry for each other state, and a hash for each job."""

    label = "rq"
    prefix = "rq"
    middle = "queue:"
    registry = "queues"

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # as above
        """Read list and registries, and when the first job was queued."""
        key = self.head + name
        states = ("wip", "failed", "deferred", "scheduled", "finished", "canceled")
        registries = [("ZCARD", b"%s%s:%s" % (self.root, s.encode(), name)) for s in states]
        # A job on its way to a worker is in neither for a moment.
        between = ("LLEN", key + b":intermediate")
        ready, moving, *counts, job = yield [
            ("LLEN", key),
            between,
            *registries,
            ("LINDEX", key, 0),
        ]
        running, failed, deferred, scheduled, finished, canceled = counts
        depth = Depth(
            {
                "ready": ready,
                "active": total((moving, running)),
                "failed": failed,
                "deferred": deferred,
                "scheduled": scheduled,
                "completed": finished,
                "canceled": canceled,
            },
            timed=True,
        )
        if job is not None:
            (queued,) = yield [("HGET", self.root + b"job:" + job, "enqueued_at")]
            depth.oldest = _of_text(queued)
        return depth


class Sidekiq(QueueLibrary):
    """Sidekiq: a list of jobs in JSON for each queue, three sorted sets for all of them."""

    label = "sidekiq"
    middle = "queue:"
    registry = "queues"

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # as above
        """Read the list, and when the job at its end was queued."""
        key = self.head + name
        ready, job = yield [("LLEN", key), ("LINDEX", key, -1)]
        return Depth({"ready": ready}, timed=True, oldest=_of_json(job, _SidekiqJob))

    def rest(self) -> Sequence[Rest]:
        """Return the sets: jobs in them have a queue, but are not told apart by it."""
        states = {"scheduled": b"schedule", "retry": b"retry", "dead": b"dead"}
        return [Rest(state, self.root + key, "ZCARD") for state, key in states.items()]


class BullMQ(QueueLibrary):
    """BullMQ: lists and sorted sets of ids, one for each state, and a hash for each job."""

    label = "bullmq"
    prefix = "bull"
    tail = ":meta"
    type_ = "hash"

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # as above
        """Read lists and sets, and when the jobs at their heads were made."""
        key = self.head + name + b":"
        sizes = [("LLEN", key + state) for state in (b"wait", b"paused", b"active")]
        sizes += [
            ("ZCARD", key + state)
            for state in (b"prioritized", b"delayed", b"waiting-children", b"failed", b"completed")
        ]
        heads = [("LINDEX", key + b"wait", -1), ("LINDEX", key + b"paused", -1)]
        replies = yield [*sizes, *heads, ("ZRANGE", key + b"prioritized", 0, 0)]
        wait, paused, active, prioritized, delayed, children, failed, completed = replies[:8]
        first, first_paused, first_prioritized = replies[8:]
        # Before version 5 an idle queue's list may hold a marker, which is no job.
        jobs = [job for job in (first, first_paused, *(first_prioritized or ())) if job]
        markers = sum(job.startswith(b"0:") for job in jobs)
        made = yield [("HGET", key + job, "timestamp") for job in jobs]
        return Depth(
            {
                "ready": total((wait, prioritized, -markers)),
                "paused": paused,
                "active": active,
                "scheduled": delayed,
                "deferred": children,
                "failed": failed,
                "completed": completed,
            },
            timed=True,
            oldest=min(filter(None, map(_of_number, made)), default=None),
        )


class Dramatiq(QueueLibrary):
    """Dramatiq: a list of ids and a hash of all messages, and the same for the delayed and the dead."""

    label = "dramatiq"
    prefix = "dramatiq"
    tail = ".msgs"
    type_ = "hash"

    def name_of(self, key: bytes) -> bytes:
        """Return the queue, also of its delayed (DQ) and dead (XQ) messages."""
        return super().name_of(key).removesuffix(b".DQ").removesuffix(b".XQ")

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # as above
        """Read lists and hashes, and the message that is next."""
        key = self.head + name
        ready, messages, delayed, dead, first = yield [
            ("LLEN", key),
            ("HLEN", key + b".msgs"),
            ("HLEN", key + b".DQ.msgs"),
            ("ZCARD", key + b".XQ"),
            ("LINDEX", key, 0),
        ]
        # A message stays in the hash until it is acknowledged, its id leaves the list before.
        active = None if ready is None or messages is None else max(messages - ready, 0)
        depth = Depth(
            {"ready": ready, "active": active, "scheduled": delayed, "dead": dead}, timed=True
        )
        if first is not None:
            (message,) = yield [("HGET", key + b".msgs", first)]
            depth.oldest = _of_json(message, _DramatiqMessage)
        return depth


class Arq(QueueLibrary):
    """Arq: a sorted set of jobs by the time they are due, which a job leaves when it is done."""

    label = "arq"
    default = ("arq:queue",)
    type_ = "zset"
    needs_time = True
    #: Jobs due longest, among which the running ones are.
    _HEAD = 250

    def name_of(self, key: bytes) -> bytes:
        """Return the key, but for the one set that is no queue."""
        return b"" if key == b"arq:abort" else key

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:
        """Read how many jobs are due, and which of those due longest are running."""
        if now is None:
            return Depth()
        jobs, ripe, head = yield [
            ("ZCARD", name),
            ("ZCOUNT", name, "-inf", now),
            ("ZRANGE", name, 0, self._HEAD - 1, "WITHSCORES"),
        ]
        if None in (jobs, ripe, head):
            return Depth()
        head = head[: 2 * ripe]  # those behind are not due
        running = yield [("EXISTS", b"arq:in-progress:" + job) for job in head[::2]]
        if None in running:
            return Depth()
        scores = map(_of_score, head[1::2])
        waiting = [score for score, runs in zip(scores, running, strict=True) if not runs]
        depth = Depth({"scheduled": jobs - ripe}, timed=True)
        if waiting or ripe <= self._HEAD:
            depth.states |= {"ready": max(ripe - sum(running), 0), "active": sum(running)}
            depth.oldest = waiting[0] and waiting[0] / 1000 if waiting else None
        return depth


class Huey(QueueLibrary):
    """Huey: a list of pickled messages, or a sorted set of them if they have priorities."""

    label = "huey"
    middle = "huey.redis."

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(wanted)
        #: The queues with priorities, also while they are empty and so not there.
        self._sorted: set[bytes] = set()

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # as above
        """Read the sizes; only a message with priority begins with its time."""
        plain = _NOT_IN_HUEY.sub(b"", name)
        if plain != name:
            # Huey leaves other characters out of a name, unless it is told not to.
            (kind,) = yield [("TYPE", self.head + name)]
            name = plain if kind == b"none" else name
        key = self.head + name
        kind, scheduled = yield [("TYPE", key), ("ZCARD", b"huey.schedule." + name)]
        if kind == b"zset":
            self._sorted.add(name)
        elif kind != b"none" or name not in self._sorted:
            (ready,) = yield [("LLEN", key)]
            return Depth({"ready": ready, "scheduled": scheduled})
        ready, first = yield [("ZCARD", key), ("ZRANGE", key, 0, 0)]
        oldest = int.from_bytes(first[0][:8], "big") / 1e6 if first else None
        return Depth({"ready": ready, "scheduled": scheduled}, timed=True, oldest=oldest)


class _SidekiqJob(msgspec.Struct):
    """The part of a job that tells its time."""

    time: float = msgspec.field(name="enqueued_at")


class _DramatiqMessage(msgspec.Struct):
    """The part of a message that tells its time."""

    time: float = msgspec.field(name="message_timestamp")


def _of_text(raw: Reply) -> float | None:
    """Return the time that ISO 8601 spells."""
    try:
        return datetime.fromisoformat(raw.decode()).timestamp() if raw else None
    except (ValueError, OverflowError):
        return None


def _of_score(raw: bytes) -> float | None:
    """Return the number that a sorted set has for a member."""
    try:
        return float(raw)
    except ValueError:
        return None


def _of_number(raw: Reply) -> float | None:
    """Return the time that a count of seconds or milliseconds tells."""
    try:
        number = float(raw) if raw else 0.0
    except ValueError:
        return None
    if not 0 <= number < _NO_TIME:  # infinite, negative, or not a number at all
        return None
    return (number / 1000 if number > _LATEST_SECONDS else number) or None


def _of_json(raw: Reply, part: type[_SidekiqJob | _DramatiqMessage]) -> float | None:
    """Return the time that a payload in JSON tells; None for any other payload."""
    try:
        return _of_number(msgspec.json.decode(raw, type=part).time) if raw else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
