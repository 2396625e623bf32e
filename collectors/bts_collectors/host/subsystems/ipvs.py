"""The subsystem `ipvs`: traffic and backends of the kernel's load balancer (IPVS)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NamedTuple

from bts_collectors.host.kernel.files import lines, text, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, counter, gauge

_BACKEND = (
    "local_address",
    "local_port",
    "remote_address",
    "remote_port",
    "proto",
    "local_mark",
)
_STATS_COLUMNS = 5
#: Hexadecimal digits of an IPv4 address.
_IPV4_DIGITS = 8


class Service(NamedTuple):
    """A virtual service, by address and port, or by firewall mark."""

    address: str
    port: str
    protocol: str
    mark: str


class Backend(NamedTuple):
    """A backend (real server) of a service."""

    service: Service
    address: str
    port: str
    weight: int
    active: int
    inactive: int


class Ipvs(Subsystem):
    """IPVS load balancer from /proc/net/ip_vs and /proc/net/ip_vs_stats."""

    name = "ipvs"

    totals = (
        counter("node_ipvs_connections_total", "Connections (/proc/net/ip_vs_stats, column 1)."),
        counter(
            "node_ipvs_incoming_packets_total",
            "Packets received (/proc/net/ip_vs_stats, column 2).",
        ),
        counter(
            "node_ipvs_outgoing_packets_total", "Packets sent (/proc/net/ip_vs_stats, column 3)."
        ),
        counter(
            "node_ipvs_incoming_bytes_total", "Bytes received (/proc/net/ip_vs_stats, column 4)."
        ),
        counter("node_ipvs_outgoing_bytes_total", "Bytes sent (/proc/net/ip_vs_stats, column 5)."),
    )
    active = gauge(
        "node_ipvs_backend_connections_active",
        "Active connections of the backend (/proc/net/ip_vs, ActiveConn).",
        _BACKEND,
    )
    inactive = gauge(
        "node_ipvs_backend_connections_inactive",
        "Inactive connections of the backend (/proc/net/ip_vs, InActConn).",
        _BACKEND,
    )
    weight = gauge(
        "node_ipvs_backend_weight", "Weight of the backend (/proc/net/ip_vs, Weight).", _BACKEND
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._stats = KernelFile(f"{config.procfs}/net/ip_vs_stats")
        self._table = KernelFile(f"{config.procfs}/net/ip_vs")

    def collect(self, scrape: Scrape) -> None:
        """Emit the totals, then each backend."""
        with self._stats as content:
            for metric, value in zip(self.totals, parse_stats(content), strict=True):
                scrape.emit(metric, value)
        try:
            self._emit_backends(scrape)
        except NotPresent:
            return  # the table is optional

    def _emit_backends(self, scrape: Scrape) -> None:
        with self._table as content:
            for backend in parse_table(content):
                service = backend.service
                labels = (
                    service.address,
                    service.port,
                    backend.address,
                    backend.port,
                    service.protocol,
                    service.mark,
                )
                scrape.emit(self.active, backend.active, *labels)
                scrape.emit(self.inactive, backend.inactive, *labels)
                scrape.emit(self.weight, backend.weight, *labels)


def parse_stats(content: bytes) -> list[int]:
    """Return the totals of /proc/net/ip_vs_stats, in the order of its columns; ValueError if unreadable."""
    rows = lines(content)
    totals = rows[2].split() if len(rows) > 2 else []  # noqa: PLR2004  # after two lines of headings
    try:
        values = [int(number, 16) for number in totals]
    except ValueError:
        values = []
    if len(values) != _STATS_COLUMNS:
        raise unexpected_content(content)
    return values


def parse_table(content: bytes) -> Iterator[Backend]:
    """Yield each backend; ValueError at the end, for the first unreadable line."""
    bad: bytes | None = None
    service: Service | None = None
    for line in lines(content):
        words = line.split()
        if line.startswith((b"IP Virtual Server", b"Prot ")) or words[1:2] == [
            b"RemoteAddress:Port"
        ]:
            continue
        try:
            if words[:1] != [b"->"]:
                service = None
                service = _service(words)
            elif service is not None:
                yield _backend(service, words)
        except (ValueError, OSError):
            bad = bad or line
    if bad is not None:
        raise unexpected_content(bad)


def _service(words: list[bytes]) -> Service:
    protocol, place, *_ = words
    if protocol == b"FWM":
        int(place, 16)
        return Service("", "0", "FWM", text(place))
    return Service(*_endpoint(place), text(protocol), "")


def _backend(service: Service, words: list[bytes]) -> Backend:
    _, place, _forward, weight, active, inactive, *_ = words
    return Backend(service, *_endpoint(place), int(weight), int(active), int(inactive))


def _endpoint(place: bytes) -> tuple[str, str]:
    """Return `(address, port)` of `C0A80016:0CEA` or of `[2001:...:0001]:0CEA`."""
    address, _, port = place.rpartition(b":")
    digits = address.strip(b"[]").replace(b":", b"")
    family = socket.AF_INET if len(digits) == _IPV4_DIGITS else socket.AF_INET6
    return socket.inet_ntop(family, bytes.fromhex(text(digits))), str(int(port, 16))


COLLECTOR = Ipvs
