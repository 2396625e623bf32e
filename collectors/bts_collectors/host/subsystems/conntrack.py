"""The subsystem `conntrack`: size and limit of the connection tracking table, and its statistics."""

from __future__ import annotations

import re
from typing import ClassVar

from bts_collectors.host.kernel.files import SHORT_RECORDS, SINGLE_RECORD, lines, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.kernel.sysctl import read_sysctl
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, gauge

_NUMBER = re.compile(rb"[0-9a-fA-F]{1,16}")


class Conntrack(Subsystem):
    """Connection tracking from /proc/sys/net/netfilter and /proc/net/stat/nf_conntrack."""

    name = "conntrack"

    entries = gauge(
        "node_nf_conntrack_entries",
        "Number of tracked connections (/proc/sys/net/netfilter/nf_conntrack_count).",
    )
    limit = gauge(
        "node_nf_conntrack_entries_limit",
        "Maximum number of tracked connections (/proc/sys/net/netfilter/nf_conntrack_max).",
    )
    #: Gauges as in node_exporter, although they only increase.
    statistics: ClassVar = {
        column: gauge(
            f"node_nf_conntrack_stat_{column.decode()}",
            f"Column {column.decode()}, summed over all CPUs (/proc/net/stat/nf_conntrack).",
        )
        for column in (
            b"found",
            b"invalid",
            b"ignore",
            b"insert",
            b"insert_failed",
            b"drop",
            b"early_drop",
            b"search_restart",
        )
    }

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        folder = f"{config.procfs}/sys/net/netfilter"
        self._sizes = (
            (KernelFile(f"{folder}/nf_conntrack_count", SINGLE_RECORD), self.entries),
            (KernelFile(f"{folder}/nf_conntrack_max", SINGLE_RECORD), self.limit),
        )
        self._statistics = KernelFile(f"{config.procfs}/net/stat/nf_conntrack", SHORT_RECORDS)

    def collect(self, scrape: Scrape) -> None:
        """Emit size, limit and statistics of the table."""
        parts = Parts()
        for file, metric in self._sizes:
            with parts:
                scrape.emit(metric, read_sysctl(file))
        with parts, self._statistics as content:
            for column, value in parse(content).items():
                if column in self.statistics:
                    scrape.emit(self.statistics[column], value)
        parts.check()


def parse(content: bytes) -> dict[bytes, int]:
    """Return the sum of each column over the CPUs; ValueError for another table.

    One unreadable line is an error, too: a sum without it would decrease.
    """
    header, *rows = lines(content) or [b""]
    columns = header.split()
    if columns[:1] != [b"entries"]:
        raise unexpected_content(header)
    sums = [0] * len(columns)
    for line in rows:
        values = line.split()
        if len(values) != len(columns) or not all(map(_NUMBER.fullmatch, values)):
            raise unexpected_content(line)
        sums = [total + int(value, 16) for total, value in zip(sums, values, strict=True)]
    return dict(zip(columns, sums, strict=True))


COLLECTOR = Conntrack
