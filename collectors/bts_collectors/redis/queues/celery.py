"""Celery, and everything else that uses kombu."""

from __future__ import annotations

from collections.abc import Sequence

from bts_collectors.redis.keyspace import globs
from bts_collectors.redis.lists.list_age import ListAge
from bts_collectors.redis.queues.config import CelerySettings, LibrarySettings
from bts_collectors.redis.queues.queue_library import Depth, DepthReader, QueueLibrary, Rest, total

#: Of the newest messages, so many are searched for redelivered ones in each scrape.
_SEARCHED = 64


class Celery(QueueLibrary):
    """Celery: a list for each queue, and one more for each priority in use."""

    label = "celery"
    default = ("celery",)
    joint = ""
    type_ = "list"
    consumed_from = "right"
    #: Priorities whose lists are read if the settings do not name the priorities.
    _STEPS = range(10)

    def __init__(self, wanted: LibrarySettings) -> None:
        options = wanted if isinstance(wanted, CelerySettings) else CelerySettings()
        self._options = options
        self._separator = options.sep.encode()
        self._steps = self._STEPS if options.priority_steps is None else options.priority_steps
        super().__init__(wanted)

    def _keys(self, head: str, pattern: str) -> Sequence[str]:
        # All messages of a queue may have a priority.
        with_priority = globs.escaped(head) + pattern + globs.escaped(self._options.sep) + "[0-9]*"
        return (*super()._keys(head, pattern), with_priority)

    def name_of(self, key: bytes) -> bytes:
        """Return the name without prefix and priority; a name may contain the separator, too."""
        whole = super().name_of(key)
        name, _, step = whole.rpartition(self._separator)
        if whole in self.spelled or not (name and step.isdigit() and self._has(int(step[:4]))):
            return whole
        return name if name in self.spelled or self._matches(name) else whole

    def _has(self, step: int) -> bool:
        return self._options.priority_steps is None or step in self._steps

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # Arq needs it
        """Read the lengths of the lists; the time of a message is not in it."""
        key = self.head + name
        lists = [b"%s%s%d" % (key, self._separator, step) if step else key for step in self._steps]
        sizes = yield [("LLEN", each) for each in lists]
        return Depth({"ready": total(sizes)}, lists=list(zip(lists, sizes, strict=True)))

    def list_age(self, key: bytes) -> ListAge:  # noqa: ARG002  # plain keys have settings of their own
        """Return the history of a new list, in which rejected messages may come in again, marked as redelivered."""
        return ListAge(self.consumed_from, unique=True, searched=_SEARCHED)

    def rest(self) -> Sequence[Rest]:
        """Return the messages that workers have not acknowledged."""
        messages = self.root + self._options.unacked_key.encode()
        times = self.root + self._options.unacked_index_key.encode()
        return (Rest("active", messages, "HLEN", times),)
