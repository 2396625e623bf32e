"""Arq."""

from __future__ import annotations

from bts_collectors.redis.queues.queue_library import Depth, DepthReader, QueueLibrary
from bts_collectors.redis.queues.times import from_score


class Arq(QueueLibrary):
    """Arq: a sorted set of jobs by due time, from which finished jobs are removed."""

    label = "arq"
    default = ("arq:queue",)
    type_ = "zset"
    needs_time = True
    #: Jobs with the earliest due times, among which the running jobs are.
    _HEAD = 250

    def name_of(self, key: bytes) -> bytes:
        """Return the key, except for the one sorted set that is not a queue."""
        return b"" if key == b"arq:abort" else key

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:
        """Read how many jobs are due, and which of the earliest ones are running."""
        if now is None:
            return Depth()
        jobs, ripe, head = yield [
            ("ZCARD", name),
            ("ZCOUNT", name, "-inf", now),
            ("ZRANGE", name, 0, self._HEAD - 1, "WITHSCORES"),
        ]
        if None in (jobs, ripe, head):
            return Depth()
        head = head[: 2 * ripe]  # the others are not due
        running = yield [("EXISTS", b"arq:in-progress:" + job) for job in head[::2]]
        if None in running:
            return Depth()
        scores = map(from_score, head[1::2])
        waiting = [score for score, runs in zip(scores, running, strict=True) if not runs]
        depth = Depth({"scheduled": jobs - ripe}, timed=True)
        if waiting or ripe <= self._HEAD:
            depth.states |= {"ready": max(ripe - sum(running), 0), "active": sum(running)}
            depth.oldest = waiting[0] and waiting[0] / 1000 if waiting else None
        return depth
