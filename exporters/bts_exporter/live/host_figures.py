"""The host in a few figures: shares of CPU, memory, disk space and waiting, and bytes per second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bts_exporter.collection.runner import Snapshot
from bts_exporter.metric import Key

#: Figures by name, in the order in which the page shows them. Those in bytes per second end in `_bytes`.
FIGURES = (
    "cpu_share",
    "memory_share",
    "filesystem_share",
    "disk_read_bytes",
    "disk_written_bytes",
    "network_received_bytes",
    "network_sent_bytes",
    "cpu_pressure_share",
    "memory_pressure_share",
    "io_pressure_share",
)
#: Network devices whose bytes pass through another device as well, or never leave the host.
_INNER_DEVICES = ("lo", "veth", "docker", "br-", "virbr", "cni", "flannel", "cali", "bond", "team")
#: Block devices that are a part of another, or in memory.
_INNER_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr")
#: File systems that are always full.
_IMAGES = frozenset(("squashfs", "iso9660", "erofs", "cramfs"))

Series = Mapping[Key, float]
Counts = dict[str, float]


class HostFigures:
    """Turns samples with node_exporter's names into figures; of a counter it needs two readings."""

    def __init__(self) -> None:
        """Begin without a reading."""
        #: The counts that each figure was computed from, and when they were read.
        self._before: dict[str, tuple[float, Counts]] = {}
        #: The mount point of the fullest file system.
        self.fullest = ""

    def of(self, snapshots: Iterable[Snapshot], now: float) -> dict[str, float]:
        """Return the figures that can be computed from `snapshots`, collected at `now` in seconds."""
        found = _wanted(snapshots)
        figures: dict[str, float] = {}
        for name, (needed, counts_of) in _COUNTERS.items():
            if needed in found:
                rates = self._rates(name, now, counts_of(found[needed]))
                if rates:
                    figures[name] = _busy(rates) if name == "cpu_share" else sum(rates.values())
        memory = [_only(found.get(name)) for name in (_MEMORY_TOTAL, _MEMORY_AVAILABLE)]
        if memory[0] and memory[1] is not None:
            figures["memory_share"] = 1 - memory[1] / memory[0]
        shares = _filesystem_shares(found)
        if shares:
            self.fullest = max(shares, key=lambda mountpoint: shares[mountpoint])
            figures["filesystem_share"] = shares[self.fullest]
        return figures

    def _rates(self, name: str, now: float, counts: Counts) -> Counts:
        """Return how fast each count has risen since the reading before; counters that started again are left out."""
        before = self._before.get(name)
        self._before[name] = now, counts
        if before is None or now <= before[0]:
            return {}
        seconds = now - before[0]
        return {
            key: (count - before[1][key]) / seconds
            for key, count in counts.items()
            if count >= before[1].get(key, float("inf"))
        }


_MEMORY_TOTAL = "node_memory_MemTotal_bytes"
_MEMORY_AVAILABLE = "node_memory_MemAvailable_bytes"
_SIZE = "node_filesystem_size_bytes"
_AVAILABLE = "node_filesystem_avail_bytes"


def _wanted(snapshots: Iterable[Snapshot]) -> dict[str, Series]:
    """Return the samples that figures are made of, by the name of the metric."""
    return {
        metric.name: series
        for shot in snapshots
        # Not of other machines, whose metrics a relay may serve.
        if shot.runner.local and not shot.runner.open_ended
        for metric, series in shot.samples.items()
        if metric.name in _NEEDED
    }


def _busy(seconds: Counts) -> float:
    """Return the share of the CPU time that was not idle; `seconds` are by mode."""
    total = sum(seconds.values())
    return 1 - (seconds.get("idle", 0.0) + seconds.get("iowait", 0.0)) / total if total else 0.0


def _by_mode(series: Series) -> Counts:
    counts: Counts = {}
    for (_, mode), seconds in series.items():
        counts[mode] = counts.get(mode, 0.0) + seconds
    return counts


def _of_disks(series: Series) -> Counts:
    names = {key[0] for key in series}
    return {
        key[0]: count
        for key, count in series.items()
        if not key[0].startswith(_INNER_DISKS) and not _is_partition(key[0], names)
    }


def _is_partition(name: str, names: set[str]) -> bool:
    disk = name.rstrip("0123456789")
    return disk != name and (disk in names or disk.removesuffix("p") in names - {name})


def _of_interfaces(series: Series) -> Counts:
    return {
        key[0]: count
        for key, count in series.items()
        if not key[0].startswith(_INNER_DEVICES) and "." not in key[0]
    }


def _all(series: Series) -> Counts:
    return {"": _only(series) or 0.0}


def _only(series: Series | None) -> float | None:
    """Return the value of a metric without labels."""
    return next(iter(series.values()), None) if series else None


def _filesystem_shares(found: Mapping[str, Series]) -> dict[str, float]:
    """Return how full each file system is, by mount point."""
    available = found.get(_AVAILABLE, {})
    return {
        key[1]: 1 - available[key] / size
        for key, size in found.get(_SIZE, {}).items()
        if size > 0 and key in available and key[2] not in _IMAGES
    }


#: The counters that figures are computed from, and how their samples are selected.
_COUNTERS: dict[str, tuple[str, Callable[[Series], Counts]]] = {
    "cpu_share": ("node_cpu_seconds_total", _by_mode),
    "disk_read_bytes": ("node_disk_read_bytes_total", _of_disks),
    "disk_written_bytes": ("node_disk_written_bytes_total", _of_disks),
    "network_received_bytes": ("node_network_receive_bytes_total", _of_interfaces),
    "network_sent_bytes": ("node_network_transmit_bytes_total", _of_interfaces),
    "cpu_pressure_share": ("node_pressure_cpu_waiting_seconds_total", _all),
    "memory_pressure_share": ("node_pressure_memory_waiting_seconds_total", _all),
    "io_pressure_share": ("node_pressure_io_waiting_seconds_total", _all),
}
_NEEDED = {needed for needed, _ in _COUNTERS.values()} | {
    _MEMORY_TOTAL,
    _MEMORY_AVAILABLE,
    _SIZE,
    _AVAILABLE,
}
