"""Opens connections for HTTP requests, and measures the phases of a request."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from time import monotonic
from typing import Literal

from bts_exporter.settings.value_types import Url

#: What a request consists of, in this order. `processing` begins with sending the request and ends
#: with the head of the response.
Phase = Literal["dns", "connect", "tls", "processing", "receive"]

_PORTS = {"http": 80, "https": 443}
_SHORTEST_TIMEOUT_SECONDS = 0.001


class PhaseClock:
    """Measures the phases of one request; a phase that did not end is missing."""

    def __init__(self) -> None:
        self.seconds: dict[Phase, float] = {}
        self._started = monotonic()

    def end(self, phase: Phase) -> None:
        """End `phase`, and begin the next one."""
        now = monotonic()
        self.seconds[phase] = now - self._started
        self._started = now


def dial(url: Url, deadline: float, clock: PhaseClock) -> socket.socket:
    """Return a TCP connection to the host of `url`; OSError or UnicodeError if there is none.

    A name may have several addresses. Each has half of the time that is left until `deadline`.
    """
    port = url.port or _PORTS[url.scheme]
    found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    if _is_name(url.host):
        clock.end("dns")
    failure: OSError | None = None
    try:
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(max((deadline - monotonic()) / 2, _SHORTEST_TIMEOUT_SECONDS))
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                clock.end("connect")
                return sock
        raise failure or OSError("the host name has no address")
    finally:
        failure = None  # its frames hold this one


def _is_name(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False
