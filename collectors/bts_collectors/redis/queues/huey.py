"""Huey."""

from __future__ import annotations

import re

from bts_collectors.redis.queues.config import LibrarySettings
from bts_collectors.redis.queues.queue_library import Depth, DepthReader, QueueLibrary

#: Characters that Huey leaves out of the names of its queues.
_NOT_IN_HUEY = re.compile(rb"[^A-Za-z0-9_]")


class Huey(QueueLibrary):
    """Huey: a list of pickled messages, or a sorted set of them if they have priorities."""

    label = "huey"
    middle = "huey.redis."
    consumed_from = "right"

    def __init__(self, wanted: LibrarySettings) -> None:
        super().__init__(wanted)
        #: Queues with priorities; remembered, because Redis deletes their keys when they are empty.
        self._sorted: set[bytes] = set()

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # Arq needs it
        """Read the sizes; only messages with a priority have a time."""
        plain = _NOT_IN_HUEY.sub(b"", name)
        if plain != name:
            # Huey removes these characters from a name, unless that is disabled.
            (kind,) = yield [("TYPE", self.head + name)]
            name = plain if kind == b"none" else name
        key = self.head + name
        kind, scheduled = yield [("TYPE", key), ("ZCARD", b"huey.schedule." + name)]
        if kind == b"zset":
            self._sorted.add(name)
        elif kind != b"none" or name not in self._sorted:
            (ready,) = yield [("LLEN", key)]
            return Depth({"ready": ready, "scheduled": scheduled}, lists=[(key, ready)])
        ready, first = yield [("ZCARD", key), ("ZRANGE", key, 0, 0)]
        oldest = int.from_bytes(first[0][:8], "big") / 1e6 if first else None
        return Depth({"ready": ready, "scheduled": scheduled}, timed=True, oldest=oldest)
