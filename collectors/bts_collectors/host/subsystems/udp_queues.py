"""The subsystem `udp_queues`: bytes in the queues of UDP sockets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bts_collectors.host.kernel.files import SHORT_RECORDS, lines, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, gauge

#: A line up to its fifth column, `tx_queue:rx_queue`.
_QUEUES = re.compile(rb"\s*(?:\S+\s+){4}([0-9A-Fa-f]{1,16}):([0-9A-Fa-f]{1,16})\s")


class UdpQueues(Subsystem):
    """Queues of UDP sockets from /proc/net/udp and /proc/net/udp6."""

    name = "udp_queues"

    queues = gauge(
        "node_udp_queues",
        "Bytes in the queues of all UDP sockets (/proc/net/udp, udp6, tx_queue and rx_queue).",
        ("queue", "ip"),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._files = (
            ("v4", KernelFile(f"{config.procfs}/net/udp", SHORT_RECORDS)),
            ("v6", KernelFile(f"{config.procfs}/net/udp6", SHORT_RECORDS)),
        )

    def collect(self, scrape: Scrape) -> None:
        """Emit the bytes by direction and IP version."""
        parts = Parts()
        for version, file in self._files:
            with parts, file as content:
                self._emit(scrape, version, content)
        parts.check()

    def _emit(self, scrape: Scrape, version: str, content: bytes) -> None:
        sockets = parse(content)
        sent = received = 0
        try:
            for to_send, to_read in sockets:
                sent += to_send
                received += to_read
        finally:
            scrape.emit(self.queues, sent, "tx", version)
            scrape.emit(self.queues, received, "rx", version)


def parse(content: bytes) -> Iterator[tuple[int, int]]:
    """Return an iterator of `(tx_queue, rx_queue)` of each socket; ValueError for an unknown heading.

    The iterator raises ValueError at the end, for the first unreadable line.
    """
    header, *rows = lines(content) or [b""]
    if b"tx_queue" not in header:
        raise unexpected_content(header)
    return _sockets(rows)


def _sockets(rows: list[bytes]) -> Iterator[tuple[int, int]]:
    bad: bytes | None = None
    for line in rows:
        found = _QUEUES.match(line)
        if found is None:
            bad = bad or line
        else:
            yield int(found[1], 16), int(found[2], 16)
    if bad is not None:
        raise unexpected_content(bad)


COLLECTOR = UdpQueues
