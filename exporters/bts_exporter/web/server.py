"""The HTTP listener: hands requests to a function, and keeps clients from costing more than they may.

Written because no server at hand cut slow clients, let others pass them and stayed small (ARCHITECTURE.md).
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

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
from bts_exporter.web.protocol import Exchanges, Handle, Headers, Request, Response
from bts_exporter.web.refusals import Refusals

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

#: Errors of accept() for want of a file descriptor or of memory.
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: Seconds between two warnings that there are no file descriptors.
_WARNING_PAUSE_SECONDS = 60.0
#: Seconds between two looks for a place while connections or requests wait for one.
_LOOK_SECONDS = 0.02


class Server:
    """Serves HTTP on several sockets: one thread accepts and reads, one more for each connection served."""

    def __init__(  # noqa: PLR0913  # each has a name and a default
        self,
        sockets: Sequence[socket.socket],
        handle: Handle,
        *,
        wrap: Callable[[socket.socket], ssl.SSLSocket] | None = None,
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
        the connection's thread.
        """
        self._sockets = tuple(sockets)
        self._handle = handle
        self._wrap = wrap
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
        self._refusals = Refusals(
            self._selector, min(MAX_REFUSED, max(possible // 4, 1)), speak=wrap is None
        )
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._reserve = Reserve()
        self._accepts_again = float("inf")  # when, after a pause
        self._stopping = threading.Event()
        self._warns_again = 0.0
        self._thread = threading.Thread(target=self._run, name="http-accept", daemon=True)

    def start(self) -> None:
        """Begin to accept connections."""
        self._selector.register(self._woken, selectors.EVENT_READ, self._wake_up)
        self._accept_again()
        self._thread.start()

    @property
    def accepts(self) -> bool:
        """Return whether the thread that accepts connections is alive."""
        return self._thread.is_alive()

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

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn(self._pause())
            except Exception:
                log.exception("the HTTP listener goes on after an error")
                self._stopping.wait(ACCEPT_PAUSE_SECONDS)
        self._pause_accepting(float("inf"))
        try:
            self._turn(0)  # requests that have come are answered
        finally:
            while self._queue:
                self._refuse(self._queue.popleft(), "connections")
            for connection in self._connections.waiting():
                self._end(connection)

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
        """Read a connection's first request, and queue it once it is complete."""
        try:
            # The TLS handshake is done in the connection's thread.
            if self._wrap is None:
                if not connection.receive():
                    self._end(connection)
                    return
                if not connection.incoming.has_head():
                    if connection.phase is Phase.OPENING:  # the deadline is that of the whole head
                        connection.enter(Phase.READING)
                    return
            connection.enter(Phase.QUEUED)
        except BlockingIOError:
            return
        except OSError:
            self._end(connection)
            return
        self._selector.unregister(connection.socket)
        self._queue.append(connection)

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
        self._connections.leave(connection)
        self._refusals.add(connection.socket)
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

    # In the thread of a connection

    def _serve(self, connection: Connection) -> None:
        """Serve one connection, from its first request to its end."""
        try:
            if self._wrap is not None:
                self._shake_hands(connection, self._wrap)
            Exchanges(connection, self._handle).run()
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
        except OSError:
            if not connection.aborted:
                self.traffic.count(self.traffic.refused, "handshake")
            raise
