from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.nvme import Nvme
from bts_exporter import NotPresent
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

NVME = "sys/class/nvme/nvme0"
DRIVE = {
    f"{NVME}/firmware_rev": "1B2QEXP7\n",
    f"{NVME}/model": "Samsung SSD 970 PRO 512GB               \n",
    f"{NVME}/serial": "S680HF8N190894I     \n",
    f"{NVME}/state": "live\n",
    f"{NVME}/cntlid": "4\n",
}


def test_drive(machine: Machine) -> None:
    """A drive has the text of its files as labels, without padding."""
    labels = ("nvme0", "1B2QEXP7", "Samsung SSD 970 PRO 512GB", "S680HF8N190894I", "live", "4")

    assert collect(Nvme(Nvme.Config(**machine(DRIVE)))) == {"node_nvme_info": {labels: 1}}


@pytest.mark.parametrize("name", ["nvme0n1", "nvme0c2n1"])
def test_namespace(machine: Machine, name: str) -> None:
    """Sizes are in bytes: capacity from sectors of 512 bytes, usage from logical blocks."""
    paths = machine(
        DRIVE
        | {
            f"{NVME}/{name}/ana_state": "optimized\n",
            f"{NVME}/{name}/size": "3906250000\n",
            f"{NVME}/{name}/nuse": "244140625\n",
            f"{NVME}/{name}/queue/logical_block_size": "4096\n",
        }
    )
    samples = collect(Nvme(Nvme.Config(**paths)))
    del samples["node_nvme_info"]

    assert samples == {
        "node_nvme_namespace_info": {("nvme0", "1", "optimized"): 1},
        "node_nvme_namespace_capacity_bytes": {("nvme0", "1"): 2_000_000_000_000},
        "node_nvme_namespace_size_bytes": {("nvme0", "1"): 2_000_000_000_000},
        "node_nvme_namespace_used_bytes": {("nvme0", "1"): 1_000_000_000_000},
        "node_nvme_namespace_logical_block_size_bytes": {("nvme0", "1"): 4096},
    }


def test_older_kernel(machine: Machine) -> None:
    """Before Linux 6.8 usage is unknown, and a single path has no state."""
    samples = collect(Nvme(Nvme.Config(**machine(DRIVE | {f"{NVME}/nvme0n1/size": "2\n"}))))

    assert samples["node_nvme_namespace_info"] == {("nvme0", "1", "unknown"): 1}
    assert samples["node_nvme_namespace_size_bytes"] == {("nvme0", "1"): 1024}
    assert "node_nvme_namespace_used_bytes" not in samples


def test_no_drives(machine: Machine) -> None:
    """Without a drive there is nothing to read."""
    with pytest.raises(NotPresent, match="class/nvme"):
        collect(Nvme(Nvme.Config(**machine({}))))
