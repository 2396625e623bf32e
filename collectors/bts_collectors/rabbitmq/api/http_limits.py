"""Limits of what a server may send: what it announces is checked before anything is allocated.

`http.client` bounds lines and the number of headers. It bounds neither interim responses, trailers
nor a chunk of negative size, which it reads to the end; and unpacking multiplies by a thousand.
"""

from __future__ import annotations

import io
import socket
import zlib
from collections.abc import Iterator
from http.client import HTTPResponse as PlainResponse
from time import monotonic
from typing import Any

from urllib3 import exceptions
from urllib3.response import HTTPResponse

#: Bytes, unpacked, of all replies of one collection: about 40,000 queues in full, 250,000 by depth.
MAX_BYTES = 64 * 1024 * 1024
#: Bytes for the head of a reply, and for what frames its body.
MAX_FRAMING = 1024 * 1024
#: Bytes that are read at a time, and unpacked at a time.
CHUNK_BYTES = 256 * 1024

_GZIP = zlib.MAX_WBITS | 16


class TooLong(exceptions.HTTPError):
    """Raised when a server sends more than is accepted."""


class Allowance:
    """The bytes that the replies of one collection may still have, unpacked."""

    def __init__(self, size: int | None = None) -> None:
        """Begin with `size` bytes, MAX_BYTES if it is not given."""
        self._size = MAX_BYTES if size is None else size
        self._total = self._size
        self._floor = 0

    @property
    def left(self) -> int:
        """Return how many bytes the next reply may have."""
        return self._total - self._floor

    def begin(self, share: float) -> None:
        """Give the next reply a share of what is left: the rest is for those that follow."""
        self._floor = int(self._total * (1 - share))

    def take(self, size: int) -> None:
        """Use up `size` bytes; TooLong if there are not as many left."""
        left = self.left
        self._total -= min(size, left)
        if size > left:
            raise self.exceeded()

    def exceeded(self) -> TooLong:
        """Return the error for a reply that is too long."""
        msg = (
            f"the reply is longer than its part of the {self._size} bytes for all of a collection;"
            " select fewer queues (queues_include, vhosts_include), or lower"
            " max_detailed_queues"
        )
        return TooLong(msg)


class LimitedResponse(PlainResponse):
    """A response that is given up when more arrives than `limit` bytes, in whatever part of it."""

    def __init__(self, sock: socket.socket, *args: Any, limit: int, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Metered(self.fp.detach(), limit))


class _Metered(io.RawIOBase):
    """A socket's bytes, as far as the limit."""

    def __init__(self, raw: io.RawIOBase, limit: int) -> None:
        self._raw = raw
        self._limit = self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        count = self._raw.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            msg = f"a response of more than {self._limit} bytes"
            raise TooLong(msg)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def read_body(response: HTTPResponse, allowance: Allowance, deadline: float) -> bytearray:
    """Return the body, unpacked; TooLong if it is longer than `allowance` has left.

    TimeoutError after `deadline`, on the clock of `time.monotonic`: a body of unknown length that
    was cut off then looks complete.
    """
    announced = response.length_remaining
    if announced is not None and announced > allowance.left:
        raise allowance.exceeded()
    # One buffer that grows: pieces to be joined took twice the memory, and left it in fragments.
    body = bytearray()
    for part in _unpacked(response):
        allowance.take(len(part))
        body += part
        check_time(deadline)
    check_time(deadline)
    return body


def check_time(deadline: float) -> None:
    """Raise TimeoutError after `deadline`."""
    if monotonic() >= deadline:
        raise TimeoutError


def _unpacked(response: HTTPResponse) -> Iterator[bytes]:
    match response.headers.get("Content-Encoding", "identity").strip().lower():
        case "identity" | "":
            return _pieces(response)
        case "gzip" | "x-gzip":
            return _gunzip(_pieces(response))
        case other:
            msg = f"an answer in the encoding {other[:40]!r}, which was not asked for"
            raise exceptions.HTTPError(msg)


def _pieces(response: HTTPResponse) -> Iterator[bytes]:
    while piece := response.read(CHUNK_BYTES, decode_content=False):
        yield piece


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    unpacker: Any = None
    for packed in pieces:
        rest = packed
        while rest:
            if unpacker is None or unpacker.eof:
                unpacker = zlib.decompressobj(_GZIP)
            yield from _unpack(unpacker, rest)
            rest = unpacker.unused_data
    if unpacker is not None and not unpacker.eof:
        msg = "the packed answer is cut off"
        raise exceptions.ProtocolError(msg)


def _unpack(unpacker: Any, packed: bytes) -> Iterator[bytes]:
    """Yield what `packed` unpacks to, a piece at a time, however much it is."""
    part = unpacker.decompress(packed, CHUNK_BYTES)
    while part:
        yield part
        if unpacker.eof:
            return
        # A full part may be followed by more, even where all of the input has been used.
        part = unpacker.decompress(unpacker.unconsumed_tail, CHUNK_BYTES)
