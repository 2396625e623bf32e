from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.xfs import Xfs
from bts_exporter import NotPresent
from bts_exporter.testing import collect, look
from storage_and_fabric import XFS

Machine = Callable[[dict[str, str]], dict[str, Any]]


def test_counters_of_each_file_system(machine: Machine) -> None:
    """Each mounted file system has the counters of its file; the sum of all is left out."""
    files = {
        "sys/fs/xfs/sda1/stats/stats": XFS,
        "sys/fs/xfs/dm-0/stats/stats": "rw 7 8\n",
        "sys/fs/xfs/stats/stats": "rw 35 28\n",
    }

    samples = collect(Xfs(Xfs.Config(**machine(files))))

    assert samples["node_xfs_write_calls_total"] == {("dm-0",): 7, ("sda1",): 28}
    assert samples["node_xfs_read_calls_total"] == {("dm-0",): 8, ("sda1",): 20}
    assert samples["node_xfs_extent_allocation_blocks_allocated_total"] == {("sda1",): 872}
    assert samples["node_xfs_vnode_remove_total"] == {("sda1",): 26}


def test_odd_line_loses_only_itself(machine: Machine) -> None:
    """An unreadable line or file does not affect others, and is in the error."""
    files = {
        "sys/fs/xfs/sda1/stats/stats": "rw x y\ndir 3 2 1 52\n",
        "sys/fs/xfs/sdb1/stats/stats": "rw 7 8\n",
    }

    samples, error = look(Xfs(Xfs.Config(**machine(files))))

    assert samples["node_xfs_directory_operation_lookup_total"] == {("sda1",): 3}
    assert samples["node_xfs_read_calls_total"] == {("sdb1",): 8}
    assert "sda1/stats/stats: unexpected content: 'rw x y'" in str(error)


def test_no_xfs(machine: Machine) -> None:
    """Without the kernel module there is nothing to read."""
    with pytest.raises(NotPresent):
        collect(Xfs(Xfs.Config(**machine({}))))
