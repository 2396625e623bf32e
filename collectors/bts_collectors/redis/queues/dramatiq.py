"""Dramatiq."""

from __future__ import annotations

import msgspec

from bts_collectors.redis.queues.queue_library import Depth, DepthReader, QueueLibrary
from bts_collectors.redis.queues.times import from_json


class Dramatiq(QueueLibrary):
    """Dramatiq: a list of ids and a hash of messages; the same for delayed and dead messages."""

    label = "dramatiq"
    prefix = "dramatiq"
    tail = ".msgs"
    type_ = "hash"
    consumed_from = "left"

    def name_of(self, key: bytes) -> bytes:
        """Return the name of the queue, also for its delayed (DQ) and dead (XQ) messages."""
        return super().name_of(key).removesuffix(b".DQ").removesuffix(b".XQ")

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # Arq needs it
        """Read lists and hashes, and the next message."""
        key = self.head + name
        ready, messages, delayed, dead, first = yield [
            ("LLEN", key),
            ("HLEN", key + b".msgs"),
            ("HLEN", key + b".DQ.msgs"),
            ("ZCARD", key + b".XQ"),
            ("LINDEX", key, 0),
        ]
        # An id leaves the list on delivery, and the hash on acknowledgement.
        active = None if ready is None or messages is None else max(messages - ready, 0)
        depth = Depth(
            {"ready": ready, "active": active, "scheduled": delayed, "dead": dead},
            timed=True,
            lists=[(key, ready)],
        )
        if first is not None:
            (message,) = yield [("HGET", key + b".msgs", first)]
            depth.oldest = from_json(message, _DramatiqMessage)
        return depth


class _DramatiqMessage(msgspec.Struct):
    """The part of a message that has its time."""

    time: float = msgspec.field(name="message_timestamp")
