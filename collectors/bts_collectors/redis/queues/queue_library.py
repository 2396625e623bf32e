"""What is the same for all queues kept in Redis: which ones there are, and what is told of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.keyspace import globs
from bts_collectors.redis.keyspace.scanner import Names
from bts_collectors.redis.queues.config import Wanted


@dataclass(slots=True)
class Depth:
    """What is in a queue."""

    #: Messages by state; None where the server did not tell.
    states: dict[str, int | None] = field(default_factory=dict)
    #: Whether a message tells since when it has been waiting.
    timed: bool = False
    #: Since when the message that is next in line has been, in seconds since 1970; None if unknown.
    oldest: float | None = None


#: Yields the commands of its next round, is sent their replies (None for a refused one).
DepthReader = Generator[Sequence[Command], list[Reply], Depth]


class Rest(NamedTuple):
    """What a library keeps for all of its queues together."""

    state: str
    key: bytes
    command: str
    #: A sorted set of the same messages by the time since when they are in this state; empty for none.
    times: bytes = b""


def total(counts: Iterable[int | None]) -> int | None:
    """Return the sum of `counts`, None if one of them is not known."""
    known = list(counts)
    return None if None in known else sum(filter(None, known))


class QueueLibrary(ABC):
    """The queues of one library that the settings want.

    A queue's keys begin with `prefix`, `joint`, `middle` and its name.
    """

    #: The label; empty for plain keys.
    label: ClassVar[str] = ""
    #: Names and prefix where the settings give none.
    default: ClassVar[tuple[str, ...]] = ("*",)
    prefix: ClassVar[str] = ""
    joint: ClassVar[str] = ":"
    middle: ClassVar[str] = ""
    #: What the key ends in, and its type, that shows that a queue is there.
    tail: ClassVar[str] = ""
    type_: ClassVar[str] = ""
    #: Whether the server's clock decides what is due.
    needs_time: ClassVar[bool] = False
    #: The library's own set of its queues, where it keeps one.
    registry: ClassVar[str] = ""

    def __init__(self, wanted: Wanted) -> None:
        """Take the settings, with the library's defaults for what they leave out."""
        names = self.default if wanted.names is None else wanted.names
        prefix = self.prefix if wanted.prefix is None else wanted.prefix
        root = prefix + self.joint if prefix else ""
        patterns = [name for name in names if globs.is_glob(name)]
        head = root + self.middle
        self.spelled = tuple(name.encode() for name in names if not globs.is_glob(name))
        self.root = root.encode()
        self.head = head.encode()
        #: The set to ask for names before the queues are read; empty where there is none.
        self.registered = (root + self.registry).encode() if self.registry and patterns else b""
        #: The keys to look for, where there is no such set.
        self.found = Names(
            [] if self.registry else [key for name in patterns for key in self._keys(head, name)],
            self.type_,
        )
        self._matches = globs.compiled(name.encode() for name in patterns).fullmatch

    def queues(self, registered: Sequence[bytes] = ()) -> list[bytes]:
        """Return the names of all queues, each once; `registered` are the members of that set."""
        names = [name for name in map(self.name_of, registered) if self._matches(name)]
        names += map(self.name_of, self.found.all())
        return [name for name in dict.fromkeys((*self.spelled, *names)) if name]

    def _keys(self, head: str, pattern: str) -> Sequence[str]:
        """Return the patterns of the keys that show that a queue is there."""
        return (globs.escaped(head) + pattern + self.tail,)

    def name_of(self, key: bytes) -> bytes:
        """Return the name of the queue that a key is of; empty if of none."""
        return key.removeprefix(self.head).removesuffix(self.tail.encode())

    def destination(self, name: bytes) -> bytes:
        """Return what the queue is called among all keys: its key, or what its keys begin with."""
        return self.head + name

    @abstractmethod
    def read_depth(self, name: bytes, now: int | None) -> DepthReader:
        """Read one queue; `now` is the server's clock in milliseconds, None if not known."""

    def rest(self) -> Sequence[Rest]:
        """Return what is counted for all queues together."""
        return ()


class Plain(QueueLibrary):
    """Keys of one type, each a queue of its own."""

    size: ClassVar[str] = ""

    def read_depth(self, name: bytes, now: int | None) -> DepthReader:  # noqa: ARG002  # the libraries'
        """Read the size."""
        (size,) = yield [(self.size, name)]
        return Depth({"ready": size})


class Lists(Plain):
    """Lists, such as LPUSH and BRPOP make of one a queue."""

    type_ = "list"
    size = "LLEN"


class Sets(Plain):
    """Sets of what is to be done, in no order."""

    type_ = "set"
    size = "SCARD"


class SortedSets(Plain):
    """Sorted sets, by priority or by time."""

    type_ = "zset"
    size = "ZCARD"
