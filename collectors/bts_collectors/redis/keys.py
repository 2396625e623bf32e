"""Sizes of keys: the depth of a queue that is kept in a list, and of anything else countable."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from hiredis import ReplyError

from bts_collectors.redis.connection import Reply
from bts_collectors.redis.discovery import Names
from bts_collectors.redis.visit import Rounds, Visit, text
from bts_exporter import Metric, backlog, gauge

#: Seconds for which a list that was found and has run empty stays at 0: Redis deletes it.
KEPT_WHEN_EMPTY = 3600.0
_SIZE = {
    b"list": "LLEN",
    b"set": "SCARD",
    b"zset": "ZCARD",
    b"hash": "HLEN",
    b"stream": "XLEN",
    b"string": "STRLEN",
}
#: What Redis deletes when it runs empty; no such key means size 0.
_VANISHES = frozenset((b"list", b"set", b"zset", b"hash"))

SIZE = gauge(
    "redis_key_size",
    "Elements of a list, set, sorted set, hash or stream, bytes of a string: LLEN, SCARD, ZCARD,"
    " HLEN, XLEN, STRLEN.",
    ("db", "key"),
)
METRICS: tuple[Metric, ...] = (SIZE,)


class Keys:
    """Reads the sizes of `names`; remembers what was there."""

    def __init__(self, names: Names, clock: Callable[[], float] = monotonic) -> None:
        """Take the names to read, and a clock in seconds."""
        self._names = names
        self._clock = clock
        #: The type of what vanishes when empty, and when it was last there.
        self._seen: dict[bytes, tuple[bytes, float]] = {}

    def read(self, visit: Visit) -> Rounds:
        """Emit the size of every key."""
        names = self._names.all()
        types = yield [("TYPE", name) for name in names]
        there: list[tuple[bytes, bytes]] = []
        for name, type_ in zip(names, types, strict=True):
            if isinstance(type_, ReplyError):
                visit.refused("TYPE", type_)
            elif type_ in _SIZE:
                there.append((name, type_))
            else:
                self._emit_missing(visit, name)
        sizes = yield [(_SIZE[type_], name) for name, type_ in there]
        for (name, type_), size in zip(there, sizes, strict=True):
            self._emit_size(visit, name, type_, size)

    def _emit_size(self, visit: Visit, name: bytes, type_: bytes, size: Reply) -> None:
        if isinstance(size, ReplyError):
            visit.refused(_SIZE[type_], size)
            return
        if type_ in _VANISHES:
            self._seen[name] = type_, self._clock()
        _emit(visit, name, type_, size)

    def _emit_missing(self, visit: Visit, name: bytes) -> None:
        type_, when = self._seen.get(name, (b"", 0.0))
        if type_ and self._clock() - when < KEPT_WHEN_EMPTY:
            _emit(visit, name, type_, 0)
            return
        self._seen.pop(name, None)
        if not self._names.forget(name):
            # Spelled out in the settings, and so wanted; of what type it will be is not known.
            _emit(visit, name, type_, 0)


def _emit(visit: Visit, name: bytes, type_: bytes, size: int) -> None:
    label = text(name)
    visit.scrape.emit(SIZE, size, visit.db, label)
    if type_ == b"list":
        visit.scrape.emit(backlog.BACKLOG, size, "redis", label, "")
