"""Parses mosquitto's persistence file: the messages queued for each client, and their store ids.

Pure functions on a stream. The broker writes a new file and renames it over the old one, so that an
open file does not change. Format: `src/persist.h` of mosquitto, the same from 1.6 to 2.1.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate
from typing import BinaryIO, NamedTuple

#: Limit of clients, which are kept in memory; more count as a damaged file.
MAX_CLIENTS = 100_000
#: Limit of a chunk with client data, in bytes: two names and the fixed fields.
MAX_CLIENT_CHUNK = 2 * 65535 + 1024
#: Characters of a client id; a longer id is cut, and its digest appended.
MAX_CLIENT_ID = 128
#: Limit of messages with an expiry, which are kept in memory.
MAX_EXPIRING = 1_000_000

_MAGIC = b"\x00\xb5\x00mosquitto db"
_HEAD = struct.Struct(">15sII")  # magic, checksum (unused), version
_READ_BYTES = struct.Struct(">II")  # type, length of the content
_CLIENT_5 = struct.Struct(">8x4x2xH")  # expiry, interval, last packet id, length of the id
_CLIENT_6 = struct.Struct(">8x4x2xHHH")  # as before, port, length of the user's name
#: Store id, packet id, length of the client id, QoS, state, flags, direction.
_MESSAGE = struct.Struct(">8sHHBBBB")
#: Store id, and Unix time of the expiry or 0, in the byte order of the broker's machine.
_STORED = struct.Struct("=8sq")
#: A store id, in the byte order of the broker's machine; the broker numbers messages as they arrive.
_ID = struct.Struct("=Q")

_TYPE_CONFIG = 1
_TYPE_CLIENT = 6
_TYPE_MESSAGE = 3
_TYPE_STORED = 2
_TYPES = range(1, 7)
_OUT = 1  # direction: to the client
#: States of an unsent message: to be published with QoS 0, 1 or 2, or queued.
_UNSENT = {1, 2, 4, 11}


class DamagedError(ValueError):
    """Raised when a file is not a complete persistence file; names the position."""


@dataclass(slots=True)
class SavedQueue:
    """Messages for one client: not sent, and sent but not acknowledged."""

    #: Unsent messages without an expiry.
    queued: int = 0
    in_flight: int = 0
    #: Unix times at which the other unsent messages expire, in rising order.
    expiries: array[int] = field(default_factory=lambda: array("q"))
    #: The lowest store id of an unsent message without an expiry, and for each expiry that of the
    #: messages that expire then or later.
    oldest: int | None = field(default=None, compare=False)
    expiring: array[int] = field(default_factory=lambda: array("Q"), compare=False)

    def oldest_at(self, now: float) -> int | None:
        """Return the lowest store id of an unsent message that has not expired at a Unix time; None without one."""
        first = bisect_right(self.expiries, int(now))
        ids = [] if self.oldest is None else [self.oldest]
        return min((*ids, *self.expiring[first : first + 1]), default=None)

    def note(self, store_id: int, expiry: int | None) -> None:
        """Count an unsent message."""
        if expiry:
            self.expiries.append(expiry)
            self.expiring.append(store_id)
        else:
            self.queued += 1
            self.oldest = store_id if self.oldest is None else min(self.oldest, store_id)

    def sort(self) -> None:
        """Order the messages by expiry, after the last one was counted."""
        pairs = sorted(zip(self.expiries, self.expiring, strict=True))
        self.expiries = array("q", (expiry for expiry, _ in pairs))
        lowest = accumulate((store_id for _, store_id in reversed(pairs)), min)
        self.expiring = array("Q", reversed([*lowest]))

    def queued_at(self, now: float) -> int:
        """Return the number of unsent messages that have not expired at a Unix time."""
        return self.queued + len(self.expiries) - bisect_right(self.expiries, int(now))


class _Chunk(NamedTuple):
    kind: int
    at: int  # position of the content
    length: int
    beginning: bytes


class Saved(NamedTuple):
    """The content of a file: the queues by client id, and the store id of the latest message; None if unknown."""

    queues: dict[str, SavedQueue]
    latest: int | None


def read(stream: BinaryIO, check: Callable[[], None]) -> Saved:
    """Return the content of a file; DamagedError if it is not valid.

    `check` is called before each chunk; an exception that it raises ends the reading.
    """
    queues: dict[str, SavedQueue] = {}
    expiries: dict[bytes, int] = {}
    latest: int | None = None
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    version = _version(stream.read(_HEAD.size))
    for chunk in _chunks(stream, size):
        check()
        if chunk.kind == _TYPE_STORED:
            _note_expiry(expiries, chunk)
        elif chunk.kind == _TYPE_CONFIG and len(chunk.beginning) >= _ID.size:
            (latest,) = _ID.unpack_from(chunk.beginning)
        elif chunk.kind == _TYPE_MESSAGE:
            _count(queues, expiries, _body(stream, chunk), chunk.at)
        elif chunk.kind == _TYPE_CLIENT:
            queues.setdefault(_client_id(_body(stream, chunk), version, chunk.at), SavedQueue())
        if len(queues) > MAX_CLIENTS:
            msg = f"more than {MAX_CLIENTS} clients"
            raise DamagedError(msg)
    for queue in queues.values():
        queue.sort()
    return Saved(queues, latest)


def _note_expiry(expiries: dict[bytes, int], chunk: _Chunk) -> None:
    """Record the expiry of a stored message; stored messages precede the clients' queues."""
    if chunk.length < _STORED.size:
        raise _too_short(chunk.at)
    if len(chunk.beginning) < _STORED.size:
        raise _truncated(chunk.at)
    name, expiry = _STORED.unpack(chunk.beginning)
    if expiry > 0:
        expiries[name] = expiry
    if len(expiries) > MAX_EXPIRING:
        msg = f"more than {MAX_EXPIRING} messages with an expiry"
        raise DamagedError(msg)


def _version(head: bytes) -> int:
    if not head.startswith(_MAGIC):
        msg = "not a persistence file of mosquitto (mosquitto.db)"
        raise DamagedError(msg)
    if len(head) < _HEAD.size:
        raise _truncated(len(head))
    version: int = _HEAD.unpack(head)[2]
    if version not in {5, 6}:
        msg = f"mosquitto.db has format {version} (expected 5 or 6, of mosquitto 1.6 and later)"
        raise DamagedError(msg)
    return version


def _chunks(stream: BinaryIO, size: int) -> Iterator[_Chunk]:
    at = _HEAD.size
    while at < size:
        stream.seek(at)
        head = stream.read(_READ_BYTES.size + _STORED.size)
        if len(head) < _READ_BYTES.size:
            raise _truncated(at)
        kind, length = _READ_BYTES.unpack_from(head)
        chunk = _Chunk(kind, at + _READ_BYTES.size, length, head[_READ_BYTES.size :])
        at = chunk.at + length
        if kind not in _TYPES:
            msg = f"damaged at byte {chunk.at}: unknown chunk type {kind}"
            raise DamagedError(msg)
        if at > size:
            raise _truncated(chunk.at)
        yield chunk


def _body(stream: BinaryIO, chunk: _Chunk) -> bytes:
    if chunk.length > MAX_CLIENT_CHUNK:
        msg = f"damaged at byte {chunk.at}: {chunk.length} bytes for one client"
        raise DamagedError(msg)
    stream.seek(chunk.at)
    return stream.read(chunk.length)


def _count(queues: dict[str, SavedQueue], expiries: dict[bytes, int], body: bytes, at: int) -> None:
    if len(body) < _MESSAGE.size:
        raise _too_short(at)
    stored, _, length, _, state, _, direction = _MESSAGE.unpack_from(body)
    if direction != _OUT:
        return
    queue = queues.setdefault(_text(body, _MESSAGE.size, length, at), SavedQueue())
    if state in _UNSENT:
        queue.note(_ID.unpack(stored)[0], expiries.get(stored) if expiries else None)
    else:
        queue.in_flight += 1


def _client_id(body: bytes, version: int, at: int) -> str:
    """Return the client id after the fixed fields, whose padding depends on the broker's machine."""
    layout = _CLIENT_5 if version == 5 else _CLIENT_6  # noqa: PLR2004  # the layout's name says it
    if len(body) < layout.size:
        raise _too_short(at)
    if layout is _CLIENT_5:
        (length,), user = layout.unpack_from(body), 0
    else:
        length, _, user = layout.unpack_from(body)
    begin = len(body) - length - user
    if begin < layout.size:
        raise _too_short(at)
    return _text(body, begin, length, at)


def _text(body: bytes, begin: int, length: int, at: int) -> str:
    if begin + length > len(body):
        raise _too_short(at)
    text = body[begin : begin + length].decode("utf-8", "replace")
    if len(text) <= MAX_CLIENT_ID:
        return text
    digest = blake2b(body[begin : begin + length], digest_size=16).hexdigest()
    return f"{text[:MAX_CLIENT_ID]}...{digest}"


def _truncated(at: int) -> DamagedError:
    return DamagedError(f"truncated at byte {at}")


def _too_short(at: int) -> DamagedError:
    return DamagedError(f"damaged at byte {at}: the chunk is too short for its content")
