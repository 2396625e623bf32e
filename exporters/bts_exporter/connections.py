"""The connections of the HTTP server: how many there are, what each is at, and until when.

A deadline covers a whole phase: a time-out per recv never ends for a client that drips bytes.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from time import monotonic
from typing import TypeVar

Wrapped = TypeVar("Wrapped", bound=socket.socket)

#: Seconds that a client has to take the last answer before the connection is closed.
LINGER_SECONDS = 1.0

#: SO_LINGER that drops what is unsent: the kernel would keep megabytes for a client that reads nothing.
_DROP = struct.pack("ii", 1, 0)


class Phase(Enum):
    """What a connection is at."""

    OPENING = auto()  # connected, and not a byte has come
    READING = auto()  # a handshake or a request has begun to come
    HANDLING = auto()  # our turn: whoever answers has a deadline of its own
    WRITING = auto()
    IDLE = auto()  # answered, and kept for the next request
    CLOSING = auto()  # the last answer is on its way


#: Phases in which a connection makes room for others; not while something to read has arrived.
_SILENT = (Phase.OPENING, Phase.IDLE)
#: Why a connection was cut, as a label; giving up an idle one is no incident.
_CUT_REASONS = {
    Phase.OPENING: "header_timeout",
    Phase.READING: "header_timeout",
    Phase.WRITING: "write_timeout",
}


@dataclass(slots=True)
class Traffic:
    """What the server did since its start, for the exporter's own metrics; reasons are bounded."""

    open: int = 0  # connections with a thread, now
    accepted: int = 0  # connections in total
    #: Turned away without being answered by the exporter: all connections in use, no thread or
    #: file descriptor to be had, failed TLS handshakes, requests that are no HTTP or too large.
    refused: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("connections", "threads", "descriptors", "handshake", "request"), 0
        )
    )
    #: Connections cut because the client was too slow, by what it was at.
    cut: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("header_timeout", "write_timeout"), 0)
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, table: dict[str, int], reason: str) -> None:
        """Add one to `reason` in `refused` or `cut`; from any thread."""
        with self._lock:
            table[reason] += 1


class Connection:
    """One client's connection; one thread moves it from phase to phase, another may give it up."""

    def __init__(
        self, sock: socket.socket, seconds: Mapping[Phase, float], traffic: Traffic
    ) -> None:
        """Give the seconds that each phase may last; a phase that is not named lasts forever."""
        self.socket = sock
        self.traffic = traffic
        #: Whether no further request is taken.
        self.last = False
        self.given_up = False
        self._seconds = seconds
        self._lock = threading.Lock()
        self.phase = Phase.OPENING
        self.since = monotonic()
        self.deadline = self.since + seconds[Phase.OPENING]

    def enter(self, phase: Phase) -> None:
        """Begin `phase`; ConnectionAbortedError if the connection was given up meanwhile."""
        with self._lock:
            if self.given_up or (self.last and phase is Phase.IDLE):
                message = f"given up: {self.phase.name.lower()}"
                raise ConnectionAbortedError(message)
            now = monotonic()
            # The first request has as long as any, its handshake and the silence before included.
            if self.phase is not Phase.OPENING or phase is not Phase.READING:
                self.deadline = now + self._seconds.get(phase, float("inf"))
            self.phase = phase
            self.since = now

    def replace(self, wrap: Callable[[socket.socket], Wrapped]) -> Wrapped:
        """Put the socket that `wrap` makes of this one in its place, and return it.

        ConnectionAbortedError if the connection was given up while it was neither of the two.
        """
        wrapped = wrap(self.socket)
        with self._lock:
            self.socket = wrapped
            if self.given_up:
                raise ConnectionAbortedError
        return wrapped

    def wait_for_bytes(self) -> bool:
        """Wait until something has come, without taking it; False if the client is gone instead."""
        return bool(self.socket.recv(1, socket.MSG_PEEK))

    def give_up(self) -> None:
        """Shut the connection down: whatever its thread waits for ends at once."""
        with self._lock:
            self._shut_down()

    def give_up_if_silent(self) -> bool:
        """Give the connection up unless somebody would lose an answer; return whether it was."""
        with self._lock:
            silent = self.phase in _SILENT and not self._has_bytes()
            if self.given_up or not (silent or self.phase is Phase.CLOSING):
                return False
            self._shut_down()
            return True

    def cut_if_overdue(self) -> None:
        """Give the connection up, and count it, if its phase has lasted too long."""
        with self._lock:
            if self.given_up or monotonic() < self.deadline:
                return
            reason = _CUT_REASONS.get(self.phase)
            if reason is not None:
                self.traffic.count(self.traffic.cut, reason)
            self._shut_down()

    def part(self) -> None:
        """Wait until the client has taken the last answer: closing with bytes unread destroys it."""
        self.enter(Phase.CLOSING)
        socket.socket.shutdown(self.socket, socket.SHUT_WR)
        while socket.socket.recv(self.socket, 65536):
            pass

    def close(self) -> None:
        """Close the socket; never while another thread is shutting it down."""
        with self._lock:
            self.given_up = True
            self.socket.close()

    def _shut_down(self) -> None:
        self.given_up = True
        try:
            if self.phase is Phase.WRITING:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP)
            # An SSLSocket's own shutdown() has the thread that writes go on in plain text.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
        except OSError:  # the client was faster
            pass

    def _has_bytes(self) -> bool:
        try:
            peek = socket.MSG_PEEK | socket.MSG_DONTWAIT
            return bool(socket.socket.recv(self.socket, 1, peek))
        except OSError:  # nothing there, or nobody
            return False


class Connections:
    """All connections that have a thread; for use by any thread."""

    def __init__(self, limit: int, seconds: Mapping[Phase, float]) -> None:
        """Give the number of connections at a time, and the seconds that each phase may last."""
        self.traffic = Traffic()
        self._limit = limit
        self._seconds = seconds
        self._open: set[Connection] = set()
        self._changed = threading.Condition()

    def admit(self, sock: socket.socket) -> Connection | None:
        """Return `sock` as one more connection, if need be in place of a silent one; None if full.

        Only one thread admits.
        """
        everyone = self._all()
        kept = sum(not connection.given_up for connection in everyone)
        # The threads of those given up are about to end, but a flood may be faster.
        if len(everyone) >= 2 * self._limit or (kept >= self._limit and not self.make_room()):
            return None
        with self._changed:
            connection = Connection(sock, self._seconds, self.traffic)
            self._open.add(connection)
            self.traffic.open = len(self._open)
            return connection

    def leave(self, connection: Connection) -> None:
        """Take out `connection`, whose thread ends."""
        with self._changed:
            self._open.discard(connection)
            self.traffic.open = len(self._open)
            self._changed.notify_all()

    def make_room(self) -> bool:
        """Give up the connection that has been silent for longest; False if none is."""
        by_age = sorted(self._all(), key=lambda connection: connection.since)
        return any(connection.give_up_if_silent() for connection in by_age)

    def first_deadline(self) -> float:
        """Return when the next phase has lasted too long, on the clock of `time.monotonic`."""
        deadlines = (c.deadline for c in self._all() if not c.given_up)
        return min(deadlines, default=float("inf"))

    def cut_overdue(self) -> None:
        """Give up every connection whose phase has lasted too long."""
        for connection in self._all():
            connection.cut_if_overdue()

    def drain(self) -> None:
        """Take no further request: give up the silent ones, the others end with their answer."""
        for connection in self._all():
            connection.last = True
            connection.give_up_if_silent()

    def give_up_all(self) -> None:
        """Give up every connection, whatever it is at."""
        for connection in self._all():
            connection.give_up()

    def wait_empty(self, seconds: float) -> bool:
        """Wait until all are gone, for `seconds` at most; return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, seconds)

    def _all(self) -> list[Connection]:
        with self._changed:
            return list(self._open)
