"""The counters of IP, ICMP, TCP and UDP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from bts_collectors.host._files import AT_ONCE, lines, text, unreadable
from bts_collectors.host._kernelfile import KernelFile
from bts_collectors.host._pairs import Pairs
from bts_collectors.host._subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Kind, Metric, NothingToRead, Scrape, Template

_FIELDS = re.compile(
    r"^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)"
    r"|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)"
    r"|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab|MaxConn)"
    r"|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$"
)


class NetstatSettings(CollectorConfig, frozen=True):
    """Settings of `netstat`."""

    fields: re.Pattern[str] = _FIELDS


class NetstatConfig(Paths, frozen=True):
    """Settings of `netstat`, and where the files are."""

    settings: NetstatSettings = NetstatSettings()


class _Heading(NamedTuple):
    """The heading of a table: how many words it has, the first of them, and the wanted columns."""

    size: int
    protocol: list[bytes]
    wanted: list[tuple[int, Metric]]


class Netstat(Subsystem):
    """Counters of the network protocols from /proc/net/netstat, /proc/net/snmp and /proc/net/snmp6."""

    name = "netstat"
    Config = NetstatConfig
    Settings = NetstatSettings

    field = Template(
        "node_netstat_{field}",
        "Field {field}: protocol and name (/proc/net/netstat, snmp, snmp6).",
        Kind.UNTYPED,
    )

    config: NetstatConfig

    def __init__(self, config: NetstatConfig) -> None:
        super().__init__(config)
        self._tables = [
            KernelFile(f"{config.procfs}/net/{table}", AT_ONCE) for table in ("netstat", "snmp")
        ]
        self._list = KernelFile(f"{config.procfs}/net/snmp6", AT_ONCE)
        #: What a table's heading means, which is the same at each scrape.
        self._headings: dict[bytes, _Heading] = {}
        self._pairs = Pairs(self._metric_of)

    def collect(self, scrape: Scrape) -> None:
        """Emit the counters that are wanted."""
        absent: list[NothingToRead] = []
        for file in self._tables:
            try:
                with file as content:
                    self._collect_table(scrape, content)
            except NothingToRead as error:
                absent.append(error)
        if len(absent) == len(self._tables):
            raise absent[0]
        try:
            with self._list as content:
                self._pairs.emit(scrape, content)
        except NothingToRead:  # no IPv6
            return

    def _collect_table(self, scrape: Scrape, content: bytes) -> None:
        for words, line in pairs_of_lines(content):
            heading = self._headings.get(words)
            if heading is None:
                heading = self._headings[words] = self._understood(words)
            values = line.split()
            if len(values) != heading.size or values[:1] != heading.protocol:
                raise unreadable(line)
            for column, metric in heading.wanted:
                scrape.emit(metric, int(values[column]))

    def _understood(self, words: bytes) -> _Heading:
        names = words.split()
        protocol = names[0].rstrip(b":") if names else b""
        found = [(column, self._metric(protocol, name)) for column, name in enumerate(names)]
        wanted = [(column, metric) for column, metric in found[1:] if metric is not None]
        return _Heading(len(names), names[:1], wanted)

    def _metric_of(self, field: bytes) -> Metric | None:
        # Ip6InReceives is InReceives of Ip6.
        protocol, six, name = field.partition(b"6")
        return self._metric(protocol + six, name)

    def _metric(self, protocol: bytes, name: bytes) -> Metric | None:
        field = text(protocol + b"_" + name)
        if not self.config.settings.fields.search(field):
            return None
        return self.field.of(field) if field.isascii() and field.isidentifier() else None


def pairs_of_lines(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield `(heading, values)`, both of which begin with the protocol; ValueError for half a pair."""
    found = lines(content)
    if not found or len(found) % 2:
        raise unreadable(found[-1] if found else b"")
    return zip(found[::2], found[1::2], strict=True)


COLLECTOR = Netstat
