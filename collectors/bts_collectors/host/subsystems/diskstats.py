"""Traffic of the block devices, and what they are."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, NamedTuple

from bts_collectors.host.kernel.files import (
    MOST,
    lines,
    read_optional,
    read_value,
    text,
    unreadable,
)
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Metric, NameFilter, NothingToRead, Scrape, counter, gauge

#: What is left out where neither expression is set: RAM disks, loops, floppies, partitions.
DEVICE_EXCLUDE = re.compile(r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$")

#: Bytes in what the kernel counts as a sector, whatever the device calls one.
_SECTOR = 512
#: Fields of a line before the first counter, and counters that every kernel since 2.6 has.
_HEAD, _LEAST = 3, 11

#: Nanoseconds in which the kernel's clock has certainly moved on.
_TICK = 1_000_000_000

#: What some kernels say of I/Os in progress when they have lost count: -1 as an unsigned number.
_UNKNOWN = 2**32 - 1

_DEVICE = ("device",)


class DiskstatsSettings(CollectorConfig, frozen=True):
    """Settings of `diskstats`."""

    device_include: re.Pattern[str] | None = None
    device_exclude: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where both expressions are set."""
        NameFilter.check_exclusive("device", self.device_include, self.device_exclude)


class Row(NamedTuple):
    """A line of /proc/diskstats; 11, 15 or 17 counters, as the kernel has them."""

    major: str
    minor: str
    device: str
    counters: list[int]


class Fact(NamedTuple):
    """A sample that says what a device is; it changes with the device alone."""

    metric: Metric
    value: float
    labels: tuple[str, ...]


def _total(name: str, what: str, number: int) -> Metric:
    return counter(f"node_disk_{name}", f"{what} (/proc/diskstats, field {number}).", _DEVICE)


class Diskstats(Subsystem):
    """Block devices from /proc/diskstats, the udev database and /sys/block."""

    name = "diskstats"
    Settings = DiskstatsSettings

    #: Each counter's metric, and what one is in the metric's unit: `_SECTOR` bytes, or a millisecond.
    counters = (
        (_total("reads_completed_total", "Reads completed", 4), ""),
        (_total("reads_merged_total", "Reads merged", 5), ""),
        (_total("read_bytes_total", "Bytes read, from sectors of 512", 6), "sectors"),
        (_total("read_time_seconds_total", "Time all reads took", 7), "ms"),
        (_total("writes_completed_total", "Writes completed", 8), ""),
        (_total("writes_merged_total", "Writes merged", 9), ""),
        (_total("written_bytes_total", "Bytes written, from sectors of 512", 10), "sectors"),
        (_total("write_time_seconds_total", "Time all writes took", 11), "ms"),
        (
            gauge("node_disk_io_now", "I/Os in progress (/proc/diskstats, field 12).", _DEVICE),
            "",
        ),
        (_total("io_time_seconds_total", "Time with any I/O in progress", 13), "ms"),
        (
            _total("io_time_weighted_seconds_total", "That time times the I/Os in progress", 14),
            "ms",
        ),
        (_total("discards_completed_total", "Discards completed", 15), ""),
        (_total("discards_merged_total", "Discards merged", 16), ""),
        (_total("discarded_sectors_total", "Sectors of 512 bytes discarded", 17), ""),
        (_total("discard_time_seconds_total", "Time all discards took", 18), "ms"),
        (_total("flush_requests_total", "Flush requests completed", 19), ""),
        (_total("flush_requests_time_seconds_total", "Time all flush requests took", 20), "ms"),
    )
    info = gauge(
        "node_disk_info",
        "A metric with a constant '1' value, labelled by what the device is (/proc/diskstats,"
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
        "A metric with a constant '1' value, labelled by what is on the device"
        " (udev, ID_FS_TYPE, ID_FS_USAGE, ID_FS_UUID, ID_FS_VERSION).",
        ("device", "type", "usage", "uuid", "version"),
    )
    device_mapper_info = gauge(
        "node_disk_device_mapper_info",
        "A metric with a constant '1' value, labelled by the device mapper's names"
        " (udev, DM_NAME, DM_UUID, DM_VG_NAME, DM_LV_NAME, DM_LV_LAYER).",
        ("device", "name", "uuid", "vg_name", "lv_name", "lv_layer"),
    )
    ata: ClassVar = {
        "ID_ATA_WRITE_CACHE": gauge(
            "node_disk_ata_write_cache",
            "Whether there is a write cache (udev, ID_ATA_WRITE_CACHE).",
            _DEVICE,
        ),
        "ID_ATA_WRITE_CACHE_ENABLED": gauge(
            "node_disk_ata_write_cache_enabled",
            "Whether the write cache is on (udev, ID_ATA_WRITE_CACHE_ENABLED).",
            _DEVICE,
        ),
        "ID_ATA_ROTATION_RATE_RPM": gauge(
            "node_disk_ata_rotation_rate_rpm",
            "Rotations a minute, 0 where nothing rotates (udev, ID_ATA_ROTATION_RATE_RPM).",
            _DEVICE,
        ),
    }

    settings: DiskstatsSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/diskstats")
        self._blocks = f"{config.sysfs}/block"
        settings = self.settings
        self._wanted = NameFilter(settings.device_include, settings.device_exclude, DEVICE_EXCLUDE)
        #: What the devices are, as long as udev has nothing new to say of any.
        self._facts: dict[tuple[str, str, str, str], list[Fact]] = {}
        self._udev_changed: int | None = None

    def collect(self, scrape: Scrape) -> None:
        """Emit counters and facts of each device that is wanted."""
        with self._file as content:
            if not content:
                msg = f"{self._file.path} is empty: no block devices"
                raise NothingToRead(msg)
            known, self._facts = self._still_known(), {}
            for row in parse(content, self._wanted):
                self._emit_counters(scrape, row)
                rotational = self._rotational(row.device)
                key = (row.major, row.minor, row.device, rotational)
                facts = known.get(key) or self._look_up(row, rotational)
                self._facts[key] = facts
                for metric, value, labels in facts:
                    scrape.emit(metric, value, *labels)

    def _emit_counters(self, scrape: Scrape, row: Row) -> None:
        device = row.device
        for (metric, unit), value in zip(self.counters, row.counters, strict=False):
            if not 0 <= value < MOST or value == _UNKNOWN:
                continue
            if not unit:
                scrape.emit(metric, value, device)
            elif unit == "ms":
                scrape.emit(metric, value / 1000, device)
            else:
                scrape.emit(metric, value * _SECTOR, device)

    def _still_known(self) -> Mapping[tuple[str, str, str, str], list[Fact]]:
        """Return the facts of the scrape before; none of them where udev wrote since."""
        before, self._udev_changed = self._udev_changed, _changed_at(self.config.udev_data)
        same = before is not None and before == self._udev_changed
        return self._facts if same else {}

    def _rotational(self, device: str) -> str:
        # Read each time, unlike udev's database: it can be set without telling udev. Partitions
        # have none, and a slash in a name, as in cciss/c0d0, is an exclamation mark there.
        queue = f"{self._blocks}/{device.replace('/', '!')}/queue"
        return text(read_value(f"{queue}/rotational") or b"0")

    def _look_up(self, row: Row, rotational: str) -> list[Fact]:
        path = f"{self.config.udev_data}/b{row.major}:{row.minor}"
        return facts_of(row, rotational, properties(read_optional(path) or b""))


def _changed_at(udev_data: str) -> int | None:
    """Return when udev last wrote, in nanoseconds; 0 where it never did, None where it may be at it."""
    try:
        # Each of udev's files is renamed into place, which touches the folder.
        changed = os.stat(udev_data).st_mtime_ns  # noqa: PTH116  # a string, as all paths here
    except OSError:
        return 0
    # Two changes within a tick of the kernel's clock have one time.
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
        raise unreadable(bad)


def properties(content: bytes) -> dict[str, str]:
    """Return the properties in an entry of udev's database: its lines `E:NAME=value`."""
    found = {}
    for line in content.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals and name.startswith(b"E:"):
            found[text(name[2:])] = text(value)
    return found


def facts_of(row: Row, rotational: str, udev: Mapping[str, str]) -> list[Fact]:
    """Return the samples that say what a device is."""

    def labels(*names: str) -> tuple[str, ...]:
        return tuple(udev.get(name, "") for name in names)

    serials = filter(None, labels("SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"))
    path, wwn, model, revision = labels("ID_PATH", "ID_WWN", "ID_MODEL", "ID_REVISION")
    serial = next(serials, "")
    known = (row.device, row.major, row.minor, path, wwn, model, serial, revision, rotational)
    facts = [Fact(Diskstats.info, 1, known)]
    if udev.get("ID_FS_TYPE"):
        found = labels("ID_FS_TYPE", "ID_FS_USAGE", "ID_FS_UUID", "ID_FS_VERSION")
        facts.append(Fact(Diskstats.filesystem_info, 1, (row.device, *found)))
    if udev.get("DM_NAME"):
        found = labels("DM_NAME", "DM_UUID", "DM_VG_NAME", "DM_LV_NAME", "DM_LV_LAYER")
        facts.append(Fact(Diskstats.device_mapper_info, 1, (row.device, *found)))
    if udev.get("ID_ATA"):
        for name, metric in Diskstats.ata.items():
            value = udev.get(name, "")
            if value.isdecimal():
                facts.append(Fact(metric, int(value), (row.device,)))
    return facts


COLLECTOR = Diskstats
