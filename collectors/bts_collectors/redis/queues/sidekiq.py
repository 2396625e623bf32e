"""Sidekiq."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bts_collectors.redis.queues.queue_library import Depth, DepthReader, QueueLibrary, Rest
from bts_collectors.redis.queues.times import from_json


class Sidekiq(QueueLibrary):
    """Sidekiq: a list of jobs in JSON for each queue, and three sorted sets for all queues."""

    label = "sidekiq"
    middle = "queue:"
    registry = "queues"
    consumed_from = "right"

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # Arq needs it
        """Read the list, and the time of the job at its end."""
        key = self.head + name
        ready, job = yield [("LLEN", key), ("LINDEX", key, -1)]
        oldest = from_json(job, _SidekiqJob)
        return Depth({"ready": ready}, timed=True, oldest=oldest, lists=[(key, ready)])

    def rest(self) -> Sequence[Rest]:
        """Return the sorted sets, which hold the jobs of all queues."""
        states = {"scheduled": b"schedule", "retry": b"retry", "dead": b"dead"}
        return [Rest(state, self.root + key, "ZCARD") for state, key in states.items()]


class _SidekiqJob(msgspec.Struct):
    """The part of a job that has its time."""

    time: float = msgspec.field(name="enqueued_at")
