"""Parser of NFS statistics in /proc/net/rpc: lines of a word and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from bts_collectors.host.kernel.files import is_number, lines, text, unexpected_content
from bts_exporter import Metric, Scrape

#: Procedures of NFS 2 (RFC 1094), in the order of the counters of `proc2`.
NFS2 = (
    "Null", "GetAttr", "SetAttr", "Root", "Lookup", "ReadLink", "Read", "WrCache", "Write", "Create",
    "Remove", "Rename", "Link", "SymLink", "MkDir", "RmDir", "ReadDir", "FsStat",
)  # fmt: skip
#: Procedures of NFS 3 (RFC 1813), in the order of the counters of `proc3`.
NFS3 = (
    "Null", "GetAttr", "SetAttr", "Lookup", "Access", "ReadLink", "Read", "Write", "Create", "MkDir",
    "SymLink", "MkNod", "Remove", "RmDir", "Rename", "Link", "ReadDir", "ReadDirPlus", "FsStat",
    "FsInfo", "PathConf", "Commit",
)  # fmt: skip


def parse(content: bytes) -> Iterator[tuple[str, list[int]]]:
    """Yield `(word, numbers)` of each line; ValueError at the end, for the first unreadable line.

    The numbers end before the first one with a fraction (the unused histogram of `th`).
    """
    bad = None if content else b""
    for line in lines(content):
        word, *fields = line.split() or [b""]
        numbers = list(_whole_numbers(fields))
        if numbers:
            yield text(word), numbers
        else:
            bad = bad or line
    if bad is not None:
        raise unexpected_content(bad)


def _whole_numbers(fields: Iterable[bytes]) -> Iterator[int]:
    for field in fields:
        if not is_number(field):
            return
        yield int(field)


def requests(
    statistics: Mapping[str, Sequence[int]], procedures: Mapping[str, tuple[str, Sequence[str]]]
) -> Iterator[tuple[str, str, int]]:
    """Yield `(protocol version, procedure, count)` of the lines in `procedures`.

    A line begins with the number of its counters. Counters that newer kernels added are left out.
    """
    for word, (version, names) in procedures.items():
        _, *counts = statistics.get(word, [0])
        for name, count in zip(names, counts, strict=False):
            if name:
                yield version, name, count


def emit_network(
    scrape: Scrape, statistics: Mapping[str, Sequence[int]], packets: Metric, connections: Metric
) -> None:
    """Emit the line `net`: all packets, UDP packets, TCP packets, TCP connections."""
    _, *network = statistics.get("net", [0])
    for transport, count in zip(("udp", "tcp"), network, strict=False):
        scrape.emit(packets, count, transport)
    for count in network[2:3]:
        scrape.emit(connections, count)
