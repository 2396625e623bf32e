"""The base of all job libraries: which queues exist, and how their depth is read."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.keyspace import globs
from bts_collectors.redis.keyspace.scanner import Names
from bts_collectors.redis.lists.list_age import ListAge
from bts_collectors.redis.lists.look import End
from bts_collectors.redis.queues.config import LibrarySettings, ListSettings, SortedSetSettings
from bts_collectors.redis.queues.times import from_number


@dataclass(slots=True)
class Depth:
    """The messages of a queue."""

    #: Messages by state; None if unknown.
    states: dict[str, int | None] = field(default_factory=dict)
    #: Whether messages have a time.
    timed: bool = False
    #: The time of the next message in seconds since 1970; None if unknown.
    oldest: float | None = None
    #: The lists that the waiting messages are in, with their lengths, if they are in lists only.
    lists: Sequence[tuple[bytes, int | None]] = ()


#: Yields the commands of its next round trip and is sent their replies, None for a refused one.
DepthReader = Generator[Sequence[Command], list[Reply], Depth]


class Rest(NamedTuple):
    """A key that a library keeps for all of its queues together."""

    state: str
    key: bytes
    command: str
    #: A sorted set of the same messages by the time of this state; empty without such a set.
    times: bytes = b""


def total(counts: Iterable[int | None]) -> int | None:
    """Return the sum of `counts`, None if one of them is unknown."""
    known = list(counts)
    return None if None in known else sum(filter(None, known))


class QueueLibrary(ABC):
    """The wanted queues of one library.

    The keys of a queue begin with `prefix`, `joint`, `middle` and its name.
    """

    #: Value of the label library; empty for plain keys.
    label: ClassVar[str] = ""
    #: Names and prefix if the settings have none.
    default: ClassVar[tuple[str, ...]] = ("*",)
    prefix: ClassVar[str] = ""
    joint: ClassVar[str] = ":"
    middle: ClassVar[str] = ""
    #: The end and the type of the key that shows that a queue exists.
    tail: ClassVar[str] = ""
    type_: ClassVar[str] = ""
    #: Whether the server's clock decides which messages are due.
    needs_time: bool = False
    #: The end from which consumers take messages from lists; None if it must be found.
    consumed_from: ClassVar[End | None] = None
    #: The set in which the library registers its queues; empty without such a set.
    registry: ClassVar[str] = ""

    def __init__(self, wanted: LibrarySettings) -> None:
        """Take the settings, with the library's defaults for missing ones."""
        names = self.default if wanted.names is None else wanted.names
        prefix = self.prefix if wanted.prefix is None else wanted.prefix
        root = prefix + self.joint if prefix else ""
        #: The names in the settings that are patterns.
        self.patterns = patterns = [name for name in names if globs.is_glob(name)]
        head = root + self.middle
        self.spelled = tuple(name.encode() for name in names if not globs.is_glob(name))
        self.root = root.encode()
        self.head = head.encode()
        #: The set to read names from before the queues are read; empty if it is not needed.
        self.registered = (root + self.registry).encode() if self.registry and patterns else b""
        #: The keys to find without such a set.
        self.key_names = Names(
            [] if self.registry else [key for name in patterns for key in self._keys(head, name)],
            self.type_,
        )
        self._matches = globs.compiled(name.encode() for name in patterns).fullmatch

    def queues(self, registered: Sequence[bytes] = ()) -> list[bytes]:
        """Return the names of all queues, each once; `registered` are the members of the set."""
        names = [name for name in map(self.name_of, registered) if self._matches(name)]
        names += map(self.name_of, self.key_names.all())
        return [name for name in dict.fromkeys((*self.spelled, *names)) if name]

    def _keys(self, head: str, pattern: str) -> Sequence[str]:
        """Return the patterns of the keys that show that a queue exists."""
        return (globs.escaped(head) + pattern + self.tail,)

    def name_of(self, key: bytes) -> bytes:
        """Return the name of the queue that a key belongs to; empty if it is not a queue's."""
        return key.removeprefix(self.head).removesuffix(self.tail.encode())

    def destination(self, name: bytes) -> bytes:
        """Return the key of the queue, or the common beginning of its keys."""
        return self.head + name

    def list_age(self, key: bytes) -> ListAge:  # noqa: ARG002  # plain keys have settings of their own
        """Return the history of a new list of the library, whose messages all have an id."""
        return ListAge(self.consumed_from, unique=True)

    @abstractmethod
    def read_depth(self, name: bytes, now: int | None) -> DepthReader:
        """Read one queue; `now` is the server's clock in milliseconds, None if unknown."""

    def rest(self) -> Sequence[Rest]:
        """Return the keys that are counted for all queues together."""
        return ()


class Plain(QueueLibrary):
    """Keys of one type, each of which is a queue."""

    size: ClassVar[str] = ""

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # Arq needs it
        """Read the size."""
        (size,) = yield [(self.size, name)]
        return Depth({"ready": size})


class Lists(Plain):
    """Lists, such as queues made of LPUSH and BRPOP."""

    type_ = "list"
    size = "LLEN"

    def __init__(self, wanted: LibrarySettings) -> None:
        super().__init__(wanted)
        options = wanted if isinstance(wanted, ListSettings) else ListSettings()
        self._left = _compiled(options.popped_left)
        self._right = _compiled(options.popped_right)
        self._unique = _compiled(options.unique_payloads)

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # Arq needs it
        """Read the length."""
        (length,) = yield [("LLEN", name)]
        return Depth({"ready": length}, lists=[(name, length)])

    def list_age(self, key: bytes) -> ListAge:
        """Return the history of a new list, with the settings whose patterns match its key."""
        end: End | None = None
        if self._left.fullmatch(key):
            end = "left"
        elif self._right.fullmatch(key):
            end = "right"
        return ListAge(end, unique=bool(self._unique.fullmatch(key)))


class Sets(Plain):
    """Sets of jobs without an order."""

    type_ = "set"
    size = "SCARD"


class SortedSets(Plain):
    """Sorted sets of jobs by priority or by time."""

    type_ = "zset"
    size = "ZCARD"

    def __init__(self, wanted: LibrarySettings) -> None:
        super().__init__(wanted)
        options = wanted if isinstance(wanted, SortedSetSettings) else SortedSetSettings()
        self._timed = _compiled(options.time_scores)
        self.needs_time = bool(options.time_scores)

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:
        """Read the size; if scores are times, how many members are due, and since when the first one is."""
        if not self._timed.fullmatch(name):
            return (yield from super().read_depth(name, now))
        size, head = yield [("ZCARD", name), ("ZRANGE", name, 0, 0, "WITHSCORES")]
        if now is None or size is None or head is None:
            return Depth()
        oldest = from_number(head[-1]) if head else None
        if oldest is None:
            return Depth({"ready": size}, timed=True)
        in_seconds = oldest == float(head[-1])
        (due,) = yield [("ZCOUNT", name, "-inf", f"{now / 1000:.3f}" if in_seconds else now)]
        scheduled = None if due is None else size - due
        return Depth({"ready": due, "scheduled": scheduled}, timed=True, oldest=oldest)


def _compiled(patterns: Iterable[str]) -> re.Pattern[bytes]:
    return globs.compiled(pattern.encode() for pattern in patterns)
