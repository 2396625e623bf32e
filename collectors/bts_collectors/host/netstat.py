"""The counters of IP, ICMP, TCP and UDP."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bts_collectors.host._files import lines, text, unreadable
from bts_collectors.host._kernelfile import KernelFile
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
        self._tables = [KernelFile(f"{config.procfs}/net/{table}") for table in ("netstat", "snmp")]
        self._list = KernelFile(f"{config.procfs}/net/snmp6")
        #: The wanted columns of a table's heading, which is the same at each scrape.
        self._columns: dict[bytes, list[tuple[int, Metric]]] = {}
        self._metrics: dict[bytes, Metric | None] = {}

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
                self._collect_list(scrape, content)
        except NothingToRead:  # no IPv6
            return

    def _collect_table(self, scrape: Scrape, content: bytes) -> None:
        for heading, values in parse_table(content):
            columns = self._columns.get(heading)
            if columns is None:
                columns = self._columns[heading] = self._choose(heading)
            for column, metric in columns:
                scrape.emit(metric, int(values[column]))

    def _collect_list(self, scrape: Scrape, content: bytes) -> None:
        for line in lines(content):
            words = line.split()
            if len(words) != 2:  # noqa: PLR2004  # name and number
                raise unreadable(line)
            field, value = words
            if field not in self._metrics:
                # Ip6InReceives is InReceives of Ip6.
                protocol, six, name = field.partition(b"6")
                self._metrics[field] = self._metric(protocol + six, name)
            metric = self._metrics[field]
            if metric is not None:
                scrape.emit(metric, int(value))

    def _choose(self, heading: bytes) -> list[tuple[int, Metric]]:
        protocol, *names = heading.split()
        found = [
            (column, self._metric(protocol.rstrip(b":"), name))
            for column, name in enumerate(names, 1)
        ]
        return [(column, metric) for column, metric in found if metric is not None]

    def _metric(self, protocol: bytes, name: bytes) -> Metric | None:
        field = text(protocol + b"_" + name)
        if not self.config.settings.fields.search(field):
            return None
        return self.field.of(field) if field.isascii() and field.isidentifier() else None


def parse_table(content: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield `(heading, values)` of each pair of lines; both begin with the protocol.

    ValueError for a pair that does not fit together.
    """
    found = lines(content)
    if not found or len(found) % 2:
        raise unreadable(found[-1] if found else b"")
    for heading, line in zip(found[::2], found[1::2], strict=True):
        names, values = heading.split(), line.split()
        if len(names) != len(values) or names[:1] != values[:1]:
            raise unreadable(line)
        yield heading, values


COLLECTOR = Netstat
