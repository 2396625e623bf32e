"""The subsystem `btrfs`: space by block group type and profile, commits, and device errors."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bts_collectors.host.kernel.devices import devices, entries, parse_integer, read_integer
from bts_collectors.host.kernel.files import lines, read_value, text
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, counter, gauge

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LAYOUT = ("uuid", "block_group_type", "mode")
_BLOCK_GROUP_TYPES = ("data", "metadata", "system")
#: Bytes per unit of /sys/fs/btrfs/UUID/devices/DEVICE/size.
_SECTOR = 512
#: Copies of each byte by profile; for profiles with parity the ratio depends on the number of devices.
_COPIES = {
    "single": 1.0,
    "raid0": 1.0,
    "dup": 2.0,
    "raid1": 2.0,
    "raid10": 2.0,
    "raid1c3": 3.0,
    "raid1c4": 4.0,
}
_PARITY_DEVICES = {"raid5": 1, "raid6": 2}
_ERRORS = ("write", "read", "flush", "corruption", "generation")


class Btrfs(Subsystem):
    """Btrfs file systems from /sys/fs/btrfs."""

    name = "btrfs"

    info = gauge(
        "node_btrfs_info",
        "A metric with a constant '1' value, labelled by UUID and label of the file system"
        " (/sys/fs/btrfs/UUID/label).",
        ("uuid", "label"),
    )
    global_reserve = gauge(
        "node_btrfs_global_rsv_size_bytes",
        "Size of the global reserve (/sys/fs/btrfs/UUID/allocation/global_rsv_size).",
        ("uuid",),
    )
    reserved = gauge(
        "node_btrfs_reserved_bytes",
        "Space reserved for pending writes (/sys/fs/btrfs/UUID/allocation/TYPE/bytes_reserved).",
        ("uuid", "block_group_type"),
    )
    used = gauge(
        "node_btrfs_used_bytes",
        "Space used (/sys/fs/btrfs/UUID/allocation/TYPE/LAYOUT/used_bytes).",
        _LAYOUT,
    )
    size = gauge(
        "node_btrfs_size_bytes",
        "Space allocated (/sys/fs/btrfs/UUID/allocation/TYPE/LAYOUT/total_bytes).",
        _LAYOUT,
    )
    ratio = gauge(
        "node_btrfs_allocation_ratio",
        "Bytes allocated on the devices per byte of data, by profile (/sys/fs/btrfs/UUID/allocation).",
        _LAYOUT,
    )
    device_size = gauge(
        "node_btrfs_device_size_bytes",
        "Size of the device (/sys/fs/btrfs/UUID/devices/DEVICE/size).",
        ("uuid", "device"),
    )
    device_errors = counter(
        "node_btrfs_device_errors_total",
        "Errors of the device since its counters were reset"
        " (/sys/fs/btrfs/UUID/devinfo/ID/error_stats, since Linux 5.14).",
        ("uuid", "device", "type"),
    )
    commits = {  # noqa: RUF012  # a constant table of metrics
        "commits": (
            counter(
                "node_btrfs_commits_total",
                "Commits (/sys/fs/btrfs/UUID/commit_stats, commits).",
                ("uuid",),
            ),
            1,
        ),
        "last_commit_ms": (
            gauge(
                "node_btrfs_last_commit_seconds",
                "Duration of the latest commit (/sys/fs/btrfs/UUID/commit_stats, last_commit_ms).",
                ("uuid",),
            ),
            1000,
        ),
        "max_commit_ms": (
            gauge(
                "node_btrfs_max_commit_seconds",
                "Duration of the longest commit (/sys/fs/btrfs/UUID/commit_stats, max_commit_ms).",
                ("uuid",),
            ),
            1000,
        ),
        "total_commit_ms": (
            counter(
                "node_btrfs_commit_seconds_total",
                "Total duration of commits (/sys/fs/btrfs/UUID/commit_stats, total_commit_ms).",
                ("uuid",),
            ),
            1000,
        ),
    }

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/fs/btrfs"

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of each mounted file system."""
        uuids = [name for name in devices(self._folder) if _UUID.fullmatch(name)]
        if not uuids:
            msg = f"{self._folder} has no file system"
            raise NotPresent(msg)
        for uuid in uuids:
            self._emit(scrape, f"{self._folder}/{uuid}", uuid)

    def _emit(self, scrape: Scrape, folder: str, uuid: str) -> None:
        label = read_value(f"{folder}/label")
        if label is not None:
            scrape.emit(self.info, 1, uuid, text(label))
        reserve = read_integer(f"{folder}/allocation/global_rsv_size")
        if reserve is not None:
            scrape.emit(self.global_reserve, reserve, uuid)
        for field, value in fields(read_value(f"{folder}/commit_stats")):
            if field in self.commits:
                metric, divisor = self.commits[field]
                scrape.emit(metric, value / divisor, uuid)
        names = entries(f"{folder}/devices")
        for device in names:
            sectors = read_integer(f"{folder}/devices/{device}/size")
            if sectors is not None:
                scrape.emit(self.device_size, sectors * _SECTOR, uuid, device)
        self._emit_errors(scrape, f"{folder}/devinfo", uuid, names)
        for group in _BLOCK_GROUP_TYPES:
            self._emit_allocation(scrape, f"{folder}/allocation/{group}", uuid, group, len(names))

    def _emit_errors(self, scrape: Scrape, folder: str, uuid: str, names: list[str]) -> None:
        ids = [entry for entry in entries(folder) if entry.isdecimal()]
        for devid in ids:
            # The kernel counts errors by device id, and does not say which name belongs to an id.
            device = names[0] if len(names) == len(ids) == 1 else f"devid {devid}"
            for field, value in fields(read_value(f"{folder}/{devid}/error_stats")):
                kind = field.removesuffix("_errs")
                if kind in _ERRORS:
                    scrape.emit(self.device_errors, value, uuid, device, kind)

    def _emit_allocation(
        self, scrape: Scrape, folder: str, uuid: str, group: str, device_count: int
    ) -> None:
        reserved = read_integer(f"{folder}/bytes_reserved")
        if reserved is not None:
            scrape.emit(self.reserved, reserved, uuid, group)
        for mode in (*_COPIES, *_PARITY_DEVICES):
            for metric, file in ((self.used, "used_bytes"), (self.size, "total_bytes")):
                value = read_integer(f"{folder}/{mode}/{file}")
                if value is None:
                    break  # the file system does not use this profile
                scrape.emit(metric, value, uuid, group, mode)
            else:
                ratio = allocation_ratio(mode, device_count)
                if ratio is not None:
                    scrape.emit(self.ratio, ratio, uuid, group, mode)


def allocation_ratio(mode: str, device_count: int) -> float | None:
    """Return the bytes on devices per byte of data; None with too few devices for the profile."""
    if mode in _COPIES:
        return _COPIES[mode]
    data_devices = device_count - _PARITY_DEVICES[mode]
    return device_count / data_devices if data_devices > 0 else None


def fields(content: bytes | None) -> Iterator[tuple[str, int]]:
    """Yield `(name, number)` of lines such as `name number`; skip other lines."""
    for line in lines((content or b"") + b"\n"):
        name, _, number = line.partition(b" ")
        value = parse_integer(number)
        if value is not None and value >= 0:
            yield text(name), value


COLLECTOR = Btrfs
