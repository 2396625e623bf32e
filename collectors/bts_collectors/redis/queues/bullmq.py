"""BullMQ."""

from __future__ import annotations

from bts_collectors.redis.queues.queue_library import Depth, DepthReader, QueueLibrary, total
from bts_collectors.redis.queues.times import from_number


class BullMQ(QueueLibrary):
    """BullMQ: lists and sorted sets of ids, one for each state, and a hash for each job."""

    label = "bullmq"
    prefix = "bull"
    tail = ":meta"
    type_ = "hash"

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # Arq needs it
        """Read lists and sets, and the creation times of their first jobs."""
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
        # Before version 5 the list of an idle queue may hold a marker, which is not a job.
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
            oldest=min(filter(None, map(from_number, made)), default=None),
        )
