"""RQ."""

from __future__ import annotations

from bts_collectors.redis.queues.queue_library import Depth, DepthReader, QueueLibrary, total
from bts_collectors.redis.queues.times import from_iso_text


class Rq(QueueLibrary):
    """RQ: a list of jobs, a registry for each other state, and a hash for each job."""

    label = "rq"
    prefix = "rq"
    middle = "queue:"
    registry = "queues"
    consumed_from = "left"

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # Arq needs it
        """Read the list and the registries, and the time of the first job."""
        key = self.head + name
        states = ("wip", "failed", "deferred", "scheduled", "finished", "canceled")
        registries = [("ZCARD", b"%s%s:%s" % (self.root, s.encode(), name)) for s in states]
        # A job that moves to a worker is only in this list for a moment.
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
            lists=[(key, ready)],
        )
        if job is not None:
            (queued,) = yield [("HGET", self.root + b"job:" + job, "enqueued_at")]
            depth.oldest = from_iso_text(queued)
        return depth
