from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.netstat import Netstat, NetstatSettings
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import Samples, collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

NETSTAT = """\
TcpExt: SyncookiesSent PruneCalled ListenDrops TCPTimeouts
TcpExt: 1 2 3 4
IpExt: InNoRoutes InOctets OutOctets
IpExt: 5 6 7
"""
SNMP = """\
Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: MaxConn ActiveOpens CurrEstab InErrs
Tcp: -1 8 9 10
Udp: InDatagrams NoPorts
Udp: 11 12
"""
SNMP6 = """\
Ip6InReceives                   	13
Ip6InOctets                     	14
Icmp6InMsgs                     	15
Udp6RcvbufErrors                	16
UdpLite6InErrors                	17
"""
ALL = {"proc/net/netstat": NETSTAT, "proc/net/snmp": SNMP, "proc/net/snmp6": SNMP6}


@pytest.fixture
def samples(machine: Machine) -> Callable[..., Samples]:
    """Give a function that collects from files, with settings."""

    def run(files: dict[str, str], **settings: Any) -> Samples:
        config = Netstat.Config(**machine(files), settings=NetstatSettings(**settings))
        return collect(Netstat(config))

    return run


def test_default_fields(samples: Callable[..., Samples]) -> None:
    """node_exporter's default fields are served from the three files, and Tcp_MaxConn."""
    assert samples(ALL) == {
        "node_netstat_TcpExt_SyncookiesSent": {(): 1},
        "node_netstat_TcpExt_ListenDrops": {(): 3},
        "node_netstat_TcpExt_TCPTimeouts": {(): 4},
        "node_netstat_IpExt_InOctets": {(): 6},
        "node_netstat_IpExt_OutOctets": {(): 7},
        "node_netstat_Ip_Forwarding": {(): 1},
        "node_netstat_Tcp_MaxConn": {(): -1},
        "node_netstat_Tcp_ActiveOpens": {(): 8},
        "node_netstat_Tcp_CurrEstab": {(): 9},
        "node_netstat_Tcp_InErrs": {(): 10},
        "node_netstat_Udp_InDatagrams": {(): 11},
        "node_netstat_Udp_NoPorts": {(): 12},
        "node_netstat_Ip6_InOctets": {(): 14},
        "node_netstat_Icmp6_InMsgs": {(): 15},
        "node_netstat_Udp6_RcvbufErrors": {(): 16},
        "node_netstat_UdpLite6_InErrors": {(): 17},
    }


def test_chosen_fields(samples: Callable[..., Samples]) -> None:
    """The setting replaces the default fields."""
    assert samples(ALL, fields=re.compile("PruneCalled|InReceives")) == {
        "node_netstat_TcpExt_PruneCalled": {(): 2},
        "node_netstat_Ip6_InReceives": {(): 13},
    }


@pytest.mark.parametrize("file", ["proc/net/snmp6", "proc/net/netstat", "proc/net/snmp"])
def test_one_file_absent(samples: Callable[..., Samples], file: str) -> None:
    """A host without one of the files, such as one without IPv6, serves the others."""
    assert samples({path: content for path, content in ALL.items() if path != file})


def test_absent(samples: Callable[..., Samples]) -> None:
    """Without any of the files there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc/net/netstat is absent"):
        samples({})


def test_columns_change(machine: Machine) -> None:
    """A table with new columns, such as after a module was loaded, is parsed by its new heading."""
    collector = Netstat(Netstat.Config(**machine({"proc/net/snmp": SNMP})))
    collect(collector)
    machine({"proc/net/snmp": "Tcp: CurrEstab MaxConn\nTcp: 1 2\n"})

    assert collect(collector) == {
        "node_netstat_Tcp_CurrEstab": {(): 1},
        "node_netstat_Tcp_MaxConn": {(): 2},
    }


def test_values_are_those_of_the_heading_above(machine: Machine) -> None:
    """Spacing does not matter, and a new heading in the next scrape is used."""
    collector = Netstat(
        Netstat.Config(**machine({"proc/net/snmp": "Tcp: CurrEstab  InSegs\nTcp: 1 2 \n"}))
    )
    before = collect(collector)
    machine({"proc/net/snmp": "Tcp: InSegs CurrEstab\nTcp: 3 4\n"})

    assert before == {"node_netstat_Tcp_CurrEstab": {(): 1}, "node_netstat_Tcp_InSegs": {(): 2}}
    assert collect(collector) == {
        "node_netstat_Tcp_CurrEstab": {(): 4},
        "node_netstat_Tcp_InSegs": {(): 3},
    }


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "is empty"),
        ("Tcp: A B\n", "'Tcp: A B'"),
        ("Tcp: A B\nTcp: 1\n", "'Tcp: 1'"),
        ("Tcp: A B\nUdp: 1 2\n", "'Tcp: A B'"),
        ("Tcp: A\tB\nTcp: 1\n", "'Tcp: 1'"),
    ],
)
def test_pairs_that_do_not_fit(machine: Machine, content: str, named: str) -> None:
    """Lines that are not a pair are an error in each scrape: a number may belong to another column."""
    collector = Netstat(Netstat.Config(**machine({"proc/net/snmp": content})))

    for _ in range(2):
        with pytest.raises(TargetError, match=f"/proc/net/snmp: .*{named}"):
            collect(collector)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("snmp", "Tcp: MaxConn\nTcp: many\n"),
        ("netstat", "TcpExt: ListenDrops\n"),
        ("snmp6", "Ip6InOctets many\n"),
        ("snmp6", "Ip6InOctets 1 2\n"),
    ],
)
def test_error_names_the_file(samples: Callable[..., Samples], file: str, content: str) -> None:
    """The error for an unreadable file has its path."""
    with pytest.raises(TargetError, match=f"/proc/net/{file}: "):
        samples(ALL | {f"proc/net/{file}": content})
