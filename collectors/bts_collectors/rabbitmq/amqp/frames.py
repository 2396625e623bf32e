"""Checks sizes that a broker announces over AMQP 0-9-1: pika's own buffers are unlimited."""

from __future__ import annotations

from typing import Any

import pika  # type: ignore[import-untyped]
from pika import exceptions

#: Maximum size of a frame, as pika negotiates it.
MAX_FRAME = 131072
#: Maximum size of a message: probes have 16 bytes, and canary queues hold nothing else.
MAX_BODY = 1024 * 1024
#: Bytes that may arrive for one request, in frames of any size.
MAX_ARRIVING = 4 * 1024 * 1024

_FRAME_HEAD = 7  # type, channel, size
_CONTENT_HEAD = 12  # class, weight, size of the body
_METHOD, _CONTENT, _BODY, _HEARTBEAT = 1, 2, 3, 8
_TYPES = {_METHOD, _CONTENT, _BODY, _HEARTBEAT}

#: Start of the replies of other protocols.
_HTTP = b"HTTP"
_TLS_ALERT = b"\x15\x03"
_PROTOCOL = b"AMQP"
_USUAL = "RabbitMQ's port for AMQP is usually 5672, over TLS 5671"


class FrameGuard:
    """Checks the frames of one connection; `failure` is the error text, empty if there is none."""

    def __init__(self) -> None:
        self.failure = ""
        self.begin()

    def begin(self) -> None:
        """Start with a new connection."""
        self._head = b""
        #: Bytes of the current frame that have not arrived yet.
        self._rest = 0
        self._began = False
        self.allow()

    def allow(self) -> None:
        """Allow MAX_ARRIVING bytes for the next request."""
        self.failure = ""
        self._room = MAX_ARRIVING

    def check(self, data: bytes) -> None:
        """Check received bytes; InvalidFrameError if they are too many, or not AMQP."""
        self._room -= len(data)
        if self._room < 0:
            self._refuse(f"the broker sent more than {MAX_ARRIVING} bytes in reply to one request")
        view = memoryview(data)
        while view:
            if self._rest:
                taken = min(self._rest, len(view))
                self._rest -= taken
            else:
                taken = self._take_head(view)
            view = view[taken:]

    def _take_head(self, view: memoryview) -> int:
        """Consume bytes of the frame header; return how many."""
        wanted = _FRAME_HEAD
        if len(self._head) >= _FRAME_HEAD:
            wanted += min(_CONTENT_HEAD, self._size())
        taken = min(wanted - len(self._head), len(view))
        self._head += bytes(view[:taken])
        if not self._began:
            self._check_protocol()
        if len(self._head) == wanted:
            self._check_head()
        return taken

    def _check_protocol(self) -> None:
        for start, what in (
            (_HTTP, f"this is a port of HTTP, not of AMQP; {_USUAL}"),
            (_TLS_ALERT, "this port speaks TLS: write amqps:// in the address"),
        ):
            if start.startswith(self._head[: len(start)]) and len(self._head) >= len(start):
                self._refuse(what)
        if self._head[:4] == _PROTOCOL:
            self._refuse("the broker speaks another version of AMQP than 0-9-1")

    def _size(self) -> int:
        return int.from_bytes(self._head[3:7])

    def _check_head(self) -> None:
        kind, size = self._head[0], self._size()
        if kind not in _TYPES:
            what = f"a frame begins with {self._head!r}"
            self._refuse(f"not AMQP 0-9-1 ({what}); {_USUAL}")
        if size > MAX_FRAME:
            self._refuse(f"the broker announces a frame of {size} bytes (maximum {MAX_FRAME})")
        self._began = True
        if kind == _CONTENT and len(self._head) == _FRAME_HEAD and size:
            return  # the size of the body follows
        if kind == _CONTENT and len(self._head) == _FRAME_HEAD + _CONTENT_HEAD:
            body = int.from_bytes(self._head[-8:])
            if body > MAX_BODY:
                self._refuse(f"a message of {body} bytes is in the queue (maximum {MAX_BODY})")
        self._rest = size + 1 - (len(self._head) - _FRAME_HEAD)  # with the end marker
        self._head = b""

    def _refuse(self, what: str) -> None:
        self.failure = what
        raise exceptions.InvalidFrameError(what)


class GuardedConnection(pika.SelectConnection):  # type: ignore[misc]
    """A connection that checks received bytes with the guard of its subclass."""

    guard: FrameGuard

    def _on_data_available(self, data_in: bytes) -> None:
        # Overridden: pika aborts the connection for any error that is raised here.
        self.guard.check(data_in)
        super()._on_data_available(data_in)


def guarded(guard: FrameGuard) -> Any:
    """Return a connection class that is checked by `guard`; for one connection at a time."""
    guard.begin()
    return type("GuardedConnection", (GuardedConnection,), {"guard": guard})
