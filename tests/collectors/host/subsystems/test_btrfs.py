from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.btrfs import Btrfs, allocation_ratio
from bts_exporter import NotPresent
from bts_exporter.testing import collect
from storage_and_fabric import BTRFS, MACHINE, UUID

Machine = Callable[[dict[str, str]], dict[str, Any]]

ERRORS = "write_errs 1\nread_errs 2\nflush_errs 3\ncorruption_errs 4\ngeneration_errs 5\n"


def test_allocation(machine: Machine) -> None:
    """Space is served by block group type and profile, with the allocation ratio."""
    samples = collect(Btrfs(Btrfs.Config(**machine(MACHINE))))

    assert samples["node_btrfs_info"] == {(UUID, "backup"): 1}
    assert samples["node_btrfs_global_rsv_size_bytes"] == {(UUID,): 16777216}
    assert samples["node_btrfs_reserved_bytes"][UUID, "data"] == 4096
    assert samples["node_btrfs_used_bytes"][UUID, "data", "raid5"] == 808189952
    assert samples["node_btrfs_size_bytes"][UUID, "metadata", "raid1"] == 2147483648
    assert samples["node_btrfs_allocation_ratio"] == {
        (UUID, "data", "raid5"): 1.5,
        (UUID, "metadata", "raid1"): 2,
        (UUID, "system", "raid1"): 2,
    }
    assert samples["node_btrfs_device_size_bytes"][UUID, "sdb"] == 20971520 * 512


def test_commits(machine: Machine) -> None:
    """The number and durations of commits come from commit_stats, in seconds."""
    stats = "commits 3\nlast_commit_ms 1500\nmax_commit_ms 2500\ntotal_commit_ms 4000\nodd x\n"

    samples = collect(Btrfs(Btrfs.Config(**machine({f"{BTRFS}/commit_stats": stats}))))

    assert samples == {
        "node_btrfs_commits_total": {(UUID,): 3},
        "node_btrfs_last_commit_seconds": {(UUID,): 1.5},
        "node_btrfs_max_commit_seconds": {(UUID,): 2.5},
        "node_btrfs_commit_seconds_total": {(UUID,): 4},
    }


def test_errors_of_the_only_device_have_its_name(machine: Machine) -> None:
    """With one device the errors have its name."""
    files = {f"{BTRFS}/devices/sda/size": "8\n", f"{BTRFS}/devinfo/1/error_stats": ERRORS}

    samples = collect(Btrfs(Btrfs.Config(**machine(files))))

    assert samples["node_btrfs_device_errors_total"] == {
        (UUID, "sda", "write"): 1,
        (UUID, "sda", "read"): 2,
        (UUID, "sda", "flush"): 3,
        (UUID, "sda", "corruption"): 4,
        (UUID, "sda", "generation"): 5,
    }


def test_errors_of_several_devices_have_their_numbers(machine: Machine) -> None:
    """With several devices the errors have the device id."""
    files = {f"{BTRFS}/devices/{name}/size": "8\n" for name in ("sda", "sdb")}
    files |= {f"{BTRFS}/devinfo/{n}/error_stats": f"write_errs {n}\n" for n in (1, 2)}

    samples = collect(Btrfs(Btrfs.Config(**machine(files))))

    assert samples["node_btrfs_device_errors_total"] == {
        (UUID, "devid 1", "write"): 1,
        (UUID, "devid 2", "write"): 2,
    }


@pytest.mark.parametrize(
    ("mode", "devices", "expected"),
    [("single", 1, 1), ("dup", 1, 2), ("raid6", 4, 2), ("raid6", 2, None), ("raid5", 0, None)],
)
def test_ratio(mode: str, devices: int, expected: float | None) -> None:
    """Parity takes whole devices; with too few of them there is no ratio."""
    assert allocation_ratio(mode, devices) == expected


@pytest.mark.parametrize("files", [{}, {"sys/fs/btrfs/features/raid1c34": "0\n"}])
def test_no_file_system(machine: Machine, files: dict[str, str]) -> None:
    """Without a mounted file system there is nothing to read, with or without the kernel module."""
    with pytest.raises(NotPresent):
        collect(Btrfs(Btrfs.Config(**machine(files))))
