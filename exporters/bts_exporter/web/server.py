"""The HTTP listener: hands requests to a function, and keeps clients from costing more than they may.

Written because no server at hand cut slow clients, let others pass them and stayed small (ARCHITECTURE.md).
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING

from bts_exporter.web.client_hello import Hello, look_at
from bts_exporter.web.connections import (
    LINGER_SECONDS,
    Connection,
    Connections,
    Phase,
    Traffic,
    close_socket,
)
from bts_exporter.web.descriptors import Reserve, connections_for, soft_limit
from bts_exporter.web.listener import listen
from bts_exporter.web.protocol import (
    SECURITY_FIELDS,
    Exchanges,
    Handle,
    Headers,
    Request,
    Response,
)
from bts_exporter.web.refusals import Refusals, refusal
from bts_exporter.web.vital_signs import VitalSigns

__all__ = [
    "Handle",
    "Headers",
    "Request",
    "Response",
    "Server",
    "Traffic",
    "listen",
]

if TYPE_CHECKING:  # OpenSSL takes 5 MB, which is only needed for TLS
    import ssl

log = logging.getLogger("bts_exporter.web.server")

#: Seconds without accepting after accept() failed: the client still waits, so that to try again at once is to spin.
ACCEPT_PAUSE_SECONDS = 0.1
#: Seconds that a request waits for a thread before it is refused.
QUEUE_SECONDS = 3.0
#: Refused clients at a time that are given LINGER_SECONDS to take the refusal.
MAX_REFUSED = 64
#: Connections with a thread at a time, where the limit of open files allows it.
MAX_CONNECTIONS = 128
_FEWEST_SERVED = 12

#: Seconds in which a client that has connected can send its request when the server stops.
_LAST_SECONDS = 0.3

#: Errors of accept() for want of a file descriptor or of memory.
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: Seconds between two warnings of the same kind.
_WARNING_PAUSE_SECONDS = 60.0
#: Seconds between two looks for a place while connections or requests wait for one.
_LOOK_SECONDS = 0.02


#: Those whose sockets a forked process must not keep: the port would stay in use after our end,
#: and clients would wait for the end of their connection.
_SERVERS: weakref.WeakSet[Server] = weakref.WeakSet()


def _close_in_child() -> None:
    for server in list(_SERVERS):
        server.close_in_child()


if hasattr(os, "register_at_fork"):  # not on every platform
    os.register_at_fork(after_in_child=_close_in_child)


class Server:
    """Serves HTTP on several sockets: one thread accepts and reads, one more for each connection served."""

    def __init__(  # noqa: PLR0913  # each has a name and a default
        self,
        sockets: Sequence[socket.socket],
        handle: Handle,
        *,
        wrap: Callable[[socket.socket], ssl.SSLSocket] | None = None,
        fields: Callable[[], str] = lambda: SECURITY_FIELDS,
        max_connections: int | None = None,
        max_waiting: int | None = None,
        header_seconds: float = 5.0,
        idle_seconds: float = 30.0,
        write_seconds: float = 15.0,
    ) -> None:
        """Take over listening sockets; nothing is accepted yet.

        `max_connections` have a thread at a time, more of them while answers are made if it is not
        given; `max_waiting` wait for their first request to be complete. Both follow the limit of open
        files. `wrap` puts TLS around a new connection, without I/O: the handshake is made later, by
        the connection's thread. `fields` returns header fields for every response.
        """
        self._sockets = tuple(sockets)
        self._handle = handle
        self._wrap = wrap
        self._fields = fields
        seconds = {
            Phase.OPENING: header_seconds,
            Phase.READING: header_seconds,
            Phase.WRITING: write_seconds,
            Phase.IDLE: idle_seconds,
            Phase.CLOSING: LINGER_SECONDS,
        }
        possible = connections_for(soft_limit())
        served = max_connections or min(MAX_CONNECTIONS, max(possible // 3, _FEWEST_SERVED))
        waiting = max_waiting or max(possible - served, 1)
        # Some clients are let in, to be refused, while all others wait for answers.
        handled = max_connections or possible * 7 // 8
        #: Connections whose answers are made at a time, at most.
        self.places = handled
        self._connections = Connections(served, waiting, handled, seconds)
        self.traffic = self._connections.traffic
        self._queue = self._connections.queue
        # No deadline can begin and pass within such a nap, but that of lingering, which may last longer.
        self._nap = min(header_seconds, idle_seconds, write_seconds)
        self._next_check = 0.0
        self._selector = selectors.DefaultSelector()
        self._refusals = Refusals(self._selector, min(MAX_REFUSED, max(possible // 4, 1)))
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._reserve = Reserve()
        self._accepts_again = float("inf")  # when, after a pause
        self._stopping = threading.Event()
        self._vital_signs = VitalSigns(self._sockets)
        self._warns_again = 0.0
        self._reports_again = 0.0
        self._thread = threading.Thread(target=self._run, name="http-accept", daemon=True)
        _SERVERS.add(self)

    def start(self) -> None:
        """Begin to accept connections."""
        self._selector.register(self._woken, selectors.EVENT_READ, self._wake_up)
        self._accept_again()
        self._thread.start()

    def stalled(self) -> str:
        """Return why requests cannot be answered; empty if they can. For use by one thread."""
        return self._vital_signs.problem(self._thread, self._wake)

    @property
    def scheme(self) -> str:
        """Return the scheme of our addresses."""
        return "http" if self._wrap is None else "https"

    def stop(self, grace: float = 5.0) -> None:
        """Stop accepting, and return when the requests under way are answered or `grace` seconds are over."""
        if self._stopping.is_set():
            return
        end = monotonic() + grace
        self._stopping.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join()
        # First, so that no answer keeps its connection open once the listeners are closed.
        self._connections.drain()
        for sock in (*self._sockets, self._waker, self._woken):
            close_socket(sock)
        self._refusals.close()
        self._selector.close()
        while not self._connections.wait_empty(min(self._until_deadline(), end - monotonic())):
            self._connections.cut_overdue()
            if monotonic() >= end:
                self._connections.abort_all()
                break
        self._reserve.close()

    def close_in_child(self) -> None:
        """Close the descriptors that a forked process has inherited; the server itself goes on.

        Without locks, which a thread that is not in this process may hold.
        """
        for sock in (*self._sockets, self._waker, self._woken, *self._connections.sockets()):
            close_socket(sock)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn(self._pause())
            except Exception:
                log.exception("the HTTP listener goes on after an error")
                self._stopping.wait(ACCEPT_PAUSE_SECONDS)
        self._pause_accepting(float("inf"))
        try:
            self._serve_last()
        finally:
            while self._queue:
                self._refuse(self._queue.popleft(), "connections")
            for connection in self._connections.waiting():
                self._end(connection)

    def _serve_last(self) -> None:
        """Answer the requests of clients that have connected, also those that are about to arrive."""
        end = monotonic() + _LAST_SECONDS
        self._turn(0)
        while self._connections.waiting() and (left := end - monotonic()) > 0:
            self._turn(min(left, _LOOK_SECONDS))

    def _turn(self, pause: float | None) -> None:
        for key, _ in self._selector.select(pause):
            key.data()
        self._serve_queue()
        now = monotonic()
        if now >= self._accepts_again:
            self._accept_again()
        if now >= self._next_check:
            self._connections.cut_overdue()
            self._refusals.expire(now)
            self._next_check = now + self._until_deadline()

    def _pause(self) -> float | None:
        """Return the seconds until there is something to do without an event; None if there is nothing."""
        if self._queue:
            return _LOOK_SECONDS
        due = self._accepts_again
        if self.traffic.open or self._refusals:
            due = min(due, self._next_check)
        return max(due - monotonic(), 0) if due < float("inf") else None

    def _until_deadline(self) -> float:
        """Return the seconds until a deadline may have passed."""
        first = min(self._connections.first_deadline(), self._refusals.first_deadline())
        return min(max(first - monotonic(), 0), self._nap)

    # Accepting

    def _accept_again(self) -> None:
        self._accepts_again = float("inf")
        for listener in self._sockets:
            listener.setblocking(False)
            accept = partial(self._accept, listener)
            self._selector.register(listener, selectors.EVENT_READ, accept)

    def _pause_accepting(self, seconds: float) -> None:
        """Accept no connections for `seconds`: the kernel queues them."""
        if self._accepts_again == float("inf"):
            for listener in self._sockets:
                self._selector.unregister(listener)
        self._accepts_again = monotonic() + seconds

    def _accept(self, listener: socket.socket) -> None:
        if not self._connections.has_room():
            self._pause_accepting(_LOOK_SECONDS)
            return
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._on_accept_error(error)
            return
        self.traffic.accepted += 1
        try:
            self._admit(sock)
        except BaseException:
            close_socket(sock)
            raise

    def _admit(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        connection = self._connections.admit(sock)
        read = partial(self._read, connection)
        self._selector.register(sock, selectors.EVENT_READ, read)

    def _on_accept_error(self, error: OSError) -> None:
        """Handle an error of accept, such as too few file descriptors for one more connection."""
        scarce = error.errno in _SCARCE
        self._warn(error, "; raise the limit of open files (LimitNOFILE=)" if scarce else "")
        if scarce:
            self.traffic.count(self.traffic.refused, "descriptors")
            self._connections.make_room()
        if not (scarce and self._reserve.release()):
            self._pause_accepting(ACCEPT_PAUSE_SECONDS)

    def _warn(self, error: OSError, cure: str) -> None:
        now = monotonic()
        if now >= self._warns_again:
            self._warns_again = now + _WARNING_PAUSE_SECONDS
            log.warning("cannot accept connections: %s%s", error, cure)

    # Requests

    def _read(self, connection: Connection) -> None:
        """Read a connection's first request, or the beginning of its handshake."""
        try:
            if self._wrap is None:
                self._read_request(connection)
            else:
                self._read_hello(connection)
        except BlockingIOError:
            return
        except OSError:
            self._end(connection)

    def _read_request(self, connection: Connection) -> None:
        if connection.receive():
            self._advance(connection, complete=connection.incoming.has_head())
        else:
            self._end(connection)

    def _read_hello(self, connection: Connection) -> None:
        hello = look_at(connection.socket)
        if hello is Hello.HTTP or hello is Hello.OTHER:
            self.traffic.count(self.traffic.refused, "handshake")
        if hello is Hello.HTTP:
            self._selector.unregister(connection.socket)
            text = "this port serves https, not http"
            self._turn_away(connection, refusal(HTTPStatus.BAD_REQUEST, text, self._fields()))
        elif hello is Hello.GONE or hello is Hello.OTHER:
            self._end(connection)
        else:
            self._advance(connection, complete=hello is Hello.COMPLETE)

    def _advance(self, connection: Connection, *, complete: bool) -> None:
        """Queue a connection for a thread once what it has to send first is complete."""
        if complete:
            connection.enter(Phase.QUEUED)
            self._selector.unregister(connection.socket)
            self._queue.append(connection)
        elif connection.phase is Phase.OPENING:  # the deadline is that of the whole head
            connection.enter(Phase.READING)

    def _serve_queue(self) -> None:
        """Start threads for waiting requests, and refuse those that have waited for too long."""
        while self._queue:
            if self._connections.may_serve():
                connection = self._queue.popleft()
                if not self._start_thread(connection):
                    self._refuse(connection, "threads")
            elif monotonic() - self._queue[0].since >= QUEUE_SECONDS:
                self._refuse(self._queue.popleft(), "connections")
            else:
                return

    def _start_thread(self, connection: Connection) -> bool:
        """Start the connection's thread; return False if the system has none left."""
        connection.served = True
        name = f"http-{self.traffic.accepted}"
        try:
            # The constructor fails, too, if a plug-in has removed sys.excepthook.
            threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True).start()
        except RuntimeError:
            return False
        return True

    def _refuse(self, connection: Connection, reason: str) -> None:
        """Answer that the server is overloaded, without waiting for the client."""
        self.traffic.count(self.traffic.refused, reason)
        answer = b""
        if self._wrap is None:
            fields = f"{self._fields()}Retry-After: 1\r\n"
            answer = refusal(HTTPStatus.SERVICE_UNAVAILABLE, "all connections are in use", fields)
        self._turn_away(connection, answer)

    def _turn_away(self, connection: Connection, answer: bytes) -> None:
        """Send `answer` and close the connection, without waiting for the client."""
        self._connections.leave(connection)
        self._refusals.add(connection.socket, answer)
        self._next_check = min(self._next_check, monotonic() + LINGER_SECONDS)

    def _end(self, connection: Connection) -> None:
        """Close a connection that waited for its request."""
        self._selector.unregister(connection.socket)
        connection.close(self._reserve.close_socket)
        self._connections.leave(connection)

    def _wake(self) -> None:
        """Wake the listener's thread."""
        with suppress(OSError):  # it is awake, or has stopped
            self._waker.send(b"\0")

    def _wake_up(self) -> None:
        self._woken.recv(4096)
        self._vital_signs.beat()

    # In the thread of a connection

    def _serve(self, connection: Connection) -> None:
        """Serve one connection, from its first request to its end."""
        try:
            if self._wrap is not None:
                self._shake_hands(connection, self._wrap)
            Exchanges(connection, self._handle, self._fields).run()
            connection.drain()
        except OSError as error:  # the client is gone, or the connection was aborted
            log.debug("connection ended: %s", error)
        except Exception:
            log.exception("connection ended by an error")
        finally:
            connection.close(self._reserve.close_socket)
            self._connections.leave(connection)
            if self._queue:
                self._wake()

    def _shake_hands(
        self, connection: Connection, wrap: Callable[[socket.socket], ssl.SSLSocket]
    ) -> None:
        connection.socket.setblocking(True)
        connection.enter(Phase.READING)
        tls = connection.replace(wrap)
        try:
            tls.do_handshake()
        except OSError as error:
            if not connection.aborted:
                self.traffic.count(self.traffic.refused, "handshake")
                self._report(error)
                connection.drain()  # closing at once could destroy the alert that says why
            raise

    def _report(self, error: OSError) -> None:
        """Log that a client's certificate is not accepted."""
        # SSLCertVerificationError is a ValueError, too; ssl is not imported here.
        missing = getattr(error, "reason", "") == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
        refused = missing or isinstance(error, ValueError)
        now = monotonic()
        if refused and now >= self._reports_again:
            self._reports_again = now + _WARNING_PAUSE_SECONDS
            log.warning("client certificate not accepted: %s", error)
