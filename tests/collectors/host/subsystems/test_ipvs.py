from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.ipvs import Ipvs
from bts_exporter import NotPresent
from bts_exporter.testing import collect, look
from storage_and_fabric import IP_VS, IP_VS_STATS

Machine = Callable[[dict[str, str]], dict[str, Any]]

TABLE = "proc/net/ip_vs"
STATS = "proc/net/ip_vs_stats"


def test_totals(machine: Machine) -> None:
    """The first line of numbers has the totals, in hexadecimal."""
    samples = collect(Ipvs(Ipvs.Config(**machine({STATS: IP_VS_STATS}))))

    assert samples == {
        "node_ipvs_connections_total": {(): 0x16AA370},
        "node_ipvs_incoming_packets_total": {(): 0xE33656E5},
        "node_ipvs_outgoing_packets_total": {(): 0},
        "node_ipvs_incoming_bytes_total": {(): 0x51D8C8883AB3},
        "node_ipvs_outgoing_bytes_total": {(): 15},
    }


def test_servers(machine: Machine) -> None:
    """Backends have the labels of their service: IPv4, IPv6 or a firewall mark."""
    files = {STATS: IP_VS_STATS, TABLE: IP_VS}

    samples = collect(Ipvs(Ipvs.Config(**machine(files))))

    assert samples["node_ipvs_backend_connections_active"] == {
        ("192.168.0.22", "3306", "192.168.82.22", "3306", "TCP", ""): 248,
        ("192.168.0.22", "3306", "192.168.83.24", "3306", "TCP", ""): 7,
        ("2001:db8::1", "80", "2001:db8::2", "80", "TCP", ""): 3,
        ("", "0", "192.168.50.26", "3306", "FWM", "10001000"): 64,
    }
    assert sorted(samples["node_ipvs_backend_weight"].values()) == [0, 1, 20, 100]
    assert sorted(samples["node_ipvs_backend_connections_inactive"].values()) == [1, 2, 4, 5]


def test_odd_line_loses_only_itself(machine: Machine) -> None:
    """An unreadable service loses its backends, and no others."""
    table = IP_VS.replace("TCP  C0A80016:0CEA", "TCP  C0A8:0CEA").replace("64", "many")

    samples, error = look(Ipvs(Ipvs.Config(**machine({STATS: IP_VS_STATS, TABLE: table}))))

    assert samples["node_ipvs_connections_total"] == {(): 0x16AA370}
    assert list(samples["node_ipvs_backend_weight"]) == [
        ("2001:db8::1", "80", "2001:db8::2", "80", "TCP", "")
    ]
    assert TABLE in str(error)


@pytest.mark.parametrize("content", ["", "Conns\n", IP_VS_STATS.replace("16AA370", "many")])
def test_unreadable_totals(machine: Machine, content: str) -> None:
    """Unreadable totals are an error with the path."""
    _, error = look(Ipvs(Ipvs.Config(**machine({STATS: content}))))

    assert STATS in str(error)


def test_no_ipvs(machine: Machine) -> None:
    """Without the kernel module there is nothing to read."""
    with pytest.raises(NotPresent):
        collect(Ipvs(Ipvs.Config(**machine({}))))
