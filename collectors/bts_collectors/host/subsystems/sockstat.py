"""The subsystem `sockstat`: sockets by protocol, and their memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

from bts_collectors.host.kernel.files import (
    DIGITS,
    MAX_COUNT,
    SINGLE_RECORD,
    lines,
    text,
    unexpected_content,
)
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Kind, Scrape, Template


class Sockstat(Subsystem):
    """Socket statistics from /proc/net/sockstat and /proc/net/sockstat6."""

    name = "sockstat"

    field = Template(
        "node_sockstat_{field}",
        "Statistic {field} (/proc/net/sockstat, sockstat6).",
        Kind.GAUGE,
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._files = [
            KernelFile(f"{config.procfs}/net/{table}", SINGLE_RECORD)
            for table in ("sockstat", "sockstat6")
        ]

    def collect(self, scrape: Scrape) -> None:
        """Emit every number; memory also in bytes, since the kernel counts pages."""
        parts = Parts()
        for file in self._files:  # one is absent without IPv6, or without IPv4
            with parts, file as content:
                for field, value in parse(content):
                    self._emit(scrape, field, value)
        parts.check()

    def _emit(self, scrape: Scrape, field: str, value: int) -> None:
        scrape.emit(self.field.of(field), value)
        if field.endswith("_mem"):
            pages = os.sysconf("SC_PAGE_SIZE")
            scrape.emit(self.field.of(f"{field}_bytes"), value * pages)


def parse(content: bytes) -> Iterator[tuple[str, int]]:
    """Yield `(protocol_name, number)`; skip negative numbers, which the kernel prints if a count went wrong.

    Raises ValueError at the end, for the first line that is not a protocol with pairs of name and number.
    """
    rows = lines(content)
    bad = None if rows else content
    for line in rows:
        protocol, colon, rest = text(line).partition(": ")
        words = rest.split()
        if not (line.isascii() and colon and f"{protocol}_".isidentifier()) or len(words) % 2:
            bad = bad or line
            continue
        for name, value in zip(words[::2], words[1::2], strict=True):
            number = value.removeprefix("-")
            if not (name.isidentifier() and number.isdigit() and len(number) <= DIGITS):
                bad = bad or line
            elif number == value and int(value) < MAX_COUNT:
                yield f"{protocol}_{name}", int(value)
    if bad is not None:
        raise unexpected_content(bad)


COLLECTOR = Sockstat
