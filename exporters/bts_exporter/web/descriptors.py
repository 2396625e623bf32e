"""File descriptors: how many connections the process can have, and some kept back for the listener."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from bts_exporter.web.connections import close_socket

#: Descriptors beyond the cached kernel files (the soft limit less 64): for the listener, its
#: connections, the connections to targets, and files that are open for a moment.
_FEWEST_CONNECTIONS = 24
#: From this limit on half of the additional ones are for more connections, the other half for kernel files.
_ROOMY = 256
_MOST_CONNECTIONS = 640
#: Descriptors that are held so that they can be given up.
_RESERVED = 4


def connections_for(limit: int) -> int:
    """Return how many connections fit into a process that may open `limit` files."""
    if limit <= 0:  # RLIM_INFINITY is -1
        return _MOST_CONNECTIONS
    more = max(limit - _ROOMY, 0) // 2
    return min(_FEWEST_CONNECTIONS + more, _MOST_CONNECTIONS, max(limit // 3, 2))


def soft_limit() -> int:
    """Return how many files this process may open; 0 if nothing says so."""
    try:
        import resource  # noqa: PLC0415  # not on every platform
    except ImportError:
        return 0
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Reserve:
    """File descriptors that are held to be released when the process has no other left."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._source = os.open(os.devnull, os.O_RDONLY)
        with suppress(OSError):  # fewer, where there are no more
            while len(self._held) < _RESERVED:
                self._held.append(os.dup(self._source))

    def release(self) -> bool:
        """Make one descriptor available; return False if none is left."""
        try:
            descriptor = self._held.pop()
        except IndexError:
            return False
        _close(descriptor)
        return True

    def close_socket(self, sock: socket.socket) -> None:
        """Close `sock`, and hold its descriptor if one is missing; an error leaves nothing to be done.

        The descriptor is never free in between: all others may wait for one.
        """
        if len(self._held) >= _RESERVED or sock.fileno() < 0:
            close_socket(sock)
            return
        descriptor = sock.detach()
        try:
            os.dup2(self._source, descriptor, inheritable=False)
        except OSError:
            _close(descriptor)
        else:
            self._held.append(descriptor)

    def close(self) -> None:
        """Release all."""
        while self.release():
            pass
        source, self._source = self._source, -1
        _close(source)


def _close(descriptor: int) -> None:
    with suppress(OSError):
        os.close(descriptor)
