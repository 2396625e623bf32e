"""Connections that are refused: answered by the listener itself, without a thread."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic

from bts_exporter.web.connections import LINGER_SECONDS, close_socket


def refusal(status: HTTPStatus, text: str, fields: str) -> bytes:
    """Return a response with the header `fields`, after which the connection is closed."""
    body = f"{text}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Server: bts-exporter\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"{fields}"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


class Refusals:
    """Refused connections that are given LINGER_SECONDS to take the refusal."""

    def __init__(self, selector: selectors.BaseSelector, most: int) -> None:
        """Take the number of connections at a time."""
        self._selector = selector
        self._most = most
        self._until: dict[socket.socket, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, sock: socket.socket, answer: bytes) -> None:
        """Send `answer`, which is empty for a client of TLS, without waiting for the client."""
        sock.setblocking(False)
        try:
            if answer:
                sock.send(answer)
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # gone already
            close_socket(sock)
            return
        # Closing now would answer a request still on its way with a reset, which destroys the refusal.
        self._until[sock] = monotonic() + LINGER_SECONDS
        discard: Callable[[], None] = lambda: self.discard(sock)  # noqa: E731  # typed
        self._selector.register(sock, selectors.EVENT_READ, discard)
        if len(self._until) > self._most:
            self._end(next(iter(self._until)))

    def discard(self, sock: socket.socket) -> None:
        """Read what the client still sends; close the connection at its end."""
        try:
            gone = not sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._end(sock)

    def expire(self, now: float) -> None:
        """Close the connections whose time is over."""
        for sock in [sock for sock, end in self._until.items() if end < now]:
            self._end(sock)

    def first_deadline(self) -> float:
        """Return when the first connection has lingered long enough."""
        return min(self._until.values(), default=float("inf"))

    def close(self) -> None:
        """Close all."""
        for sock in list(self._until):
            self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        # Already done if another event of this turn needed its place.
        if self._until.pop(sock, None) is not None:
            self._selector.unregister(sock)
            close_socket(sock)
