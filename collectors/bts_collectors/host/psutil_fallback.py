"""The basic subsystems on systems other than Linux, with values from psutil and the same metric names.

`uname` and `time` work without it; all other subsystems have nothing to read there.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from bts_collectors.host.subsystem import Subsystem
from bts_collectors.host.subsystems.cpu import Cpu
from bts_collectors.host.subsystems.diskstats import Diskstats
from bts_collectors.host.subsystems.filesystem import Filesystem, Target
from bts_collectors.host.subsystems.loadavg import Loadavg
from bts_collectors.host.subsystems.meminfo import Meminfo
from bts_collectors.host.subsystems.netdev import Netdev
from bts_exporter import NotPresent, Scrape

_MILLISECONDS = 1e3

#: psutil's field for each metric.
_DISK = {
    "node_disk_reads_completed_total": "read_count",
    "node_disk_read_bytes_total": "read_bytes",
    "node_disk_read_time_seconds_total": "read_time",
    "node_disk_writes_completed_total": "write_count",
    "node_disk_written_bytes_total": "write_bytes",
    "node_disk_write_time_seconds_total": "write_time",
}
_NETWORK = {
    "node_network_receive_bytes_total": "bytes_recv",
    "node_network_receive_packets_total": "packets_recv",
    "node_network_receive_errs_total": "errin",
    "node_network_receive_drop_total": "dropin",
    "node_network_transmit_bytes_total": "bytes_sent",
    "node_network_transmit_packets_total": "packets_sent",
    "node_network_transmit_errs_total": "errout",
    "node_network_transmit_drop_total": "dropout",
}


class PsutilCpu(Cpu):
    """CPU time in the modes that the system distinguishes."""

    def collect(self, scrape: Scrape) -> None:
        """Emit the times of each CPU."""
        for number, times in enumerate(_call_psutil("cpu_times", percpu=True)):
            for mode in ("user", "nice", "system", "idle", "irq"):
                if mode in times._fields:
                    scrape.emit(self.seconds, getattr(times, mode), str(number), mode)


class PsutilMeminfo(Meminfo):
    """Memory and swap."""

    def collect(self, scrape: Scrape) -> None:
        """Emit the fields that every system has."""
        memory, swap = _call_psutil("virtual_memory"), _call_psutil("swap_memory")
        scrape.emit(self.bytes_.of("MemTotal"), memory.total)
        scrape.emit(self.bytes_.of("MemAvailable"), memory.available)
        scrape.emit(self.bytes_.of("MemFree"), memory.free)
        scrape.emit(self.bytes_.of("SwapTotal"), swap.total)
        scrape.emit(self.bytes_.of("SwapFree"), swap.free)


class PsutilLoadavg(Loadavg):
    """Load averages."""

    def collect(self, scrape: Scrape) -> None:
        """Emit the three averages."""
        for metric, value in zip(self.averages, os.getloadavg(), strict=True):
            scrape.emit(metric, value)


class PsutilFilesystem(Filesystem):
    """File systems; a mount that hangs loses only its own series, as on Linux."""

    def _read(self) -> tuple[str, bytes]:
        """Return the mounts in the format of /proc/self/mountinfo."""
        lines = [
            b"%d %d 0:%d / %s %s - %s %s rw\n"
            % (
                number,
                number,  # the parent is unknown
                number,
                _escaped(mount.mountpoint),
                b"ro" if "ro" in mount.opts.split(",") else b"rw",
                _escaped(mount.fstype),
                _escaped(mount.device),
            )
            for number, mount in enumerate(_call_psutil("disk_partitions"), 1)
        ]
        return "psutil.disk_partitions", b"".join(lines)

    def _emit_info(self, scrape: Scrape, target: Target) -> None:
        """Emit nothing: the device numbers are unknown."""


class PsutilDiskstats(Diskstats):
    """Counters of disks."""

    def collect(self, scrape: Scrape) -> None:
        """Emit the counters of each selected disk."""
        metrics = {metric.name: (metric, unit) for metric, unit in self.counters}
        for device, counters in (_call_psutil("disk_io_counters", perdisk=True) or {}).items():
            if self._name_filter(device):
                for name, field in _DISK.items():
                    metric, unit = metrics[name]
                    if field in counters._fields:
                        value = getattr(counters, field)
                        scrape.emit(
                            metric, value / _MILLISECONDS if unit == "ms" else value, device
                        )


class PsutilNetdev(Netdev):
    """Counters of network devices."""

    def collect(self, scrape: Scrape) -> None:
        """Emit the counters of each selected device."""
        metrics = {metric.name: metric for metric in self.columns}
        for device, counters in _call_psutil("net_io_counters", pernic=True).items():
            if self._name_filter(device):
                for name, field in _NETWORK.items():
                    scrape.emit(metrics[name], getattr(counters, field), device)


_FALLBACKS: tuple[type[Subsystem], ...] = (
    PsutilCpu,
    PsutilDiskstats,
    PsutilFilesystem,
    PsutilLoadavg,
    PsutilMeminfo,
    PsutilNetdev,
)


def for_this_platform(subsystem: type[Subsystem]) -> type[Subsystem]:
    """Return the class that collects `subsystem` on this platform: on Linux `subsystem` itself."""
    if sys.platform == "linux":
        return subsystem
    return next((cls for cls in _FALLBACKS if issubclass(cls, subsystem)), subsystem)


def _call_psutil(function: str, **arguments: bool) -> Any:
    """Return the result of a function of psutil; NotPresent if psutil is not installed."""
    try:
        psutil = import_module("psutil")  # imported on first use: it costs memory
    except ModuleNotFoundError:
        msg = f"psutil is needed on {sys.platform}: pip install psutil"
        raise NotPresent(msg) from None
    return getattr(psutil, function)(**arguments)


def _escaped(name: str) -> bytes:
    """Return a name with spaces, tabs, newlines and backslashes as octal escapes, like the kernel."""
    raw = os.fsencode(name) or b"none"
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else b"%c" % byte for byte in raw)
