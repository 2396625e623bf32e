"""A broker that behaves as badly as a test wants it to: it answers packets, and hangs up at some."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

CONNECT, CONNACK, PUBLISH, SUBSCRIBE, PINGREQ, DISCONNECT = 1, 2, 3, 8, 12, 14
#: What is done with a packet: its type, its body without the head; returns the reply, None to hang up.
Answer = Callable[[int, bytes], bytes | None]
#: Serves each connection with an answer, and returns the port.
FakeBroker = Callable[..., int]
_KEY_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def packet(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Return a packet."""
    size, spelled = len(body), bytearray()
    while size > 127:
        spelled.append(size & 127 | 128)
        size >>= 7
    return bytes([kind << 4 | flags, *spelled, size]) + body


def publish(topic: str, payload: bytes) -> bytes:
    """Return a PUBLISH of QoS 0, by MQTT 3.1.1."""
    return packet(PUBLISH, len(topic).to_bytes(2, "big") + topic.encode() + payload)


def filters_of(body: bytes) -> list[str]:
    """Return the filters in a SUBSCRIBE of MQTT 3.1.1."""
    found, at = [], 2
    while at < len(body):
        size = int.from_bytes(body[at : at + 2])
        found.append(body[at + 2 : at + 2 + size].decode())
        at += size + 3
    return found


def lets_in(kind: int, body: bytes) -> bytes | None:
    """Answer as a broker does that publishes nothing."""
    if kind == CONNECT:
        return packet(CONNACK, b"\x00\x00")
    if kind == SUBSCRIBE:
        return packet(9, body[:2] + bytes(len(filters_of(body))))
    return packet(13) if kind == PINGREQ else b""


def accept_websocket(connection: socket.socket) -> None:
    """Answer a WebSocket handshake."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    key = head.lower().partition(b"sec-websocket-key: ")[2].partition(b"\r\n")[0]
    at = head.lower().index(b"sec-websocket-key: ") + 19
    key = head[at : at + len(key)]
    accept = base64.b64encode(hashlib.sha1(key + _KEY_SUFFIX, usedforsecurity=False).digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def frame(payload: bytes, opcode: int = 2) -> bytes:
    """Return a WebSocket frame as servers send it."""
    size = len(payload)
    if size < 126:
        head = bytes([size])
    else:
        head = b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
    return bytes([0x80 | opcode]) + head + payload


def _packets(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    stream = connection.makefile("rb")
    while head := stream.read(1):
        size = shift = 0
        while True:
            byte = stream.read(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        yield head[0] >> 4, stream.read(size)


def converse(connection: socket.socket, answer: Answer) -> None:
    """Answer packets until the end of the connection, or of patience."""
    for kind, body in _packets(connection):
        reply = answer(kind, body)
        if reply is None:
            return
        connection.sendall(reply)


@pytest.fixture
def fake_broker() -> Iterator[FakeBroker]:
    """Return a function that serves each connection with a function, or with an answer to packets."""
    listeners: list[socket.socket] = []

    def serve(answer: Answer = lets_in, talk: Callable[[socket.socket], None] | None = None) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError, IndexError):
                connection.settimeout(60)
                if talk:
                    talk(connection)
                else:
                    converse(connection, answer)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield serve
    for listener in listeners:
        listener.close()
