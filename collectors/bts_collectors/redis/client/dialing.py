"""From an address to an open socket, every wait of it by one deadline."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

from bts_collectors.redis.client.address import socket_path
from bts_collectors.redis.client.name_lookup import NameLookup
from bts_exporter import Url

DEFAULT_PORT = 6379

#: Is told of every socket before anything waits for it; with an OSError it is not used.
Hold = Callable[[socket.socket], None]


def dial(url: Url, deadline: float, hold: Hold, names: NameLookup) -> socket.socket:
    """Return a connection to the first address of `url` that takes one; OSError of the last else."""
    if url.scheme == "unix":
        return _dial_one(socket.AF_UNIX, socket_path(url), deadline, hold)
    addresses = names.addresses(url.host, url.port or DEFAULT_PORT, deadline)
    for place, (family, _, _, _, address) in enumerate(addresses, 1):
        now = monotonic()
        # Its share of the time, lest an address that swallows everything keeps us from the next.
        share = (deadline - now) / (len(addresses) - place + 1)
        try:
            dialled = _dial_one(family, address, now + share, hold)
        except OSError:
            if place == len(addresses):
                raise
        else:
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            dialled.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return dialled
    msg = "the name has no address"
    raise socket.gaierror(msg)


def arm(opened: socket.socket, deadline: float) -> None:
    """Let the next operation on the socket end by the deadline; TimeoutError if that is over."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    opened.settimeout(left)


def send(opened: socket.socket, message: bytes, deadline: float) -> None:
    """Send all of `message` by the deadline."""
    # Not sendall: over TLS its time-out starts anew with every part that goes out.
    rest = memoryview(message)
    while rest:
        arm(opened, deadline)
        rest = rest[opened.send(rest) :]


def peer_address(opened: socket.socket) -> str:
    """Return the address of the other side; empty for a unix socket, or one that is closed already."""
    try:
        peer = opened.getpeername()
    except OSError:
        return ""
    return peer[0] if isinstance(peer, tuple) else ""


def is_stale(idle: socket.socket) -> bool:
    """Return whether the server has hung up meanwhile: on an idle connection it has nothing to say."""
    poll = select.poll()
    poll.register(idle, select.POLLIN)
    return bool(poll.poll(0))


def _dial_one(family: int, address: Any, deadline: float, hold: Hold) -> socket.socket:
    dialled = socket.socket(family, socket.SOCK_STREAM)
    try:
        _connect(dialled, address, deadline, hold)
    except OSError:
        dialled.close()
        raise
    return dialled


def _connect(dialled: socket.socket, address: Any, deadline: float, hold: Hold) -> None:
    # In two steps, so that whoever holds the socket can end the wait at any moment of it.
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
