"""The subsystem `netstat`: counters of IP, ICMP, TCP and UDP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from bts_collectors.host.kernel.files import (
    DIGITS,
    MAX_COUNT,
    SINGLE_RECORD,
    lines,
    text,
    unexpected_content,
)
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.pairs import Pairs
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Kind, Metric, Scrape, Template

_FIELDS = re.compile(
    r"^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)"
    r"|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)"
    r"|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab|MaxConn)"
    r"|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$"
)


class NetstatSettings(CollectorConfig, frozen=True):
    """Settings of `netstat`."""

    #: Fields to collect, as `Protocol_Name`.
    fields: re.Pattern[str] = _FIELDS


class _Heading(NamedTuple):
    """The heading of a table: its number of words, and the metrics of the selected columns."""

    size: int
    selected: list[tuple[int, Metric]]


class Netstat(Subsystem):
    """Counters of network protocols from /proc/net/netstat, /proc/net/snmp and /proc/net/snmp6."""

    name = "netstat"
    Settings = NetstatSettings

    field = Template(
        "node_netstat_{field}",
        "Statistic {field} (/proc/net/netstat, snmp, snmp6).",
        Kind.UNTYPED,
    )

    settings: NetstatSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._tables = [
            KernelFile(f"{config.procfs}/net/{table}", SINGLE_RECORD)
            for table in ("netstat", "snmp")
        ]
        self._list = KernelFile(f"{config.procfs}/net/snmp6", SINGLE_RECORD)
        #: The parsed headings of the tables, which rarely change.
        self._headings: dict[bytes, _Heading] = {}
        self._pairs = Pairs(self._metric_of)
        #: The only field that may be negative: -1 if there is no limit on connections.
        self._max_connections = self.field.of("Tcp_MaxConn")

    def collect(self, scrape: Scrape) -> None:
        """Emit the selected counters."""
        parts = Parts()
        for file in self._tables:
            with parts, file as content:
                self._collect_table(scrape, content)
        with parts, self._list as content:  # absent without IPv6
            self._pairs.emit(scrape, content)
        parts.check()

    def _collect_table(self, scrape: Scrape, content: bytes) -> None:
        bad: bytes | None = None
        for words, line in pairs_of_lines(content):
            heading = self._headings.get(words)
            if heading is None:
                heading = self._headings[words] = self._parse_heading(words)
            values = line.split()
            if len(values) != heading.size:
                bad = bad or line
                continue
            for column, metric in heading.selected:
                value = values[column]
                if not value.removeprefix(b"-").isdigit() or len(value) > DIGITS:
                    bad = bad or line
                elif metric is self._max_connections or 0 <= int(value) < MAX_COUNT:
                    scrape.emit(metric, int(value))
        if bad is not None:
            raise unexpected_content(bad)

    def _parse_heading(self, words: bytes) -> _Heading:
        names = words.split()
        protocol = names[0].rstrip(b":") if names else b""
        metrics = [(column, self._metric(protocol, name)) for column, name in enumerate(names)]
        selected = [(column, metric) for column, metric in metrics[1:] if metric is not None]
        return _Heading(len(names), selected)

    def _metric_of(self, field: bytes) -> Metric | None:
        # `Ip6InReceives` is the field InReceives of the protocol Ip6.
        protocol, six, name = field.partition(b"6")
        return self._metric(protocol + six, name)

    def _metric(self, protocol: bytes, name: bytes) -> Metric | None:
        field = text(protocol + b"_" + name)
        if not self.settings.fields.search(field):
            return None
        return self.field.of(field) if field.isascii() and field.isidentifier() else None


def pairs_of_lines(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each pair of lines `(heading, values)`; both begin with the protocol.

    Raises ValueError at the end, for the first line that is not part of such a pair.
    """
    heading: bytes | None = None
    bad = None if content else b""
    for line in lines(content):
        if heading is not None and heading.split(b" ", 1)[0] == line.split(b" ", 1)[0]:
            yield heading, line
            heading = None
        else:
            bad = heading if bad is None else bad
            heading = line
    if bad is None:
        bad = heading
    if bad is not None:
        raise unexpected_content(bad)


COLLECTOR = Netstat
