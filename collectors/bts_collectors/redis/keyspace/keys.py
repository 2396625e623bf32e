"""Sizes of keys, and on request their memory usage and the number that a string holds."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from hiredis import ReplyError

from bts_collectors.redis.client.batching import RequestBatches
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.client.labels import label
from bts_collectors.redis.keyspace.scanner import Names
from bts_exporter import Metric, gauge

_SIZE = {
    b"list": "LLEN",
    b"set": "SCARD",
    b"zset": "ZCARD",
    b"hash": "HLEN",
    b"stream": "XLEN",
    b"string": "STRLEN",
}
#: Types that Redis deletes when they become empty: a missing key of such a type has size 0.
_VANISHES = frozenset((b"list", b"set", b"zset", b"hash"))
#: Types of the replies to commands for a key; None if the key is gone.
_SIMPLE = frozenset((int, bytes, type(None)))
#: Bytes; a longer string is not a number.
_LONGEST_NUMBER = 64

SIZE = gauge(
    "redis_key_size",
    "Elements of a list, set, sorted set, hash or stream, bytes of a string: LLEN, SCARD, ZCARD,"
    " HLEN, XLEN, STRLEN; no sample for the types of modules.",
    ("db", "key"),
)
MEMORY = gauge(
    "redis_key_memory_usage_bytes", "Memory usage of a key: MEMORY USAGE.", ("db", "key")
)
VALUE = gauge("redis_key_value", "Number in a string: GET.", ("db", "key"))
METRICS: tuple[Metric, ...] = (SIZE, MEMORY, VALUE)


class Keys:
    """Reads the sizes of `names`; remembers the keys that Redis deletes when they become empty."""

    def __init__(self, names: Names, *, memory: bool = False, values: bool = False) -> None:
        """Take the names to read, and whether to read memory usage and numbers, too."""
        self._names = names
        self._memory = memory
        self._values = values
        self._vanishing: set[bytes] = set()

    def read(self, context: ScrapeContext) -> RequestBatches:
        """Emit all metrics of every key."""
        names = self._names.all()
        self._vanishing.intersection_update(names)
        types = yield [("TYPE", name) for name in names]
        known: dict[bytes, bytes] = {}
        #: Keys with types of modules, whose size no command returns.
        foreign: list[bytes] = []
        for name, type_ in zip(names, types, strict=True):
            if isinstance(type_, ReplyError):
                context.refused("TYPE", type_)
            elif type(type_) is not bytes:
                context.unexpected(f"sent an unexpected reply to TYPE ({type(type_).__name__})")
            elif type_ in _SIZE:
                known[name] = type_
            elif type_ == b"none":
                self._emit_missing(context, name)
            else:
                foreign.append(name)
        yield from self._measure(context, known, foreign if self._memory else [])

    def _measure(
        self, context: ScrapeContext, known: dict[bytes, bytes], foreign: Sequence[bytes]
    ) -> RequestBatches:
        """Emit the keys of known types, and the memory usage of `foreign` ones."""
        sizes = yield [(_SIZE[type_], name) for name, type_ in known.items()]
        requests: list[tuple[Metric, bytes, Command]] = [
            (MEMORY, name, ("MEMORY", "USAGE", name)) for name in foreign
        ]
        for (name, type_), size in zip(known.items(), sizes, strict=True):
            _emit(context, SIZE, name, _SIZE[type_], size)
            if type_ in _VANISHES:
                self._vanishing.add(name)
            if self._memory:
                requests.append((MEMORY, name, ("MEMORY", "USAGE", name)))
            if self._values and type_ == b"string" and _is_short(size):
                requests.append((VALUE, name, ("GET", name)))
        replies = yield [command for _, _, command in requests]
        for (metric, name, command), reply in zip(requests, replies, strict=True):
            _emit(context, metric, name, " ".join(map(str, command[:-1])), reply)

    def _emit_missing(self, context: ScrapeContext, name: bytes) -> None:
        # A key that became empty is at 0 as long as its name is kept, and always if the settings name it.
        if name in self._vanishing or not self._names.forget(name):
            context.scrape.emit(SIZE, 0, context.db, label(name))


def _emit(context: ScrapeContext, metric: Metric, name: bytes, command: str, reply: Reply) -> None:
    if isinstance(reply, ReplyError):
        if not str(reply).startswith("WRONGTYPE"):  # its type has changed since
            context.refused(command, reply)
    elif type(reply) not in _SIMPLE:
        context.unexpected(f"sent an unexpected reply to {command} ({type(reply).__name__})")
    elif (value := _number(reply)) is not None:
        context.scrape.emit(metric, value, context.db, label(name))


def _is_short(size: Reply) -> bool:
    return type(size) is int and size <= _LONGEST_NUMBER


def _number(reply: Reply) -> float | None:
    """Return a reply as a number, None if it is not one."""
    if reply is None or type(reply) is int:
        return reply
    try:
        value = float(reply)
    except ValueError:
        return None
    return value if isfinite(value) and b"_" not in reply else None
