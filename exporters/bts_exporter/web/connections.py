"""The connections of the HTTP server: their number, phases and deadlines.

A deadline covers a whole phase: with a timeout per recv, a client that sends byte by byte is never cut.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain
from time import monotonic
from typing import TypeVar

from bts_exporter.web.incoming import Incoming

Wrapped = TypeVar("Wrapped", bound=socket.socket)

#: Seconds that a client has to take the last answer before the connection is closed.
LINGER_SECONDS = 1.0
#: Seconds that a client may take to send its request or to take its answer while others wait.
SLOW_SECONDS = 0.1

#: Bytes of answers that the kernel keeps unsent: without a bound it would be megabytes for each
#: client that reads nothing.
_MAX_UNSENT = 256 * 1024
_RECEIVE_BYTES = 8192
#: Connections beyond the limit that were aborted and are not closed yet.
_CLOSING = 8
#: SO_LINGER that drops unsent bytes: the kernel would keep megabytes for a client that reads nothing.
_DROP = struct.pack("ii", 1, 0)


class Phase(Enum):
    """The phases of a connection."""

    OPENING = auto()  # connected, nothing received
    READING = auto()  # part of a handshake or a request received
    QUEUED = auto()  # a request waits for a thread
    HANDLING = auto()  # the answer is being made, which has a deadline of its own
    WRITING = auto()
    IDLE = auto()  # answered, kept open for the next request
    CLOSING = auto()  # the last answer is being sent


#: Phases in which a connection makes room for others; not while something to read has arrived.
_SILENT = (Phase.OPENING, Phase.IDLE)
_REFUSAL_REASONS = (
    *("connections", "threads", "descriptors", "handshake", "request"),
    *("unauthorized", "rate_limit"),
)
#: Why a connection was cut, as a label; aborting an idle one is not counted.
_CUT_REASONS = {
    Phase.OPENING: "header_timeout",
    Phase.READING: "header_timeout",
    Phase.WRITING: "write_timeout",
}


@dataclass(slots=True)
class Traffic:
    """Counts of the server since its start, for the self-metrics; reasons are bounded."""

    open: int = 0  # connections now
    accepted: int = 0  # connections in total
    #: Refused before they were handled: all connections in use, no thread or file descriptor left,
    #: failed TLS handshakes, requests that are invalid or too large, without a valid password or too many.
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_REFUSAL_REASONS, 0))
    #: Connections cut because the client was too slow, by phase.
    cut: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("header_timeout", "write_timeout"), 0)
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, table: dict[str, int], reason: str) -> None:
        """Add one to `reason` in `refused` or `cut`; from any thread."""
        with self._lock:
            table[reason] += 1


class Connection:
    """One client's connection; one thread moves it from phase to phase, others may abort it."""

    def __init__(
        self,
        sock: socket.socket,
        seconds: Mapping[Phase, float],
        traffic: Traffic,
        queue: Collection[Connection],
    ) -> None:
        """Take the seconds that each phase may last; a phase that is not listed has no limit."""
        self.socket = sock
        self.traffic = traffic
        self.incoming = Incoming()
        #: Whether it has a thread, which it gets with its first request.
        self.served = False
        #: Requests answered.
        self.answered = 0
        #: Whether no further request is read.
        self.last = False
        self.aborted = False
        self._seconds = seconds
        self._queue = queue
        #: Seconds left for the first request while it waits for a thread.
        self._left = 0.0
        #: Ends TLS; None without TLS.
        self._unwrap: Callable[[], object] | None = None
        self._lock = threading.Lock()
        self.phase = Phase.OPENING
        self.since = monotonic()
        self.deadline = self.since + seconds[Phase.OPENING]

    def enter(self, phase: Phase) -> None:
        """Begin `phase`; ConnectionAbortedError if the connection was aborted meanwhile."""
        with self._lock:
            if self.aborted or (self.last and phase is Phase.IDLE):
                message = f"aborted: {self.phase.name.lower()}"
                raise ConnectionAbortedError(message)
            # The first request has as long as any, the silence before and its handshake included.
            if self.phase is not Phase.OPENING or phase is not Phase.READING:
                self.since = monotonic()
                if phase is Phase.QUEUED:
                    self._left = self.deadline - self.since
                seconds = self._seconds.get(phase, float("inf"))
                if self.phase is Phase.QUEUED and phase is Phase.READING:
                    seconds = self._left
                self.deadline = self.since + seconds
            self.phase = phase

    def replace(self, wrap: Callable[[socket.socket], Wrapped]) -> Wrapped:
        """Replace the socket by the one that `wrap` makes of it, and return that.

        ConnectionAbortedError if the connection was aborted in between.
        """
        wrapped = wrap(self.socket)
        with self._lock:
            self.socket = wrapped
            self._unwrap = getattr(wrapped, "unwrap", None)
            if self.aborted:
                raise ConnectionAbortedError
        return wrapped

    def others_wait(self) -> bool:
        """Return whether other requests wait for a thread."""
        return bool(self._queue)

    def set_up(self) -> None:
        """Set the socket's options, for a thread that reads and writes."""
        self.socket.setblocking(True)
        if self.socket.family == socket.AF_UNIX:  # systemd may hand over such a socket
            return
        # Answers are written whole, so that waiting gains nothing.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._bound_unsent(_MAX_UNSENT)

    def receive(self) -> bool:
        """Add received bytes to `incoming`; return False if the client has closed the connection."""
        data = self.socket.recv(_RECEIVE_BYTES)
        self.incoming.add(data)
        return bool(data)

    def wait_until_taken(self) -> None:
        """Wait until the kernel has sent all that was written."""
        if self.socket.family != socket.AF_UNIX and self._bound_unsent(1):
            poll = select.poll()
            poll.register(self.socket, select.POLLOUT)
            poll.poll()

    def _bound_unsent(self, count: int) -> bool:
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # not on every platform
        if option is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, option, count)
        return option is not None

    def abort(self) -> None:
        """Shut the connection down: its thread stops waiting at once."""
        with self._lock:
            self._shut_down()

    def abort_if_silent(self) -> bool:
        """Abort the connection unless an answer would be lost; return whether it was aborted."""
        with self._lock:
            silent = self.phase in _SILENT and not (self.incoming or self._has_bytes())
            if self.aborted or not (silent or self.phase is Phase.CLOSING):
                return False
            self._shut_down()
            return True

    def abort_if_slow(self) -> bool:
        """Abort the connection, and count it, if its client is slow while others wait."""
        with self._lock:
            early = monotonic() - self.since < SLOW_SECONDS
            if self.aborted or early or not self._waits_for_client():
                return False
            self._cut()
            return True

    def cut_if_overdue(self) -> None:
        """Abort the connection, and count it, if its phase has lasted too long."""
        with self._lock:
            if not self.aborted and monotonic() >= self.deadline:
                self._cut()

    def drain(self) -> None:
        """Wait until the client has received the last answer: closing with unread bytes would destroy it."""
        self.enter(Phase.CLOSING)
        self._end_tls()
        socket.socket.shutdown(self.socket, socket.SHUT_WR)
        while socket.socket.recv(self.socket, 65536):
            pass

    def close(self, close: Callable[[socket.socket], None] | None = None) -> None:
        """Close the socket; never while another thread is shutting it down."""
        with self._lock:
            if self.aborted and self.phase is Phase.IDLE:
                self.socket.setblocking(False)
                self._end_tls()
            self.aborted = True
            (close or close_socket)(self.socket)

    def _end_tls(self) -> None:
        """Send the end of TLS, which shows the client that nothing was cut off, and wait for the client's."""
        if self._unwrap is not None:
            # ValueError: there was no handshake.
            with suppress(OSError, ValueError):
                self._unwrap()

    def _cut(self) -> None:
        reason = _CUT_REASONS.get(self.phase)
        if reason is not None:
            self.traffic.count(self.traffic.cut, reason)
        self._shut_down()

    def _shut_down(self) -> None:
        self.aborted = True
        try:
            if self.phase is Phase.WRITING:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP)
            # The end of TLS is still to be sent on an idle connection.
            idle = self._unwrap is not None and self.phase is Phase.IDLE
            how = socket.SHUT_RD if idle else socket.SHUT_RDWR
            # An SSLSocket's own shutdown() has the thread that writes go on in plain text.
            socket.socket.shutdown(self.socket, how)
        except OSError:  # the client has closed it
            pass

    def _waits_for_client(self) -> bool:
        """Return whether we wait for the client: on a busy machine our own thread may be late instead."""
        match self.phase:
            case Phase.OPENING | Phase.READING:
                return not self._has_bytes()
            case Phase.WRITING if not hasattr(select, "poll"):  # not on every platform
                return True
            case Phase.WRITING:
                poll = select.poll()
                poll.register(self.socket, select.POLLOUT)
                return not poll.poll(0)
            case _:
                return False

    def _has_bytes(self) -> bool:
        """Return whether something to read has arrived; not a part of a record that is awaited whole."""
        try:
            awaited = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)
            peek = socket.MSG_PEEK | socket.MSG_DONTWAIT
            return len(socket.socket.recv(self.socket, awaited, peek)) >= awaited
        except OSError:  # nothing received, or closed
            return False


class Connections:
    """All connections; for use by any thread.

    Those whose first request has not come completely only wait, and have no thread. The others are
    served, by a thread each; while an answer is made, it waits for us, not for its client. Each of
    these three kinds has a number that it cannot exceed, and all have the sum of the first two.
    """

    def __init__(
        self, served: int, waiting: int, handled: int, seconds: Mapping[Phase, float]
    ) -> None:
        """Take the limit of each kind, and the seconds that each phase may last."""
        self.traffic = Traffic()
        #: Requests that wait for a thread.
        self.queue: deque[Connection] = deque()
        self._served = served
        self._waiting = waiting
        self._handled = handled
        self._seconds = seconds
        self._open: set[Connection] = set()
        self._changed = threading.Condition()

    def has_room(self) -> bool:
        """Return whether one more can be admitted, possibly after aborting one that has waited for long."""
        everyone = self._all()
        kept = [connection for connection in everyone if not connection.aborted]
        waiting = [connection for connection in kept if not connection.served]
        most = self._served + self._waiting
        if len(waiting) >= self._waiting:
            there_is = _drop_slowest(waiting)
        else:
            there_is = len(kept) < most or _drop_slowest(waiting) or _abort(kept, 1) == 1
        return there_is and len(everyone) < most + _CLOSING

    def admit(self, sock: socket.socket) -> Connection:
        """Add `sock` as a connection that waits for its request, and return that."""
        connection = Connection(sock, self._seconds, self.traffic, self.queue)
        with self._changed:
            self._open.add(connection)
            self.traffic.open = len(self._open)
        return connection

    def waiting(self) -> list[Connection]:
        """Return those that wait for their first request."""
        return [connection for connection in self._all() if not connection.served]

    def may_serve(self) -> bool:
        """Return whether one more can be served, possibly after aborting another."""
        served = [connection for connection in self._all() if connection.served]
        up_to_client = [
            connection for connection in served if connection.phase is not Phase.HANDLING
        ]
        kept = [connection for connection in up_to_client if not connection.aborted]
        excess = len(kept) - self._served + 1
        if excess > 0 and _abort(kept, excess) < excess:
            return False
        # The threads of aborted connections are about to end, but new ones may arrive faster.
        handled = len(served) - len(up_to_client)
        return handled < self._handled and len(up_to_client) < 2 * self._served

    def leave(self, connection: Connection) -> None:
        """Remove `connection`, whose thread ends."""
        with self._changed:
            self._open.discard(connection)
            self.traffic.open = len(self._open)
            self._changed.notify_all()

    def sockets(self) -> list[socket.socket]:
        """Return the sockets of all connections, without a lock: for a process that was forked."""
        return [connection.socket for connection in tuple(self._open)]

    def make_room(self) -> bool:
        """Abort one connection for its file descriptor; return False if none can be aborted."""
        return _abort(self._all(), 1) == 1

    def first_deadline(self) -> float:
        """Return the earliest deadline of all connections, on the clock of `time.monotonic`."""
        deadlines = (c.deadline for c in self._all() if not c.aborted)
        return min(deadlines, default=float("inf"))

    def cut_overdue(self) -> None:
        """Abort every connection whose phase has lasted too long."""
        for connection in self._all():
            connection.cut_if_overdue()

    def drain(self) -> None:
        """Read no further requests: abort idle connections, close the others after their answer."""
        for connection in self._all():
            connection.last = True
            connection.abort_if_silent()

    def abort_all(self) -> None:
        """Abort every connection, in any phase."""
        for connection in self._all():
            connection.abort()

    def wait_empty(self, seconds: float) -> bool:
        """Wait at most `seconds` until all are closed; return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, seconds)

    def _all(self) -> list[Connection]:
        with self._changed:
            return list(self._open)


def close_socket(sock: socket.socket) -> None:
    """Close `sock`, ignoring errors: its descriptor is gone in any case."""
    with suppress(OSError):
        sock.close()


def _by_age(connections: Iterable[Connection]) -> list[Connection]:
    return sorted(connections, key=lambda connection: connection.since)


def _abort(connections: Collection[Connection], count: int) -> int:
    """Abort up to `count` connections, those whose clients lose least; return how many.

    First idle ones with one request at most, then those whose clients have been sending their request
    or reading their answer for longest, then other idle ones, those with the fewest requests first.
    """
    by_use = sorted(connections, key=lambda connection: (connection.answered, connection.since))
    attempts = chain(
        (connection.abort_if_silent for connection in by_use if connection.answered <= 1),
        (connection.abort_if_slow for connection in _by_age(connections)),
        (connection.abort_if_silent for connection in by_use),
    )
    aborted = 0
    while aborted < count and (attempt := next(attempts, None)):
        aborted += attempt()
    return aborted


def _drop_slowest(connections: Iterable[Connection]) -> bool:
    return any(connection.abort_if_slow() for connection in _by_age(connections))
