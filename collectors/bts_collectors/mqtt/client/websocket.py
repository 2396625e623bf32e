"""A WebSocket with the interface of a socket (RFC 6455), and with limits on announced lengths.

paho's own WebSocket reads a few bytes at a time, one frame per call, and trusts every announced length.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
from contextlib import suppress
from time import monotonic

#: Bytes of the server's handshake reply.
MAX_HEAD = 16 * 1024
#: Bytes of a frame: more than the largest MQTT packet.
MAX_FRAME = 256 * 1024 * 1024 + 16
#: Bytes of unsent pongs, for a server that does not read.
_MAX_UNSENT = 64 * 1024
_MAX_CONTROL = 125
_KEY_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FINAL, _RESERVED, _CONTROL, _MASKED = 0x80, 0x70, 0x08, 0x80
_LENGTH_2, _LENGTH_8 = 126, 127  # the length follows in 2 or in 8 bytes

Socket = socket.socket | ssl.SSLSocket


class WebSocketError(ConnectionError):
    """Raised when the server violates the WebSocket protocol, or does not speak it."""


def read_available(sock: Socket, most: int) -> bytes:
    """Return what can be read without waiting, up to about `most` bytes; b"" at the end.

    BlockingIOError if there is nothing. TLS returns one record per call and brokers send each
    message in its own record, so this reads until there are no more records.
    """
    if not isinstance(sock, ssl.SSLSocket):
        return sock.recv(most)
    parts: list[bytes] = []
    while most > 0:
        try:
            part = sock.recv(min(most, 16384))  # the longest record
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            break
        if not part:
            return b"".join(parts)
        parts.append(part)
        most -= len(part)
    if not parts:
        raise BlockingIOError
    return b"".join(parts)


class WebSocket:
    """The socket methods that paho uses: `recv`, `send`, `pending`, `fileno`, `setblocking`, `close`."""

    def __init__(self, sock: Socket, host: str, path: str, timeout_seconds: float) -> None:
        """Perform the handshake within `timeout_seconds`; OSError if it fails."""
        self._socket = sock
        self._raw = b""  # an incomplete frame header
        self._left = 0  # bytes still to come of the frame's payload
        self._opcode = _BINARY
        self._control = b""  # payload of a ping or close frame so far
        self._unsent = bytearray()
        self._accepted = 0  # bytes of paho's last send that are in `_unsent`
        self._closed = False
        self._shake_hands(host, path, monotonic() + timeout_seconds)

    def recv(self, most: int) -> bytes:
        """Return the received payload; b"" at the end, BlockingIOError if there is none yet."""
        while not self._closed:
            data = read_available(self._socket, most)
            if not data:
                return b""
            if payload := self._payload(self._raw + data):
                return payload
        return b""

    def send(self, data: bytes) -> int:
        """Send all of `data`, and return its length.

        BlockingIOError if some of it is still unsent: call again with the same data.
        """
        if not self._accepted:
            self._unsent += _frame(_BINARY, data)
            self._accepted = len(data)
        self._flush()
        if self._unsent:
            raise BlockingIOError
        sent, self._accepted = self._accepted, 0
        return sent

    def pending(self) -> int:
        """Return the number of bytes that TLS has read from the kernel and not returned yet."""
        return self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0

    def fileno(self) -> int:
        """Return the descriptor, for `select`."""
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001  # socket's signature
        """Set whether calls block."""
        self._socket.setblocking(flag)

    def getpeername(self) -> object:
        """Return the address of the server."""
        return self._socket.getpeername()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _flush(self) -> None:
        sent = self._socket.send(self._unsent)
        del self._unsent[:sent]

    def _payload(self, raw: bytes) -> bytes:
        """Return the payload of the data frames in `raw`, and handle control frames."""
        at, parts = 0, []
        while at < len(raw) and not self._closed:
            if not self._left:
                begin = self._open_frame(raw, at)
                if begin is None:
                    break
                at = begin
            part = raw[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            if self._opcode & _CONTROL:
                self._take_control(part)
            elif part:
                parts.append(part)
        self._raw = raw[at:]
        return b"".join(parts)

    def _open_frame(self, raw: bytes, at: int) -> int | None:
        """Read a frame header; return the position of the payload, or None if the header is incomplete."""
        if len(raw) < at + 2:
            return None
        flags, length = raw[at], raw[at + 1]
        at += 2
        if length & _MASKED:
            msg = "a masked frame from the server"
            raise WebSocketError(msg)
        wide = {_LENGTH_2: 2, _LENGTH_8: 8}.get(length, 0)
        if len(raw) < at + wide:
            return None
        if wide:
            length = int.from_bytes(raw[at : at + wide])
        _check_frame(flags, length)
        self._opcode, self._left, self._control = flags & 0xF, length, b""
        return at + wide

    def _take_control(self, part: bytes) -> None:
        self._control += part
        if self._left or self._opcode == _PONG:
            return
        self._closed = self._opcode == _CLOSE
        if len(self._unsent) < _MAX_UNSENT:
            self._unsent += _frame(_PONG if self._opcode == _PING else _CLOSE, self._control)
        with suppress(OSError):  # the rest is sent with the next packet
            self._flush()

    def _shake_hands(self, host: str, path: str, deadline: float) -> None:
        key = base64.b64encode(os.urandom(16))
        secure = isinstance(self._socket, ssl.SSLSocket)
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Origin: {'https' if secure else 'http'}://{host}\r\n"
            f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        self._socket.settimeout(_seconds_until(deadline))
        self._socket.sendall(request.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            self._socket.settimeout(_seconds_until(deadline))
            data = self._socket.recv(4096)
            head += data
            if not data:
                raise ConnectionAbortedError
            if not head.startswith(b"HTTP/"[: len(head)]):
                msg = f"the server does not speak HTTP, it sent {head[:16]!r}"
                raise WebSocketError(msg)
            if len(head) > MAX_HEAD:
                msg = f"a reply with more than {MAX_HEAD} bytes of headers"
                raise WebSocketError(msg)
        head, _, self._raw = head.partition(b"\r\n\r\n")
        _check_reply(head, key)


def _seconds_until(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _check_reply(head: bytes, key: bytes) -> None:
    """Raise WebSocketError if the server's reply does not accept the handshake."""
    status, *lines = head.decode("latin-1").split("\r\n")
    code = status.split(" ")[1:2]
    if code != ["101"]:
        msg = f"unexpected reply {status[:80]!r} (expected status 101)"
        raise WebSocketError(msg)
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    accept = base64.b64encode(hashlib.sha1(key + _KEY_SUFFIX, usedforsecurity=False).digest())
    if headers.get("sec-websocket-accept") != accept.decode():
        msg = "the server's Sec-WebSocket-Accept is wrong"
        raise WebSocketError(msg)


def _check_frame(flags: int, length: int) -> None:
    """Raise WebSocketError for a frame that an MQTT server must not send."""
    opcode = flags & 0xF
    if opcode not in {_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG} or flags & _RESERVED:
        what = "a text frame" if opcode == _TEXT else f"a frame of type {opcode}"
        msg = f"{what} instead of a binary one"
        raise WebSocketError(msg)
    if opcode & _CONTROL and (length > _MAX_CONTROL or not flags & _FINAL):
        msg = f"a control frame of {length} bytes"
        raise WebSocketError(msg)
    if length > MAX_FRAME:
        msg = f"a frame of {length} bytes, more than any MQTT packet"
        raise WebSocketError(msg)


def _frame(opcode: int, data: bytes) -> bytes:
    """Return a complete, masked frame, as clients must send it."""
    size = len(data)
    if size < _LENGTH_2:
        length = bytes([_MASKED | size])
    elif size <= 0xFFFF:  # noqa: PLR2004  # the largest 2-byte length
        length = bytes([_MASKED | _LENGTH_2]) + size.to_bytes(2)
    else:
        length = bytes([_MASKED | _LENGTH_8]) + size.to_bytes(8)
    mask = os.urandom(4)
    masks = int.from_bytes((mask * (size // 4 + 1))[:size])
    masked = (int.from_bytes(data) ^ masks).to_bytes(size)
    return bytes([_FINAL | opcode]) + length + mask + masked
