from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.nfs import Nfs
from bts_exporter import NotPresent
from bts_exporter.testing import collect, look
from storage_and_fabric import NFS

Machine = Callable[[dict[str, str]], dict[str, Any]]

FILE = "proc/net/rpc/nfs"


def test_client(machine: Machine) -> None:
    """Packets, calls and requests come from their lines, requests by version and procedure."""
    samples = collect(Nfs(Nfs.Config(**machine({FILE: NFS}))))

    assert samples["node_nfs_packets_total"] == {("udp",): 30, ("tcp",): 40}
    assert samples["node_nfs_connections_total"] == {(): 5}
    assert samples["node_nfs_rpcs_total"] == {(): 1200}
    assert samples["node_nfs_rpc_retransmissions_total"] == {(): 37}
    assert samples["node_nfs_rpc_authentication_refreshes_total"] == {(): 1201}
    requests = samples["node_nfs_requests_total"]
    assert requests["2", "FsStat"] == 82
    assert requests["3", "Commit"] == 23
    assert (requests["4", "Read"], requests["4", "Copy"]) == (98, 16)


def test_kernel_that_has_fewer_procedures(machine: Machine) -> None:
    """Procedures that the kernel does not count have no series."""
    short = "proc4 3 1 2 3\n"

    samples = collect(Nfs(Nfs.Config(**machine({FILE: short}))))

    assert samples == {
        "node_nfs_requests_total": {("4", "Null"): 1, ("4", "Read"): 2, ("4", "Write"): 3}
    }


def test_procedures_of_a_newer_kernel_are_left_out(machine: Machine) -> None:
    """Counters of unknown procedures are left out."""
    long = "proc2 20 " + " ".join(map(str, range(20))) + "\n"

    samples = collect(Nfs(Nfs.Config(**machine({FILE: long}))))

    assert len(samples["node_nfs_requests_total"]) == 18


@pytest.mark.parametrize("line", ["rpc x y z", "", "proc4", "\x00\xff"])
def test_odd_line_loses_only_itself(machine: Machine, line: str) -> None:
    """The lines around an unreadable one are served, and the error has the line."""
    content = f"net 70 30 40 5\n{line}\nproc3 2 1 6\n"

    samples, error = look(Nfs(Nfs.Config(**machine({FILE: content}))))

    assert samples["node_nfs_connections_total"] == {(): 5}
    assert samples["node_nfs_requests_total"] == {("3", "Null"): 1, ("3", "GetAttr"): 6}
    assert error is not None
    assert FILE in str(error)


def test_no_nfs_client(machine: Machine) -> None:
    """Without the kernel module there is nothing to read."""
    with pytest.raises(NotPresent):
        collect(Nfs(Nfs.Config(**machine({}))))
