"""Size limits of HTTP responses: announced sizes are checked before memory is allocated.

`http.client` limits lines and the number of headers. It does not limit interim responses, trailers or
chunks of negative size, and a packed body can be a thousand times as large when it is unpacked.
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

from bts_exporter.http_response import ByteBudget, ResponseTooLargeError

#: Bytes for status line and headers, and for the framing of the body.
MAX_FRAMING_BYTES = 1024 * 1024
#: Bytes that are read at a time, and unpacked at a time.
CHUNK_BYTES = 256 * 1024

_GZIP = zlib.MAX_WBITS | 16


class LimitedResponse(PlainResponse):
    """A response that fails as soon as more than `limit` bytes arrive, in any part of it."""

    def __init__(self, sock: socket.socket, *args: Any, limit: int, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_LimitedReader(self.fp.detach(), limit))


class _LimitedReader(io.RawIOBase):
    """The bytes of a socket, up to a limit."""

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
            raise ResponseTooLargeError(msg)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def read_body(response: HTTPResponse, budget: ByteBudget, deadline: float) -> bytearray:
    """Return the unpacked body; ResponseTooLargeError if it exceeds `budget`.

    TimeoutError after `deadline` (on the clock of `time.monotonic`): a body of unknown length that was
    cut off at the deadline looks complete.
    """
    announced = response.length_remaining
    if announced is not None and announced > budget.remaining:
        raise budget.exceeded()
    # One growing buffer: joining pieces takes twice the memory and leaves it fragmented.
    body = bytearray()
    for part in _unpacked(response):
        budget.spend(len(part))
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
            msg = f"the server chose the encoding {other[:40]!r}, which was not requested"
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
        msg = "the compressed response is incomplete"
        raise exceptions.ProtocolError(msg)


def _unpack(unpacker: Any, packed: bytes) -> Iterator[bytes]:
    """Yield the unpacked content of `packed` in pieces of bounded size."""
    part = unpacker.decompress(packed, CHUNK_BYTES)
    while part:
        yield part
        if unpacker.eof:
            return
        # More output may follow a full part, even when all input has been used.
        part = unpacker.decompress(unpacker.unconsumed_tail, CHUNK_BYTES)
