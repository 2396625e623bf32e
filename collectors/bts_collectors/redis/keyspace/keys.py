"""Sizes of keys, and where it is asked for their memory and the number that a string holds."""

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
#: What Redis deletes when it runs empty; no such key means size 0.
_VANISHES = frozenset((b"list", b"set", b"zset", b"hash"))
#: Types of replies to what is asked of a key; None where it is gone.
_SIMPLE = frozenset((int, bytes, type(None)))
#: Bytes; a longer string is no number.
_LONGEST_NUMBER = 64

SIZE = gauge(
    "redis_key_size",
    "Elements of a list, set, sorted set, hash or stream, bytes of a string: LLEN, SCARD, ZCARD,"
    " HLEN, XLEN, STRLEN; of a module's type no sample.",
    ("db", "key"),
)
MEMORY = gauge("redis_key_memory_usage_bytes", "MEMORY USAGE of the key.", ("db", "key"))
VALUE = gauge("redis_key_value", "The number that a string holds: GET.", ("db", "key"))
METRICS: tuple[Metric, ...] = (SIZE, MEMORY, VALUE)


class Keys:
    """Reads the sizes of `names`; remembers what has been there, since it may have run empty."""

    def __init__(self, names: Names, *, memory: bool = False, values: bool = False) -> None:
        """Take the names to read, and whether to ask for memory and numbers, too."""
        self._names = names
        self._memory = memory
        self._values = values
        self._vanishing: set[bytes] = set()

    def read(self, context: ScrapeContext) -> RequestBatches:
        """Emit what there is to tell of every key."""
        names = self._names.all()
        self._vanishing.intersection_update(names)
        types = yield [("TYPE", name) for name in names]
        there: dict[bytes, bytes] = {}
        #: Of a module's types: how large their keys are only the module knows.
        foreign: list[bytes] = []
        for name, type_ in zip(names, types, strict=True):
            if isinstance(type_, ReplyError):
                context.refused("TYPE", type_)
            elif type(type_) is not bytes:
                context.unexpected(f"answers TYPE with {type(type_).__name__}")
            elif type_ in _SIZE:
                there[name] = type_
            elif type_ == b"none":
                self._emit_missing(context, name)
            else:
                foreign.append(name)
        yield from self._measure(context, there, foreign if self._memory else [])

    def _measure(
        self, context: ScrapeContext, there: dict[bytes, bytes], foreign: Sequence[bytes]
    ) -> RequestBatches:
        """Emit what there is to tell of keys by their types, and the memory of `foreign` ones."""
        sizes = yield [(_SIZE[type_], name) for name, type_ in there.items()]
        questions: list[tuple[Metric, bytes, Command]] = [
            (MEMORY, name, ("MEMORY", "USAGE", name)) for name in foreign
        ]
        for (name, type_), size in zip(there.items(), sizes, strict=True):
            _emit(context, SIZE, name, _SIZE[type_], size)
            if type_ in _VANISHES:
                self._vanishing.add(name)
            if self._memory:
                questions.append((MEMORY, name, ("MEMORY", "USAGE", name)))
            if self._values and type_ == b"string" and _is_short(size):
                questions.append((VALUE, name, ("GET", name)))
        replies = yield [command for _, _, command in questions]
        for (metric, name, command), reply in zip(questions, replies, strict=True):
            _emit(context, metric, name, " ".join(map(str, command[:-1])), reply)

    def _emit_missing(self, context: ScrapeContext, name: bytes) -> None:
        # What ran empty is at 0 for as long as its name is kept; what the settings spell for good.
        if name in self._vanishing or not self._names.forget(name):
            context.scrape.emit(SIZE, 0, context.db, label(name))


def _emit(context: ScrapeContext, metric: Metric, name: bytes, command: str, reply: Reply) -> None:
    if isinstance(reply, ReplyError):
        if not str(reply).startswith("WRONGTYPE"):  # it was made anew since we asked for its type
            context.refused(command, reply)
    elif type(reply) not in _SIMPLE:
        context.unexpected(f"answers {command} with {type(reply).__name__}")
    elif (value := _number(reply)) is not None:
        context.scrape.emit(metric, value, context.db, label(name))


def _is_short(size: Reply) -> bool:
    return type(size) is int and size <= _LONGEST_NUMBER


def _number(reply: Reply) -> float | None:
    """Return the number that a reply is or spells; None if it does not."""
    if reply is None or type(reply) is int:
        return reply
    try:
        value = float(reply)
    except ValueError:
        return None
    return value if isfinite(value) and b"_" not in reply else None
