from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.udp_queues import UdpQueues, parse
from bts_exporter import NotPresent
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

HEADER = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
SOCKET = "    0: 00000000:0016 00000000:0000 07 {sent}:{received} 00:00000000 00000000     0\n"


def table(*queues: tuple[str, str]) -> str:
    """Return a /proc/net/udp with a socket for each `(tx_queue, rx_queue)`."""
    return HEADER + "".join(SOCKET.format(sent=tx, received=rx) for tx, rx in queues)


def test_sums_by_direction_and_version(machine: Machine) -> None:
    """The hexadecimal queue sizes are summed over sockets, for IPv4 and IPv6."""
    paths = machine(
        {
            "proc/net/udp": table(("00000015", "00000000"), ("00000001", "000000FF")),
            "proc/net/udp6": table(("00000000", "00000010")),
        }
    )

    assert collect(UdpQueues(UdpQueues.Config(**paths))) == {
        "node_udp_queues": {
            ("tx", "v4"): 22,
            ("rx", "v4"): 255,
            ("tx", "v6"): 0,
            ("rx", "v6"): 16,
        }
    }


def test_without_ipv6(machine: Machine) -> None:
    """A host without IPv6 has only the series of IPv4, which are 0 without sockets."""
    paths = machine({"proc/net/udp": table()})

    assert collect(UdpQueues(UdpQueues.Config(**paths))) == {
        "node_udp_queues": {("tx", "v4"): 0, ("rx", "v4"): 0}
    }


def test_absent(machine: Machine) -> None:
    """Without either file there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc/net/udp is absent"):
        collect(UdpQueues(UdpQueues.Config(**machine({}))))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        HEADER.encode().rstrip(),
        b"what is this\n",
        table(("-0000001", "00000000")).encode(),
        table(("0000_001", "00000000")).encode(),
        table(("00000001", "")).encode(),
        table(("00000001", "-0000001")).encode(),
        table(("00000001", "0000_001")).encode(),
        table(("0000000g", "00000000")).encode(),
        HEADER.encode() + b"    0: 00000000:0016\n",
    ],
)
def test_no_table(content: bytes) -> None:
    """A truncated table, another table and words that are not numbers raise ValueError."""
    with pytest.raises(ValueError, match=r"unexpected content|is empty"):
        list(parse(content))
