from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.zfs import Zfs
from bts_exporter import NotPresent
from bts_exporter.testing import collect, look
from storage_and_fabric import ARCSTATS, MACHINE, OBJSET

Machine = Callable[[dict[str, str]], dict[str, Any]]

FOLDER = "proc/spl/kstat/zfs"


def test_cache(machine: Machine) -> None:
    """Each number of a file is served under its name, also a negative one."""
    samples = collect(Zfs(Zfs.Config(**machine({f"{FOLDER}/arcstats": ARCSTATS}))))

    assert samples == {
        "node_zfs_arc_hits": {(): 8772612},
        "node_zfs_arc_misses": {(): 604635},
        "node_zfs_arc_memory_available_bytes": {(): -922337203},
    }


def test_pool(machine: Machine) -> None:
    """A pool has its state among all states, its I/O, and that of its datasets."""
    samples = collect(Zfs(Zfs.Config(**machine(MACHINE))))

    states = samples["node_zfs_zpool_state"]
    assert states["tank", "degraded"] == 1
    assert sum(states.values()) == 1
    assert len(states) == 7
    assert samples["node_zfs_zpool_nread"] == {("tank",): 1884160}
    assert samples["node_zfs_zpool_dataset_nwritten"] == {("tank", "tank/data"): 12302}


def test_data_set_with_spaces_in_its_name(machine: Machine) -> None:
    """The name of a dataset extends to the end of its line."""
    content = OBJSET.replace("tank/data", "tank/my data  set")

    samples = collect(Zfs(Zfs.Config(**machine({f"{FOLDER}/tank/objset-1": content}))))

    assert list(samples["node_zfs_zpool_dataset_reads"]) == [("tank", "tank/my data  set")]


def test_odd_file_loses_only_itself(machine: Machine) -> None:
    """An unreadable file or line does not affect others, and is in the error."""
    files = {
        f"{FOLDER}/abdstats": "nonsense\n",
        f"{FOLDER}/arcstats": ARCSTATS.replace("8772612", "many"),
        f"{FOLDER}/tank/state": "NEW_STATE\n",
        f"{FOLDER}/tank/objset-1": "nonsense\n",
        f"{FOLDER}/vault/state": "ONLINE\n",
    }

    samples, error = look(Zfs(Zfs.Config(**machine(files))))

    assert samples["node_zfs_arc_misses"] == {(): 604635}
    assert {pool for pool, _ in samples["node_zfs_zpool_state"]} == {"vault"}
    assert f"{FOLDER}/abdstats: unexpected content: 'nonsense" in str(error)


def test_no_zfs(machine: Machine) -> None:
    """Without the kernel module there is nothing to read."""
    with pytest.raises(NotPresent):
        collect(Zfs(Zfs.Config(**machine({}))))
