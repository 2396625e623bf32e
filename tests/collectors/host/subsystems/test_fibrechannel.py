from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.fibrechannel import Fibrechannel, parse_statistic
from bts_exporter import NotPresent
from bts_exporter.testing import collect
from storage_and_fabric import MACHINE

Machine = Callable[[dict[str, str]], dict[str, Any]]


def test_port(machine: Machine) -> None:
    """A port has its information and its statistics, without those that the driver does not count."""
    samples = collect(Fibrechannel(Fibrechannel.Config(**machine(MACHINE))))

    (labels,) = samples["node_fibrechannel_info"]
    assert labels[:7] == (
        "host0",
        "16 Gbit",
        "Online",
        "Point-To-Point (direct nport connection)",
        "000002",
        "1000e0071bce95f2",
        "0",
    )
    assert samples["node_fibrechannel_fcp_packet_aborts_total"] == {("host0",): 0x13}
    assert samples["node_fibrechannel_invalid_tx_words_total"] == {("host0",): 8}
    assert "node_fibrechannel_dumped_frames_total" not in samples


def test_port_without_some_of_its_files(machine: Machine) -> None:
    """A missing file is an empty label, or has no series; the rest of the port is served."""
    folder = "sys/class/fc_host/host1"
    files = {f"{folder}/port_state": "Linkdown\n", f"{folder}/statistics/rx_frames": "0x3\n"}

    samples = collect(Fibrechannel(Fibrechannel.Config(**machine(files))))

    assert samples == {
        "node_fibrechannel_info": {("host1", "", "Linkdown", *[""] * 8): 1},
        "node_fibrechannel_rx_frames_total": {("host1",): 3},
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"0x1a", 26), (b"0xffffffffffffffff", None), (b"", None), (b"many", None), (None, None)],
)
def test_statistic(value: bytes | None, expected: int | None) -> None:
    """A statistic is a hexadecimal number; all bits set mean that it is not counted."""
    assert parse_statistic(value) == expected


def test_no_adapter(machine: Machine) -> None:
    """Without an adapter there is nothing to read."""
    with pytest.raises(NotPresent):
        collect(Fibrechannel(Fibrechannel.Config(**machine({}))))
