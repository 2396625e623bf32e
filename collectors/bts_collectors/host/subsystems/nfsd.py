"""The subsystem `nfsd`: requests to the NFS server."""

from __future__ import annotations

from bts_collectors.host.kernel import rpc_statistics
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.rpc_statistics import NFS2, NFS3
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Metric, Scrape, counter, gauge

#: Operations of NFS 4 by number (RFC 7530, 8881, 7862, 8276); numbers below 3 are not used.
_NFS4 = (
    "", "", "", "Access", "Close", "Commit", "Create", "DelegPurge", "DelegReturn", "GetAttr", "GetFH",
    "Link", "Lock", "Lockt", "Locku", "Lookup", "LookupRoot", "Nverify", "Open", "OpenAttr",
    "OpenConfirm", "OpenDgrd", "PutFH", "PutPubFH", "PutRootFH", "Read", "ReadDir", "ReadLink",
    "Remove", "Rename", "Renew", "RestoreFH", "SaveFH", "SecInfo", "SetAttr", "SetClientID",
    "SetClientIDConfirm", "Verify", "Write", "RelLockOwner", "BackchannelCtl", "BindConnToSession",
    "ExchangeID", "CreateSession", "DestroySession", "FreeStateID", "GetDirDelegation",
    "GetDeviceInfo", "GetDeviceList", "LayoutCommit", "LayoutGet", "LayoutReturn", "SecInfoNoName",
    "Sequence", "SetSSV", "TestStateID", "WantDelegation", "DestroyClientID", "ReclaimComplete",
    "Allocate", "Copy", "CopyNotify", "DeAllocate", "IOAdvise", "LayoutError", "LayoutStats",
    "OffloadCancel", "OffloadStatus", "ReadPlus", "Seek", "WriteSame", "Clone", "GetXattr", "SetXattr",
    "ListXattrs", "RemoveXattr",
)  # fmt: skip
# Procedure 0 (Null) of versions 2 and 3 is only a ping, and is left out.
_PROCEDURES = {
    "proc2": ("2", ("", *NFS2[1:])),
    "proc3": ("3", ("", *NFS3[1:])),
    "proc4ops": ("4", _NFS4),
}
_ERRORS = ("fmt", "auth", "cInt")


class Nfsd(Subsystem):
    """NFS server from /proc/net/rpc/nfsd."""

    name = "nfsd"

    #: The metrics of the first numbers of a line, by the line's first word.
    numbers: dict[str, tuple[Metric, ...]] = {  # noqa: RUF012  # a constant table of metrics
        "rc": (
            counter(
                "node_nfsd_reply_cache_hits_total",
                "Reply cache hits: repeated requests (/proc/net/rpc/nfsd, rc, field 1).",
            ),
            counter(
                "node_nfsd_reply_cache_misses_total",
                "Reply cache misses: replies that were cached (/proc/net/rpc/nfsd, rc, field 2).",
            ),
            counter(
                "node_nfsd_reply_cache_nocache_total",
                "Replies that were not cached (/proc/net/rpc/nfsd, rc, field 3).",
            ),
        ),
        "fh": (
            counter(
                "node_nfsd_file_handles_stale_total",
                "Stale file handles (/proc/net/rpc/nfsd, fh, field 1).",
            ),
        ),
        "io": (
            counter(
                "node_nfsd_disk_bytes_read_total", "Bytes read (/proc/net/rpc/nfsd, io, field 1)."
            ),
            counter(
                "node_nfsd_disk_bytes_written_total",
                "Bytes written (/proc/net/rpc/nfsd, io, field 2).",
            ),
        ),
        "th": (
            gauge(
                "node_nfsd_server_threads",
                "Number of server threads (/proc/net/rpc/nfsd, th, field 1).",
            ),
        ),
        "ra": (
            gauge(
                "node_nfsd_read_ahead_cache_size_blocks",
                "Size of the read-ahead cache (/proc/net/rpc/nfsd, ra, field 1; before Linux 5.4).",
            ),
        ),
        "rpc": (
            counter(
                "node_nfsd_server_rpcs_total",
                "RPC calls received (/proc/net/rpc/nfsd, rpc, field 1).",
            ),
        ),
    }
    not_found = counter(
        "node_nfsd_read_ahead_cache_not_found_total",
        "Read-ahead cache misses (/proc/net/rpc/nfsd, ra, field 12; before Linux 5.4).",
    )
    packets = counter(
        "node_nfsd_packets_total",
        "Packets by transport (/proc/net/rpc/nfsd, net, fields 2 and 3).",
        ("proto",),
    )
    connections = counter(
        "node_nfsd_connections_total",
        "TCP connections accepted (/proc/net/rpc/nfsd, net, field 4).",
    )
    errors = counter(
        "node_nfsd_rpc_errors_total",
        "RPC calls with an error: fmt (format), auth (authentication), cInt (invalid client)"
        " (/proc/net/rpc/nfsd, rpc, fields 3 to 5).",
        ("error",),
    )
    requests = counter(
        "node_nfsd_requests_total",
        "Requests by protocol version and procedure (/proc/net/rpc/nfsd, proc2, proc3, proc4ops, wdeleg_getattr).",
        ("proto", "method"),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/net/rpc/nfsd")

    def collect(self, scrape: Scrape) -> None:
        """Emit the server's counters; skip those that a line lacks."""
        statistics: dict[str, list[int]] = {}
        with self._file as content:
            try:
                statistics.update(rpc_statistics.parse(content))
            finally:
                self._emit(scrape, statistics)

    def _emit(self, scrape: Scrape, statistics: dict[str, list[int]]) -> None:
        for word, metrics in self.numbers.items():
            for metric, value in zip(metrics, statistics.get(word, ()), strict=False):
                scrape.emit(metric, value)
        for value in statistics.get("ra", ())[11:12]:
            scrape.emit(self.not_found, value)
        for error, value in zip(_ERRORS, statistics.get("rpc", ())[2:5], strict=False):
            scrape.emit(self.errors, value, error)
        rpc_statistics.emit_network(scrape, statistics, self.packets, self.connections)
        for version, procedure, count in rpc_statistics.requests(statistics, _PROCEDURES):
            scrape.emit(self.requests, count, version, procedure)
        for value in statistics.get("wdeleg_getattr", ())[:1]:
            scrape.emit(self.requests, value, "4", "WdelegGetattr")


COLLECTOR = Nfsd
