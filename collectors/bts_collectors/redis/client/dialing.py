"""From an address to an open socket; every wait ends at one deadline, or when another thread ends it."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from bts_collectors.redis.client.name_lookup import Addresses

if TYPE_CHECKING:
    import ssl

DEFAULT_PORT = 6379

#: Is called with every socket before anything waits for it; with an OSError it is not used.
Hold = Callable[[socket.socket], None]


class HandshakeTimeoutError(TimeoutError):
    """Raised when the server does not complete the TLS handshake in time."""


def dial_unix(path: str, deadline: float, hold: Hold) -> socket.socket:
    """Return a connection to a unix socket; OSError if there is none by `deadline`."""
    return _dial(socket.AF_UNIX, path, deadline, hold)


def dial_tcp(addresses: Addresses, deadline: float, hold: Hold) -> socket.socket:
    """Return a connection to the first of `addresses` that accepts one; else the last one's OSError."""
    for position, (family, _, _, _, address) in enumerate(addresses, 1):
        now = monotonic()
        # An address that never answers gets its share of the time, and leaves some for the next.
        share = (deadline - now) / (len(addresses) - position + 1)
        try:
            dialled = _dial(family, address, now + share, hold)
        except OSError:
            if position == len(addresses):
                raise
        else:
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return dialled
    msg = "the name has no address"
    raise socket.gaierror(msg)


def handshake(secured: ssl.SSLSocket, deadline: float) -> None:
    """Complete a TLS handshake; HandshakeTimeoutError at the deadline."""
    arm(secured, deadline)
    try:
        secured.do_handshake()
    except TimeoutError:
        raise HandshakeTimeoutError from None


def arm(opened: socket.socket, deadline: float) -> None:
    """Let the next operation on the socket end by the deadline; TimeoutError if it has passed."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    opened.settimeout(left)


def send(opened: socket.socket, message: bytes, deadline: float) -> None:
    """Send all of `message` by the deadline."""
    # Not sendall: over TLS its timeout starts again with every part that is sent.
    rest = memoryview(message)
    while rest:
        arm(opened, deadline)
        rest = rest[opened.send(rest) :]


def peer_address(opened: socket.socket) -> str:
    """Return the address of the other side; empty for a unix socket, or a closed one."""
    try:
        peer = opened.getpeername()
    except OSError:
        return ""
    return peer[0] if isinstance(peer, tuple) else ""


def is_stale(idle: socket.socket) -> bool:
    """Return whether the server has closed an idle connection, on which it has nothing to send."""
    poll = select.poll()
    poll.register(idle, select.POLLIN)
    return bool(poll.poll(0))


def _dial(family: int, address: Any, deadline: float, hold: Hold) -> socket.socket:
    dialled = socket.socket(family, socket.SOCK_STREAM)
    try:
        _connect(dialled, address, deadline, hold)
    except OSError:
        dialled.close()
        raise
    return dialled


def _connect(dialled: socket.socket, address: Any, deadline: float, hold: Hold) -> None:
    # In two steps, so that the holder of the socket can end the wait at any moment.
    dialled.setblocking(False)
    error = dialled.connect_ex(address)
    hold(dialled)
    if error == errno.EINPROGRESS:
        error = _outcome(dialled, deadline)
    if error:
        raise OSError(error, os.strerror(error))


def _outcome(dialled: socket.socket, deadline: float) -> int:
    """Wait for a connection, and return 0 or the number of the error."""
    poll = select.poll()
    poll.register(dialled, select.POLLOUT)
    if not poll.poll(max(deadline - monotonic(), 0) * 1000):
        raise TimeoutError
    return dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
