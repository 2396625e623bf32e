"""The basic subsystems on systems other than Linux: what psutil knows of them, under the same names.

uname and time need nothing of this; all others have nothing to read there.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from bts_collectors.host.subsystem import Subsystem
from bts_collectors.host.subsystems.cpu import Cpu
from bts_collectors.host.subsystems.diskstats import Diskstats
from bts_collectors.host.subsystems.filesystem import Filesystem
from bts_collectors.host.subsystems.loadavg import Loadavg
from bts_collectors.host.subsystems.meminfo import Meminfo
from bts_collectors.host.subsystems.netdev import Netdev
from bts_exporter import NothingToRead, Scrape

_MILLISECONDS = 1e3

#: psutil's fields by the metrics that they are; times in milliseconds are those of disks alone.
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


class PortableCpu(Cpu):
    """Times of processors; of the modes, those that the system tells apart."""

    def collect(self, scrape: Scrape) -> None:
        """Emit the times of each processor."""
        for number, times in enumerate(_ask("cpu_times", percpu=True)):
            for mode in ("user", "nice", "system", "idle", "irq"):
                if mode in times._fields:
                    scrape.emit(self.seconds, getattr(times, mode), str(number), mode)


class PortableMeminfo(Meminfo):
    """Memory and swap."""

    def collect(self, scrape: Scrape) -> None:
        """Emit what every system has."""
        memory, swap = _ask("virtual_memory"), _ask("swap_memory")
        scrape.emit(self.bytes_.of("MemTotal"), memory.total)
        scrape.emit(self.bytes_.of("MemAvailable"), memory.available)
        scrape.emit(self.bytes_.of("MemFree"), memory.free)
        scrape.emit(self.bytes_.of("SwapTotal"), swap.total)
        scrape.emit(self.bytes_.of("SwapFree"), swap.free)


class PortableLoadavg(Loadavg):
    """Load averages."""

    def collect(self, scrape: Scrape) -> None:
        """Emit the three averages."""
        for metric, value in zip(self.averages, os.getloadavg(), strict=True):
            scrape.emit(metric, value)


class PortableFilesystem(Filesystem):
    """Mounts, asked as on Linux: one that hangs costs itself alone."""

    def collect(self, scrape: Scrape) -> None:
        """Emit the figures of each mount that is wanted."""
        super().collect(scrape)
        scrape.discard(self.mount_info)  # the device's numbers are not known

    def _read(self) -> tuple[str, bytes]:
        """Return the mounts as /proc/self/mountinfo would have them."""
        lines = [
            b"%d %d 0:%d / %s %s - %s %s rw\n"
            % (
                number,
                number,  # which mount it is on is not known
                number,
                _escaped(mount.mountpoint),
                b"ro" if "ro" in mount.opts.split(",") else b"rw",
                _escaped(mount.fstype),
                _escaped(mount.device),
            )
            for number, mount in enumerate(_ask("disk_partitions"), 1)
        ]
        return "psutil.disk_partitions", b"".join(lines)


class PortableDiskstats(Diskstats):
    """Counters of disks."""

    def collect(self, scrape: Scrape) -> None:
        """Emit the counters of each disk that is wanted."""
        metrics = {metric.name: (metric, unit) for metric, unit in self.counters}
        for device, counters in (_ask("disk_io_counters", perdisk=True) or {}).items():
            if self._wanted(device):
                for name, field in _DISK.items():
                    metric, unit = metrics[name]
                    if field in counters._fields:
                        value = getattr(counters, field)
                        scrape.emit(
                            metric, value / _MILLISECONDS if unit == "ms" else value, device
                        )


class PortableNetdev(Netdev):
    """Counters of network devices."""

    def collect(self, scrape: Scrape) -> None:
        """Emit the counters of each device that is wanted."""
        metrics = {metric.name: metric for metric in self.columns}
        for device, counters in _ask("net_io_counters", pernic=True).items():
            if self._wanted(device):
                for name, field in _NETWORK.items():
                    scrape.emit(metrics[name], getattr(counters, field), device)


_PORTABLE: tuple[type[Subsystem], ...] = (
    PortableCpu,
    PortableDiskstats,
    PortableFilesystem,
    PortableLoadavg,
    PortableMeminfo,
    PortableNetdev,
)


def portable(subsystem: type[Subsystem]) -> type[Subsystem]:
    """Return what collects `subsystem` on this system: itself on Linux."""
    if sys.platform == "linux":
        return subsystem
    return next((cls for cls in _PORTABLE if issubclass(cls, subsystem)), subsystem)


def _ask(function: str, **arguments: bool) -> Any:
    """Return what a function of psutil says; NothingToRead where it is not installed."""
    try:
        psutil = import_module("psutil")  # costs memory, which Linux does not pay
    except ModuleNotFoundError:
        msg = f"this is {sys.platform}, where psutil is needed: pip install psutil"
        raise NothingToRead(msg) from None
    return getattr(psutil, function)(**arguments)


def _escaped(name: str) -> bytes:
    """Return a name with what separates fields as octal numbers, as the kernel writes it."""
    raw = os.fsencode(name) or b"none"
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else b"%c" % byte for byte in raw)
