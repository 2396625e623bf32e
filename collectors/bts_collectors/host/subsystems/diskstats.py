"""The subsystem `diskstats`: I/O statistics of block devices, and their properties from udev."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, NamedTuple

from bts_collectors.host.kernel.files import (
    MAX_COUNT,
    lines,
    read_optional,
    read_value,
    text,
    unexpected_content,
)
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Metric, NameFilter, NotPresent, Scrape, counter, gauge

#: Devices that are left out by default: RAM disks, loop devices, floppies, partitions.
DEVICE_EXCLUDE = re.compile(r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$")

#: Bytes per sector in /proc/diskstats, whatever the device's own sector size is.
_SECTOR = 512
#: Fields of a line before the first counter, and the minimum number of counters (Linux 2.6).
_HEAD, _LEAST = 3, 11

#: Nanoseconds; longer than the resolution of time stamps on any file system of udev's database.
_TICK = 1_000_000_000

#: Some kernels print -1 as an unsigned number for I/Os in progress if the count went wrong.
_UNKNOWN = 2**32 - 1

_DEVICE = ("device",)


class DiskstatsSettings(CollectorConfig, frozen=True):
    """Settings of `diskstats`."""

    #: Devices to collect; replaces the default of `device_exclude`.
    device_include: re.Pattern[str] | None = None
    #: Devices not to collect.
    device_exclude: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if both expressions are set."""
        NameFilter.check_exclusive("device", self.device_include, self.device_exclude)


class Row(NamedTuple):
    """A line of /proc/diskstats; depending on the kernel it has 11, 15 or 17 counters."""

    major: str
    minor: str
    device: str
    counters: list[int]


class Property(NamedTuple):
    """A sample with a property of a device; it changes only with the device."""

    metric: Metric
    value: float
    labels: tuple[str, ...]


def _total(name: str, what: str, number: int) -> Metric:
    return counter(f"node_disk_{name}", f"{what} (/proc/diskstats, field {number}).", _DEVICE)


class Diskstats(Subsystem):
    """Block devices from /proc/diskstats, the udev database and /sys/block."""

    name = "diskstats"
    Settings = DiskstatsSettings

    #: The metric of each counter, and the counter's unit: sectors of `_SECTOR` bytes, or milliseconds.
    counters = (
        (_total("reads_completed_total", "Reads completed", 4), ""),
        (_total("reads_merged_total", "Reads merged", 5), ""),
        (_total("read_bytes_total", "Bytes read, in sectors of 512 bytes", 6), "sectors"),
        (_total("read_time_seconds_total", "Time spent by all reads", 7), "ms"),
        (_total("writes_completed_total", "Writes completed", 8), ""),
        (_total("writes_merged_total", "Writes merged", 9), ""),
        (_total("written_bytes_total", "Bytes written, in sectors of 512 bytes", 10), "sectors"),
        (_total("write_time_seconds_total", "Time spent by all writes", 11), "ms"),
        (
            gauge(
                "node_disk_io_now",
                "Number of I/Os in progress (/proc/diskstats, field 12).",
                _DEVICE,
            ),
            "",
        ),
        (
            _total("io_time_seconds_total", "Time in which at least one I/O was in progress", 13),
            "ms",
        ),
        (
            _total(
                "io_time_weighted_seconds_total",
                "Time spent doing I/O, weighted by the I/Os in progress",
                14,
            ),
            "ms",
        ),
        (_total("discards_completed_total", "Discards completed", 15), ""),
        (_total("discards_merged_total", "Discards merged", 16), ""),
        (_total("discarded_sectors_total", "Sectors of 512 bytes discarded", 17), ""),
        (_total("discard_time_seconds_total", "Time spent by all discards", 18), "ms"),
        (_total("flush_requests_total", "Flush requests completed", 19), ""),
        (_total("flush_requests_time_seconds_total", "Time spent by all flush requests", 20), "ms"),
    )
    info = gauge(
        "node_disk_info",
        "A metric with a constant '1' value, labelled by properties of the device (/proc/diskstats,"
        " /sys/block/DEVICE/queue/rotational; udev: ID_PATH, ID_WWN, ID_MODEL, ID_REVISION, and"
        " SCSI_IDENT_SERIAL, ID_SERIAL_SHORT or ID_SERIAL).",
        (
            "device",
            "major",
            "minor",
            "path",
            "wwn",
            "model",
            "serial",
            "revision",
            "rotational",
        ),
    )
    filesystem_info = gauge(
        "node_disk_filesystem_info",
        "A metric with a constant '1' value, labelled by the file system on the device"
        " (udev, ID_FS_TYPE, ID_FS_USAGE, ID_FS_UUID, ID_FS_VERSION).",
        ("device", "type", "usage", "uuid", "version"),
    )
    device_mapper_info = gauge(
        "node_disk_device_mapper_info",
        "A metric with a constant '1' value, labelled by names of the device mapper"
        " (udev, DM_NAME, DM_UUID, DM_VG_NAME, DM_LV_NAME, DM_LV_LAYER).",
        ("device", "name", "uuid", "vg_name", "lv_name", "lv_layer"),
    )
    ata: ClassVar = {
        "ID_ATA_WRITE_CACHE": gauge(
            "node_disk_ata_write_cache",
            "Whether the device has a write cache (udev, ID_ATA_WRITE_CACHE).",
            _DEVICE,
        ),
        "ID_ATA_WRITE_CACHE_ENABLED": gauge(
            "node_disk_ata_write_cache_enabled",
            "Whether the write cache is enabled (udev, ID_ATA_WRITE_CACHE_ENABLED).",
            _DEVICE,
        ),
        "ID_ATA_ROTATION_RATE_RPM": gauge(
            "node_disk_ata_rotation_rate_rpm",
            "Rotations per minute, 0 for SSDs (udev, ID_ATA_ROTATION_RATE_RPM).",
            _DEVICE,
        ),
    }

    settings: DiskstatsSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/diskstats")
        self._blocks = f"{config.sysfs}/block"
        settings = self.settings
        self._name_filter = NameFilter(
            settings.device_include, settings.device_exclude, DEVICE_EXCLUDE
        )
        #: The properties of the devices, kept until udev writes to its database.
        self._properties: dict[tuple[str, str, str, str], list[Property]] = {}
        self._udev_changed: int | None = None

    def collect(self, scrape: Scrape) -> None:
        """Emit counters and properties of each selected device."""
        with self._file as content:
            if not content:
                msg = f"{self._file.path} is empty: no block devices"
                raise NotPresent(msg)
            known, self._properties = self._still_valid(), {}
            for row in parse(content, self._name_filter):
                self._emit_counters(scrape, row)
                rotational = self._rotational(row.device)
                key = (row.major, row.minor, row.device, rotational)
                device_properties = known.get(key) or self._look_up(row, rotational)
                self._properties[key] = device_properties
                for metric, value, labels in device_properties:
                    scrape.emit(metric, value, *labels)

    def _emit_counters(self, scrape: Scrape, row: Row) -> None:
        device = row.device
        for (metric, unit), value in zip(self.counters, row.counters, strict=False):
            if not 0 <= value < MAX_COUNT or value == _UNKNOWN:
                continue
            if not unit:
                scrape.emit(metric, value, device)
            elif unit == "ms":
                scrape.emit(metric, value / 1000, device)
            else:
                scrape.emit(metric, value * _SECTOR, device)

    def _still_valid(self) -> Mapping[tuple[str, str, str, str], list[Property]]:
        """Return the properties of the previous scrape; none if udev has written since then."""
        before, self._udev_changed = self._udev_changed, _changed_at(self.config.udev_data)
        same = before is not None and before == self._udev_changed
        return self._properties if same else {}

    def _rotational(self, device: str) -> str:
        # Read in each scrape, unlike udev's database: it can be changed without udev. Partitions have no such
        # file. A slash in a name, as in cciss/c0d0, is an exclamation mark in /sys.
        queue = f"{self._blocks}/{device.replace('/', '!')}/queue"
        return text(read_value(f"{queue}/rotational") or b"0")

    def _look_up(self, row: Row, rotational: str) -> list[Property]:
        path = f"{self.config.udev_data}/b{row.major}:{row.minor}"
        return properties_of(row, rotational, parse_udev(read_optional(path) or b""))


def _changed_at(udev_data: str) -> int | None:
    """Return when udev last wrote, in nanoseconds; 0 if it never did, None if it may be writing now."""
    try:
        # udev renames each file into place, which updates the directory's time.
        changed = os.stat(udev_data).st_mtime_ns  # noqa: PTH116  # a string, like all paths here
    except OSError:
        return 0
    # Two changes within one tick of the kernel's clock have the same time.
    return changed if time.time_ns() - changed > _TICK else None


def parse(content: bytes, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[Row]:
    """Yield each line whose device is wanted; ValueError at the end, for the first unreadable one."""
    bad: bytes | None = None
    for line in lines(content):
        fields = line.split()
        try:
            major, minor, device = map(text, fields[:_HEAD])
            if not wanted(device):
                continue
            counters = list(map(int, fields[_HEAD:]))
        except ValueError:
            counters = []
        if len(counters) >= _LEAST:
            yield Row(major, minor, device, counters)
        else:
            bad = bad or line
    if bad is not None:
        raise unexpected_content(bad)


def parse_udev(content: bytes) -> dict[str, str]:
    """Return the properties in an entry of udev's database: its lines `E:NAME=value`."""
    properties = {}
    for line in content.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals and name.startswith(b"E:"):
            properties[text(name[2:])] = text(value)
    return properties


def properties_of(row: Row, rotational: str, udev: Mapping[str, str]) -> list[Property]:
    """Return the samples with the properties of a device."""

    def labels(*names: str) -> tuple[str, ...]:
        return tuple(udev.get(name, "") for name in names)

    serials = filter(None, labels("SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"))
    path, wwn, model, revision = labels("ID_PATH", "ID_WWN", "ID_MODEL", "ID_REVISION")
    serial = next(serials, "")
    known = (row.device, row.major, row.minor, path, wwn, model, serial, revision, rotational)
    properties = [Property(Diskstats.info, 1, known)]
    if udev.get("ID_FS_TYPE"):
        found = labels("ID_FS_TYPE", "ID_FS_USAGE", "ID_FS_UUID", "ID_FS_VERSION")
        properties.append(Property(Diskstats.filesystem_info, 1, (row.device, *found)))
    if udev.get("DM_NAME"):
        found = labels("DM_NAME", "DM_UUID", "DM_VG_NAME", "DM_LV_NAME", "DM_LV_LAYER")
        properties.append(Property(Diskstats.device_mapper_info, 1, (row.device, *found)))
    if udev.get("ID_ATA"):
        for name, metric in Diskstats.ata.items():
            value = udev.get(name, "")
            if value.isdecimal():
                properties.append(Property(metric, int(value), (row.device,)))
    return properties


COLLECTOR = Diskstats
