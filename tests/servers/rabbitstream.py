"""A client of RabbitMQ's stream protocol that reads only as many chunks as a test asks for."""

from __future__ import annotations

import socket
import struct
from typing import Self

PEER_PROPERTIES, SASL_HANDSHAKE, SASL_AUTHENTICATE = 17, 18, 19
TUNE, OPEN, SUBSCRIBE, CREDIT = 20, 21, 7, 9
#: In the key of an answer.
ANSWER = 0x8000
OK = 1


class StreamReader:
    """A subscription to a stream from its beginning; the broker sends one chunk for each credit."""

    def __init__(self, port: int, stream: str, name: str = "") -> None:
        """Subscribe without any credit; a chunk is what one publisher sent at once."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._stream = self._socket.makefile("rb")
        self._ask(PEER_PROPERTIES, struct.pack(">I", 0))
        self._ask(SASL_HANDSHAKE)
        credentials = b"\0guest\0guest"
        self._ask(
            SASL_AUTHENTICATE, _text("PLAIN") + struct.pack(">I", len(credentials)) + credentials
        )
        tune = self._await(TUNE)
        self._send(TUNE, tune[:4] + struct.pack(">I", 0))
        self._ask(OPEN, _text("/"))
        first, credit = 1, 0
        properties = struct.pack(">I", bool(name)) + (_text("name") + _text(name) if name else b"")
        what = b"\0" + _text(stream) + struct.pack(">HH", first, credit) + properties
        self._ask(SUBSCRIBE, what)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def read(self, chunks: int) -> None:
        """Let the broker send so many chunks more."""
        self._send(CREDIT, b"\0" + struct.pack(">H", chunks))

    def _ask(self, key: int, content: bytes = b"") -> None:
        self._send(key, struct.pack(">I", 1) + content)
        _, code = struct.unpack(">IH", self._await(ANSWER | key)[:6])
        assert code == OK, (key, code)

    def _send(self, key: int, content: bytes) -> None:
        self._socket.sendall(struct.pack(">IHH", len(content) + 4, key, 1) + content)

    def _await(self, key: int) -> bytes:
        while True:
            size, found, _ = struct.unpack(">IHH", self._stream.read(8))
            content = self._stream.read(size - 4)
            if found == key:
                return content


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text.encode())) + text.encode()
