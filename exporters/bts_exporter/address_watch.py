"""Detects that a host name has moved to another server, which an open connection does not notice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection
from ipaddress import ip_address
from time import monotonic

#: Seconds between two lookups of the same name.
LOOKUP_INTERVAL_SECONDS = 60.0


def _lookup(host: str) -> set[str]:
    """Return the addresses of `host`; OSError or UnicodeError if it has none."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return {_without_scope(str(entry[4][0])) for entry in found}


class AddressWatch:
    """Compares a connection's address with what the name resolves to now; for one thread.

    Lookups run in a thread of their own, so that a DNS server that hangs delays nothing.
    """

    def __init__(
        self,
        host: str,
        interval_seconds: float = LOOKUP_INTERVAL_SECONDS,
        lookup: Callable[[str], Collection[str]] = _lookup,
    ) -> None:
        """Watch `host`, a name or an address; no I/O here."""
        self._host = host
        self._interval = interval_seconds
        self._lookup = lookup
        self._is_name = bool(host) and not _is_address(host)
        self._peer = ""
        self._next_lookup = 0.0
        self._thread: threading.Thread | None = None
        #: The peer that was connected when a lookup began, and the addresses that it found.
        self._found: tuple[str, Collection[str]] = ("", ())

    def has_moved(self, peer: str) -> bool:
        """Return whether the name no longer resolves to `peer`, the address connected to.

        Never waits: it answers from the last lookup, and starts the next one when it is due. A
        lookup that fails changes nothing.
        """
        if not self._is_name:
            return False
        peer = _without_scope(peer)
        if peer != self._peer:  # connected again, so the name was resolved just now
            self._peer = peer
            self._next_lookup = monotonic() + self._interval
            return False
        self._start_lookup_if_due()
        looked_up_for, addresses = self._found
        return looked_up_for == peer and peer not in addresses

    def _start_lookup_if_due(self) -> None:
        if monotonic() < self._next_lookup or (self._thread and self._thread.is_alive()):
            return
        self._next_lookup = monotonic() + self._interval
        thread = threading.Thread(
            target=self._look_up, args=(self._peer,), name="bts-lookup", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no thread left: the next scrape after the interval tries again
            return
        self._thread = thread

    def _look_up(self, peer: str) -> None:
        try:
            addresses = self._lookup(self._host)
        except (OSError, UnicodeError):
            return
        if addresses:
            self._found = peer, addresses


def _without_scope(address: str) -> str:
    return address.partition("%")[0]


def _is_address(host: str) -> bool:
    try:
        ip_address(_without_scope(host))
    except ValueError:
        return False
    return True
