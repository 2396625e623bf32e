"""Looks up a host name by a deadline: the system's own lookup takes as long as a dead DNS server lets it."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from time import monotonic
from typing import Any

#: What the system's lookup returns for each address; its last part is what a socket connects to.
Addresses = list[Any]


class NameLookup:
    """Looks up names, one at a time; a lookup that is late goes on, and is waited for the next time."""

    def __init__(self) -> None:
        self._current: _Lookup | None = None

    def addresses(self, host: str, port: int, deadline: float) -> Addresses:
        """Return the addresses of `host`; socket.gaierror if there are none by `deadline`."""
        if _is_address(host):
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        current = self._current
        if current is None or not current.is_alive() or current.wanted != (host, port):
            current = self._current = _Lookup(host, port)
            _start(current)
        current.join(max(deadline - monotonic(), 0))
        if current.is_alive():
            raise socket.gaierror(socket.EAI_AGAIN, "no reply from the name service in time")
        self._current = None
        if current.failure is not None:
            raise socket.gaierror(*current.failure)
        return current.found


class _Lookup(threading.Thread):
    """One lookup, which nothing can end from outside."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(name="bts-redis-lookup", daemon=True)
        self.wanted = (host, port)
        self.found: Addresses = []
        #: The arguments of the error, rather than the error with its frames.
        self.failure: tuple[object, ...] | None = None

    def run(self) -> None:
        try:
            self.found = socket.getaddrinfo(*self.wanted, type=socket.SOCK_STREAM)
        except ValueError as error:
            # What cannot be a name at all, such as a label of 64 characters or a zero byte.
            self.failure = (socket.EAI_NONAME, str(error))
        except OSError as error:
            self.failure = error.args


def _start(lookup: _Lookup) -> None:
    try:
        lookup.start()
    except RuntimeError as error:
        raise socket.gaierror(socket.EAI_AGAIN, f"no thread to look it up in: {error}") from error


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
