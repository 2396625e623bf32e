from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.netdev import Netdev, NetdevSettings, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

HEAD = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast"
    "|bytes    packets errs drop fifo colls carrier compressed\n"
)
DEV = f"""\
{HEAD}    lo: 1616206   14296    0    0    0     0          0         0  1616206   14296    0    0    0     0       0          0
  eth0:1       2       3    4    5    6     7          8         9       10      11   12   13    14      15         16
"""


def test_columns(machine: Machine) -> None:
    """Each column is a counter for its direction, also without a space after the name."""
    samples = collect(Netdev(Netdev.Config(**machine({"proc/net/dev": DEV}))))

    assert {name: values[("eth0",)] for name, values in samples.items()} == {
        "node_network_receive_bytes_total": 1,
        "node_network_receive_packets_total": 2,
        "node_network_receive_errs_total": 3,
        "node_network_receive_drop_total": 4,
        "node_network_receive_fifo_total": 5,
        "node_network_receive_frame_total": 6,
        "node_network_receive_compressed_total": 7,
        "node_network_receive_multicast_total": 8,
        "node_network_transmit_bytes_total": 9,
        "node_network_transmit_packets_total": 10,
        "node_network_transmit_errs_total": 11,
        "node_network_transmit_drop_total": 12,
        "node_network_transmit_fifo_total": 13,
        "node_network_transmit_colls_total": 14,
        "node_network_transmit_carrier_total": 15,
        "node_network_transmit_compressed_total": 16,
    }
    assert samples["node_network_receive_bytes_total"] == {("lo",): 1616206, ("eth0",): 1}


def test_nohandler(machine: Machine) -> None:
    """Packets without a handler are served for the devices whose driver counts them."""
    paths = machine(
        {"proc/net/dev": DEV, "sys/class/net/eth0/statistics/rx_nohandler": "17\n"},
    )

    samples = collect(Netdev(Netdev.Config(**paths)))
    assert samples["node_network_receive_nohandler_total"] == {("eth0",): 17}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (NetdevSettings(device_include=re.compile("^eth")), {("eth0",)}),
        (NetdevSettings(device_exclude=re.compile("^eth")), {("lo",)}),
        (NetdevSettings(device_exclude=re.compile("")), {("lo",), ("eth0",)}),
    ],
)
def test_filter(machine: Machine, settings: NetdevSettings, expected: set[tuple[str]]) -> None:
    """Devices are selected by one of two expressions; an empty one selects all."""
    config = Netdev.Config(**machine({"proc/net/dev": DEV}), settings=settings)

    assert collect(Netdev(config))["node_network_receive_bytes_total"].keys() == expected


def test_both_filters() -> None:
    """Both expressions at once are an error."""
    with pytest.raises(ValueError, match="device_include and device_exclude cannot be combined"):
        NetdevSettings(device_include=re.compile("a"), device_exclude=re.compile("b"))


def test_alias_names() -> None:
    """A name may contain colons: the numbers follow the last one."""
    assert [name for name, _ in parse(f"{HEAD}eth0:1:{' 0' * 16}\n".encode())] == ["eth0:1"]


def test_unreadable_line_loses_only_itself() -> None:
    """The devices around an unreadable line are served, and the error has the line."""
    rows = parse(f"{HEAD} a:{' 1' * 16}\n b:{' 1' * 15}\n c:{' 1' * 16}\n".encode())

    assert [next(rows)[0], next(rows)[0]] == ["a", "c"]
    with pytest.raises(ValueError, match="unexpected content: ' b: 1 1"):
        next(rows)


@pytest.mark.parametrize(
    "content", ["", "\n", "a\nb\n", HEAD.replace("drop", "lost"), HEAD.replace("|", "\n")]
)
def test_other_columns(machine: Machine, content: str) -> None:
    """Unknown columns are an error, so that numbers are not taken for others."""
    with pytest.raises(TargetError, match=r"/proc/net/dev: (is empty|unexpected content)"):
        collect(Netdev(Netdev.Config(**machine({"proc/net/dev": content}))))


def test_absent(machine: Machine) -> None:
    """A kernel without networking has nothing to read."""
    with pytest.raises(NotPresent):
        collect(Netdev(Netdev.Config(**machine({}))))
