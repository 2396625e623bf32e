from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.nfsd import Nfsd
from bts_exporter import NotPresent
from bts_exporter.testing import collect, look
from storage_and_fabric import NFSD

Machine = Callable[[dict[str, str]], dict[str, Any]]

FILE = "proc/net/rpc/nfsd"


def test_server(machine: Machine) -> None:
    """Caches, traffic, threads, errors and requests come from their lines."""
    samples = collect(Nfsd(Nfsd.Config(**machine({FILE: NFSD}))))

    requests = samples.pop("node_nfsd_requests_total")
    assert samples == {
        "node_nfsd_reply_cache_hits_total": {(): 1},
        "node_nfsd_reply_cache_misses_total": {(): 2},
        "node_nfsd_reply_cache_nocache_total": {(): 3},
        "node_nfsd_file_handles_stale_total": {(): 4},
        "node_nfsd_disk_bytes_read_total": {(): 157286400},
        "node_nfsd_disk_bytes_written_total": {(): 72864},
        "node_nfsd_server_threads": {(): 8},
        "node_nfsd_read_ahead_cache_size_blocks": {(): 32},
        "node_nfsd_read_ahead_cache_not_found_total": {(): 9},
        "node_nfsd_packets_total": {("udp",): 55, ("tcp",): 917},
        "node_nfsd_connections_total": {(): 1},
        "node_nfsd_server_rpcs_total": {(): 18628},
        "node_nfsd_rpc_errors_total": {("fmt",): 1, ("auth",): 2, ("cInt",): 5},
    }
    assert requests["2", "GetAttr"] == 69
    assert requests["3", "ReadDirPlus"] == 216


def test_operations_of_version_4_are_found_by_their_number(machine: Machine) -> None:
    """Counters of operations are mapped by the numbers in the RFCs, from 3 (ACCESS) on."""
    counters = " ".join(map(str, range(100, 176)))
    content = f"proc4ops 76 {counters}\nwdeleg_getattr 15\n"

    requests = collect(Nfsd(Nfsd.Config(**machine({FILE: content}))))["node_nfsd_requests_total"]

    assert {name: requests["4", name] for name in ("Access", "Read", "Write", "RemoveXattr")} == {
        "Access": 103,
        "Read": 125,
        "Write": 138,
        "RemoveXattr": 175,
    }
    assert requests["4", "WdelegGetattr"] == 15
    assert len(requests) == 76 - 3 + 1


def test_odd_line_loses_only_itself(machine: Machine) -> None:
    """The lines around an unreadable one are served, and the error has the line."""
    samples, error = look(Nfsd(Nfsd.Config(**machine({FILE: "io x\nth 8 0 0.000\n"}))))

    assert samples == {"node_nfsd_server_threads": {(): 8}}
    assert error is not None
    assert FILE in str(error)


def test_no_nfs_server(machine: Machine) -> None:
    """Without the kernel module there is nothing to read."""
    with pytest.raises(NotPresent):
        collect(Nfsd(Nfsd.Config(**machine({}))))
