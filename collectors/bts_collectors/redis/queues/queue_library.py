"""The base of all job libraries: which queues exist, and how their depth is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.keyspace import globs
from bts_collectors.redis.keyspace.scanner import Names
from bts_collectors.redis.queues.config import LibrarySettings


@dataclass(slots=True)
class Depth:
    """The messages of a queue."""

    #: Messages by state; None if unknown.
    states: dict[str, int | None] = field(default_factory=dict)
    #: Whether messages have a time.
    timed: bool = False
    #: The time of the next message in seconds since 1970; None if unknown.
    oldest: float | None = None


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
    needs_time: ClassVar[bool] = False
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


class Sets(Plain):
    """Sets of jobs without an order."""

    type_ = "set"
    size = "SCARD"


class SortedSets(Plain):
    """Sorted sets of jobs by priority or by time."""

    type_ = "zset"
    size = "ZCARD"
