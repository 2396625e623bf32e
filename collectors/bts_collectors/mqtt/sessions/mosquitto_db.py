"""Messages that wait for each client, from the file in which mosquitto saves its sessions.

Pure: a stream goes in. The broker writes a new file and renames it over the old one, so that an
open one does not change. Its format: `src/persist.h` of mosquitto, the same from 1.6 to 2.1.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import BinaryIO, NamedTuple

#: More clients than these are taken for damage: they would be kept in memory.
MAX_CLIENTS = 100_000
#: As are longer chunks about one client, in bytes: two names and what stands before them.
MAX_CLIENT_CHUNK = 2 * 65535 + 1024
#: Characters of an id; in the place of a longer one there is a longer one with a digest.
MAX_CLIENT_ID = 128
#: More messages that expire than these are not kept account of.
MAX_EXPIRING = 1_000_000

_MAGIC = b"\x00\xb5\x00mosquitto db"
_HEAD = struct.Struct(">15sII")  # magic, checksum (unused), version
_READ_BYTES = struct.Struct(">II")  # type, length of what follows
_CLIENT_5 = struct.Struct(">8x4x2xH")  # expiry, interval, last packet id, length of the id
_CLIENT_6 = struct.Struct(">8x4x2xHHH")  # as before, port, length of the user's name
#: Store id, packet id, length of the id, QoS, state, flags, way.
_MESSAGE = struct.Struct(">8sHHBBBB")
#: Store id, and Unix time of the expiry or 0, in the order of the broker's processor.
_STORED = struct.Struct("=8sq")

_TYPE_CLIENT = 6
_TYPE_MESSAGE = 3
_TYPE_STORED = 2
_TYPES = range(1, 7)
_OUT = 1  # the way to the client
#: States of a message that was not sent yet: to be published with QoS 0, 1, 2, or in the queue.
_UNSENT = {1, 2, 4, 11}


class DamagedError(ValueError):
    """Raised when a file is none of mosquitto's, or not whole; says where."""


@dataclass(slots=True)
class SavedQueue:
    """Messages for one client: not sent yet, and sent but not acknowledged."""

    #: Those that do not expire.
    queued: int = 0
    in_flight: int = 0
    #: Unix times at which others of the queue expire; rising.
    expiries: array[int] = field(default_factory=lambda: array("q"))

    def queued_at(self, now: float) -> int:
        """Return the messages that are not sent yet and have not expired at a Unix time."""
        return self.queued + len(self.expiries) - bisect_right(self.expiries, int(now))


class _Chunk(NamedTuple):
    kind: int
    at: int  # where its content begins
    length: int
    beginning: bytes


def read(stream: BinaryIO, check: Callable[[], None]) -> dict[str, SavedQueue]:
    """Return what waits, by client id; DamagedError where that cannot be told.

    `check` is called before each chunk: what it raises ends the reading.
    """
    found: dict[str, SavedQueue] = {}
    expiries: dict[bytes, int] = {}
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    version = _version(stream.read(_HEAD.size))
    for chunk in _chunks(stream, size):
        check()
        if chunk.kind == _TYPE_STORED:
            _note_expiry(expiries, chunk)
        elif chunk.kind == _TYPE_MESSAGE:
            _count(found, expiries, _body(stream, chunk), chunk.at)
        elif chunk.kind == _TYPE_CLIENT:
            found.setdefault(_client_id(_body(stream, chunk), version, chunk.at), SavedQueue())
        if len(found) > MAX_CLIENTS:
            msg = f"more than {MAX_CLIENTS} clients"
            raise DamagedError(msg)
    for waiting in found.values():
        waiting.expiries = array("q", sorted(waiting.expiries))
    return found


def _note_expiry(expiries: dict[bytes, int], chunk: _Chunk) -> None:
    """Remember when a stored message expires; the file has all of them before the clients' queues."""
    if chunk.length < _STORED.size:
        raise _too_short(chunk.at)
    if len(chunk.beginning) < _STORED.size:
        raise _cut_short(chunk.at)
    name, expiry = _STORED.unpack(chunk.beginning)
    if expiry > 0:
        expiries[name] = expiry
    if len(expiries) > MAX_EXPIRING:
        msg = f"more than {MAX_EXPIRING} messages that expire"
        raise DamagedError(msg)


def _version(head: bytes) -> int:
    if not head.startswith(_MAGIC):
        msg = "not a file of mosquitto's sessions (mosquitto.db)"
        raise DamagedError(msg)
    if len(head) < _HEAD.size:
        raise _cut_short(len(head))
    version: int = _HEAD.unpack(head)[2]
    if version not in {5, 6}:
        msg = f"format {version} of mosquitto.db: known are 5 and 6 (mosquitto 1.6 and later)"
        raise DamagedError(msg)
    return version


def _chunks(stream: BinaryIO, size: int) -> Iterator[_Chunk]:
    at = _HEAD.size
    while at < size:
        stream.seek(at)
        head = stream.read(_READ_BYTES.size + _STORED.size)
        if len(head) < _READ_BYTES.size:
            raise _cut_short(at)
        kind, length = _READ_BYTES.unpack_from(head)
        chunk = _Chunk(kind, at + _READ_BYTES.size, length, head[_READ_BYTES.size :])
        at = chunk.at + length
        if kind not in _TYPES:
            msg = f"damaged at byte {chunk.at}: no chunk of type {kind} is known"
            raise DamagedError(msg)
        if at > size:
            raise _cut_short(chunk.at)
        yield chunk


def _body(stream: BinaryIO, chunk: _Chunk) -> bytes:
    if chunk.length > MAX_CLIENT_CHUNK:
        msg = f"damaged at byte {chunk.at}: {chunk.length} bytes about one client"
        raise DamagedError(msg)
    stream.seek(chunk.at)
    return stream.read(chunk.length)


def _count(found: dict[str, SavedQueue], expiries: dict[bytes, int], body: bytes, at: int) -> None:
    if len(body) < _MESSAGE.size:
        raise _too_short(at)
    stored, _, length, _, state, _, way = _MESSAGE.unpack_from(body)
    if way != _OUT:
        return
    waiting = found.setdefault(_text(body, _MESSAGE.size, length, at), SavedQueue())
    expiry = expiries.get(stored) if expiries else None
    if state in _UNSENT and expiry:
        waiting.expiries.append(expiry)
    elif state in _UNSENT:
        waiting.queued += 1
    else:
        waiting.in_flight += 1


def _client_id(body: bytes, version: int, at: int) -> str:
    """Return the id behind the numbers, whose padding depends on the broker's processor."""
    layout = _CLIENT_5 if version == 5 else _CLIENT_6  # noqa: PLR2004  # named beside
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


def _cut_short(at: int) -> DamagedError:
    return DamagedError(f"cut short at byte {at}")


def _too_short(at: int) -> DamagedError:
    return DamagedError(f"damaged at byte {at}: the chunk is too short for what it says to hold")
