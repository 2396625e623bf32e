"""The subsystem `nfs`: requests of the NFS client."""

from __future__ import annotations

from bts_collectors.host.kernel import rpc_statistics
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.rpc_statistics import NFS2, NFS3
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, counter

#: Operations of NFS 4, numbered as in the kernel's client (include/linux/nfs4.h).
_NFS4 = (
    "Null", "Read", "Write", "Commit", "Open", "OpenConfirm", "OpenNoattr", "OpenDowngrade", "Close",
    "Setattr", "FsInfo", "Renew", "SetClientID", "SetClientIDConfirm", "Lock", "Lockt", "Locku",
    "Access", "Getattr", "Lookup", "LookupRoot", "Remove", "Rename", "Link", "Symlink", "Create",
    "Pathconf", "StatFs", "ReadLink", "ReadDir", "ServerCaps", "DelegReturn", "GetACL", "SetACL",
    "FsLocations", "ReleaseLockowner", "Secinfo", "FsidPresent", "ExchangeID", "CreateSession",
    "DestroySession", "Sequence", "GetLeaseTime", "ReclaimComplete", "LayoutGet", "GetDeviceInfo",
    "LayoutCommit", "LayoutReturn", "SecinfoNoName", "TestStateID", "FreeStateID", "GetDeviceList",
    "BindConnToSession", "DestroyClientID", "Seek", "Allocate", "DeAllocate", "LayoutStats", "Clone",
    "Copy", "OffloadCancel", "Lookupp", "LayoutError", "CopyNotify", "Getxattr", "Setxattr",
    "Listxattrs", "Removexattr", "ReadPlus",
)  # fmt: skip
_PROCEDURES = {"proc2": ("2", NFS2), "proc3": ("3", NFS3), "proc4": ("4", _NFS4)}


class Nfs(Subsystem):
    """NFS client from /proc/net/rpc/nfs."""

    name = "nfs"

    packets = counter(
        "node_nfs_packets_total",
        "Packets by transport (/proc/net/rpc/nfs, net, fields 2 and 3).",
        ("protocol",),
    )
    connections = counter(
        "node_nfs_connections_total", "TCP connections opened (/proc/net/rpc/nfs, net, field 4)."
    )
    calls = (
        counter("node_nfs_rpcs_total", "RPC calls (/proc/net/rpc/nfs, rpc, field 1)."),
        counter(
            "node_nfs_rpc_retransmissions_total",
            "Retransmitted RPC calls (/proc/net/rpc/nfs, rpc, field 2).",
        ),
        counter(
            "node_nfs_rpc_authentication_refreshes_total",
            "Refreshes of credentials (/proc/net/rpc/nfs, rpc, field 3).",
        ),
    )
    requests = counter(
        "node_nfs_requests_total",
        "Requests by protocol version and procedure (/proc/net/rpc/nfs, proc2, proc3, proc4).",
        ("proto", "method"),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/net/rpc/nfs")

    def collect(self, scrape: Scrape) -> None:
        """Emit the client's counters; skip those that a line lacks."""
        statistics: dict[str, list[int]] = {}
        with self._file as content:
            try:
                statistics.update(rpc_statistics.parse(content))
            finally:
                self._emit(scrape, statistics)

    def _emit(self, scrape: Scrape, statistics: dict[str, list[int]]) -> None:
        rpc_statistics.emit_network(scrape, statistics, self.packets, self.connections)
        for metric, value in zip(self.calls, statistics.get("rpc", ()), strict=False):
            scrape.emit(metric, value)
        for version, procedure, count in rpc_statistics.requests(statistics, _PROCEDURES):
            scrape.emit(self.requests, count, version, procedure)


COLLECTOR = Nfs
