"""The HTTP listener: hands requests to a function, and keeps clients from costing more than they may.

Written because no server at hand cut slow clients, let others pass them and stayed small (ARCHITECTURE.md).
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from bts_exporter.connections import LINGER_SECONDS, Connection, Connections, Phase, Traffic
from bts_exporter.exchange import Exchanges, Handle, Headers, Request, Response
from bts_exporter.listening import listen

__all__ = [
    "Handle",
    "Headers",
    "Request",
    "Response",
    "Server",
    "Traffic",
    "listen",
]

if TYPE_CHECKING:  # OpenSSL takes 5 MB, which only those pay who serve TLS
    import ssl

log = logging.getLogger("bts_exporter.server")

#: Seconds without accepting after accept() failed: the client still waits, so that to try again at once is to spin.
ACCEPT_PAUSE_SECONDS = 0.1
#: Refused clients at a time that are given LINGER_SECONDS to take the refusal.
MAX_REFUSED = 64

_REFUSAL_TEXT = b"all connections are in use\n"
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Server: bts-exporter\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n"
    b"Retry-After: 1\r\n"
    b"Connection: close\r\n"
    b"\r\n%b"
) % (len(_REFUSAL_TEXT), _REFUSAL_TEXT)


class Server:
    """Serves HTTP on several sockets: one thread accepts and watches, one more for each connection."""

    def __init__(  # noqa: PLR0913  # each has a name and a default
        self,
        sockets: Sequence[socket.socket],
        handle: Handle,
        *,
        wrap: Callable[[socket.socket], ssl.SSLSocket] | None = None,
        max_connections: int = 128,
        header_seconds: float = 5.0,
        idle_seconds: float = 30.0,
        write_seconds: float = 15.0,
    ) -> None:
        """Take over listening sockets; nothing is accepted yet.

        `wrap` puts TLS around a new connection, without I/O: the handshake is made later, within
        the `header_seconds` that also the first request has to be complete in.
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
        self._connections = Connections(max_connections, seconds)
        self.traffic = self._connections.traffic
        self._refused: dict[socket.socket, float] = {}  # and until when they may linger
        # No deadline can begin and pass within such a nap, but that of lingering, which may last longer.
        self._nap = min(header_seconds, idle_seconds, write_seconds)
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._stopping = threading.Event()
        self._starved = False
        self._thread = threading.Thread(target=self._run, name="http-accept", daemon=True)

    def start(self) -> None:
        """Begin to accept connections."""
        self._selector.register(self._woken, selectors.EVENT_READ, lambda _: None)
        for listener in self._sockets:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, self._accept)
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
        self._waker.send(b"\0")
        if self._thread.ident is not None:
            self._thread.join()
        # First, so that who sees that nobody is let in any more gets no answer that promises a next one.
        self._connections.drain()
        for sock in (*self._sockets, *self._refused, self._waker, self._woken):
            sock.close()
        self._selector.close()
        while not self._connections.wait_empty(min(self._pause(), end - monotonic())):
            self._connections.cut_overdue()
            if monotonic() >= end:
                self._connections.give_up_all()
                break

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception:
                log.exception("the HTTP listener goes on after an error")
                self._stopping.wait(ACCEPT_PAUSE_SECONDS)

    def _turn(self) -> None:
        watching = self.traffic.open or self._refused
        for key, _ in self._selector.select(self._pause() if watching else None):
            key.data(key.fileobj)
        self._connections.cut_overdue()
        now = monotonic()
        for sock in [sock for sock, end in self._refused.items() if end < now]:
            self._dismiss(sock)

    def _pause(self) -> float:
        """Return the seconds until a deadline may have passed."""
        first = min([self._connections.first_deadline(), *self._refused.values()])
        return min(max(first - monotonic(), 0), self._nap)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._starve(error)
            return
        self._starved = False
        self.traffic.accepted += 1
        try:
            self._place(sock)
        except BaseException:
            sock.close()
            raise

    def _place(self, sock: socket.socket) -> None:
        """Give a new connection its thread, or turn it away."""
        sock.setblocking(True)
        connection = self._connections.admit(sock)
        if connection is None:
            self._refuse(sock, "connections")
        elif not self._employ(connection):
            self._connections.leave(connection)
            self._refuse(sock, "threads")

    def _starve(self, error: OSError) -> None:
        """Wait for better times: there is no file descriptor or memory for one more connection."""
        self.traffic.count(self.traffic.refused, "descriptors")
        if not self._starved:
            log.warning(
                "cannot accept connections: %s; raise the limit of open files (LimitNOFILE=)", error
            )
        self._starved = True
        self._connections.make_room()
        self._stopping.wait(ACCEPT_PAUSE_SECONDS)

    def _employ(self, connection: Connection) -> bool:
        """Start the connection's thread; return False if the system has none left."""
        name = f"http-{self.traffic.accepted}"
        thread = threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        return True

    def _refuse(self, sock: socket.socket, reason: str) -> None:
        """Tell the client to come again later, without waiting for it."""
        self.traffic.count(self.traffic.refused, reason)
        sock.setblocking(False)
        try:
            if self._wrap is None:
                sock.send(_REFUSAL)
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # gone already
            sock.close()
            return
        # Closing now would answer a request still on its way with a reset, which destroys the refusal.
        self._refused[sock] = monotonic() + LINGER_SECONDS
        self._selector.register(sock, selectors.EVENT_READ, self._discard)
        if len(self._refused) > MAX_REFUSED:
            self._dismiss(next(iter(self._refused)))

    def _discard(self, sock: socket.socket) -> None:
        try:
            gone = not sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._dismiss(sock)

    def _dismiss(self, sock: socket.socket) -> None:
        # Already done if another event of this turn needed its place.
        if self._refused.pop(sock, None) is not None:
            self._selector.unregister(sock)
            sock.close()

    def _serve(self, connection: Connection) -> None:
        """Serve one connection, from its first byte to its end."""
        try:
            if connection.wait_for_bytes():
                if self._wrap is not None:
                    self._shake_hands(connection, self._wrap)
                Exchanges(connection, self._handle).run()
                connection.part()
        except OSError as error:  # the client went away, or was given up
            log.debug("connection ended: %s", error)
        except Exception:
            log.exception("connection ended by an error")
        finally:
            connection.close()
            self._connections.leave(connection)

    def _shake_hands(
        self, connection: Connection, wrap: Callable[[socket.socket], ssl.SSLSocket]
    ) -> None:
        connection.enter(Phase.READING)
        tls = connection.replace(wrap)
        try:
            tls.do_handshake()
        except OSError:
            if not connection.given_up:
                self.traffic.count(self.traffic.refused, "handshake")
            raise
