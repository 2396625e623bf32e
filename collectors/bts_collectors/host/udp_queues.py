"""How much waits in the queues of UDP sockets."""

from __future__ import annotations

from bts_collectors.host._files import TABLE, lines, unreadable
from bts_collectors.host._kernelfile import KernelFile
from bts_collectors.host._subsystem import Paths, Subsystem
from bts_exporter import NothingToRead, Scrape, gauge

#: Position of the column `tx_queue:rx_queue`.
_QUEUES = 4


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
            ("v4", KernelFile(f"{config.procfs}/net/udp", TABLE)),
            ("v6", KernelFile(f"{config.procfs}/net/udp6", TABLE)),
        )

    def collect(self, scrape: Scrape) -> None:
        """Emit the bytes by direction and version of IP."""
        absent = []
        for version, file in self._files:
            try:
                with file as content:
                    sent, received = parse(content)
            except NothingToRead as error:
                absent.append(error)
                continue
            scrape.emit(self.queues, sent, "tx", version)
            scrape.emit(self.queues, received, "rx", version)
        if len(absent) == len(self._files):
            raise absent[0]


def parse(content: bytes) -> tuple[int, int]:
    """Return the sums of `(tx_queue, rx_queue)`; ValueError where it is no such table."""
    sent = received = 0
    header, *rows = lines(content) or [b""]
    if b"tx_queue" not in header:
        raise unreadable(header)
    for line in rows:
        columns = line.split(None, _QUEUES + 1)
        if len(columns) <= _QUEUES:
            raise unreadable(line)
        to_send, _, to_read = columns[_QUEUES].partition(b":")
        if not (to_send.isalnum() and to_read.isalnum()):  # no sign, no underscore
            raise unreadable(line)
        sent += int(to_send, 16)
        received += int(to_read, 16)
    return sent, received


COLLECTOR = UdpQueues
