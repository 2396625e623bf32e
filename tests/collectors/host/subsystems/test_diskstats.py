from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bts_collectors.host.subsystems.diskstats import (
    Diskstats,
    DiskstatsSettings,
    Row,
    parse,
    parse_udev,
    properties_of,
)
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import Samples, collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

DISK = Row("8", "0", "sda", [0] * 17)


def disk(major: int, minor: int, name: str, fields: int = 17) -> str:
    """Return a line of /proc/diskstats whose counters are 1000, 2000 and so on."""
    counters = " ".join(str(1000 * (n + 1)) for n in range(fields))
    return f"{major:4} {minor:7} {name} {counters}\n"


def settle(paths: dict[str, str], when: float = 1_700_000_000) -> None:
    """Set the time of the last write to udev's directory."""
    os.utime(paths["udev_data"], (when, when))


def info(samples: Samples, label: int) -> list[str]:
    """Return one label of node_disk_info for each device."""
    return [labels[label] for labels in samples["node_disk_info"]]


def test_counters(machine: Machine) -> None:
    """Each field is a metric in base units: bytes from sectors, seconds from milliseconds."""
    samples = collect(Diskstats(Diskstats.Config(**machine({"proc/diskstats": disk(8, 0, "sda")}))))

    del samples["node_disk_info"]
    assert {name: values[("sda",)] for name, values in samples.items()} == {
        "node_disk_reads_completed_total": 1000,
        "node_disk_reads_merged_total": 2000,
        "node_disk_read_bytes_total": 3000 * 512,
        "node_disk_read_time_seconds_total": 4,
        "node_disk_writes_completed_total": 5000,
        "node_disk_writes_merged_total": 6000,
        "node_disk_written_bytes_total": 7000 * 512,
        "node_disk_write_time_seconds_total": 8,
        "node_disk_io_now": 9000,
        "node_disk_io_time_seconds_total": 10,
        "node_disk_io_time_weighted_seconds_total": 11,
        "node_disk_discards_completed_total": 12000,
        "node_disk_discards_merged_total": 13000,
        "node_disk_discarded_sectors_total": 14000,
        "node_disk_discard_time_seconds_total": 15,
        "node_disk_flush_requests_total": 16000,
        "node_disk_flush_requests_time_seconds_total": 17,
    }


@pytest.mark.parametrize(("fields", "last"), [(11, "io_time_weighted"), (15, "discard_time")])
def test_older_kernels(machine: Machine, fields: int, last: str) -> None:
    """Fields that an older kernel does not have give no series."""
    paths = machine({"proc/diskstats": disk(8, 0, "sda", fields)})

    samples = collect(Diskstats(Diskstats.Config(**paths)))
    assert len(samples) == fields + 1
    assert f"node_disk_{last}_seconds_total" in samples


def test_newer_kernels() -> None:
    """Additional fields of newer kernels are ignored."""
    (row,) = parse(disk(8, 0, "sda", 19).encode())

    assert len(row.counters) == 19


DEVICES = "".join(
    disk(8, minor, name)
    for minor, name in enumerate(
        [
            "ram0",
            "zram1",
            "loop7",
            "fd0",
            "hda1",
            "sda",
            "sda1",
            "vdb2",
            "xvdc",
            "nvme0n1",
            "sr0",
            "nvme0n1p2",
            "dm-0",
            "mmcblk0p1",
            "md127",
        ]
    )
)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (DiskstatsSettings(), ["sda", "xvdc", "nvme0n1", "sr0", "dm-0", "mmcblk0p1", "md127"]),
        (DiskstatsSettings(device_include=re.compile("^sda")), ["sda", "sda1"]),
        (
            DiskstatsSettings(device_exclude=re.compile("[0-9]$")),
            ["sda", "xvdc"],
        ),
    ],
)
def test_filter(machine: Machine, settings: DiskstatsSettings, expected: list[str]) -> None:
    """By default partitions, RAM disks, loop devices and floppies are left out; expressions replace the default."""
    config = Diskstats.Config(**machine({"proc/diskstats": DEVICES}), settings=settings)

    assert info(collect(Diskstats(config)), 0) == expected


def test_info(machine: Machine) -> None:
    """The info metric has the properties from udev, and whether the device rotates."""
    udev = (
        "S:disk/by-id/x\nW:1\nE:ID_MODEL=TOSHIBA_KSDB4U86\nE:ID_REVISION=0102\n"
        "E:ID_PATH=pci-0000\nE:ID_WWN=0x7c7\nE:ID_SERIAL=long\nE:ID_SERIAL_SHORT=short\nG:systemd\n"
    )
    paths = machine(
        {
            "proc/diskstats": disk(8, 0, "sda"),
            "udev/b8:0": udev,
            "sys/block/sda/queue/rotational": "1\n",
        }
    )

    assert collect(Diskstats(Diskstats.Config(**paths)))["node_disk_info"] == {
        ("sda", "8", "0", "pci-0000", "0x7c7", "TOSHIBA_KSDB4U86", "short", "0102", "1"): 1
    }


@pytest.mark.parametrize(
    ("udev", "serial"),
    [
        ({}, ""),
        ({"ID_SERIAL": "c"}, "c"),
        ({"ID_SERIAL": "c", "ID_SERIAL_SHORT": "b"}, "b"),
        ({"ID_SERIAL": "c", "ID_SERIAL_SHORT": "b", "SCSI_IDENT_SERIAL": "a"}, "a"),
        ({"ID_SERIAL": "c", "ID_SERIAL_SHORT": "b", "SCSI_IDENT_SERIAL": ""}, "b"),
    ],
)
def test_serial(udev: dict[str, str], serial: str) -> None:
    """The serial number is the one printed on the device, if udev knows it."""
    assert properties_of(DISK, "0", udev)[0].labels[6] == serial


def test_contents() -> None:
    """The file system and the device mapper's names are served if udev knows them."""
    udev = parse_udev(
        b"E:DM_NAME=system-root\nE:DM_UUID=LVM-x\nE:DM_VG_NAME=system\nE:DM_LV_NAME=root\n"
        b"E:DM_LV_LAYER=\nE:ID_FS_TYPE=ext4\nE:ID_FS_USAGE=filesystem\nE:ID_FS_UUID=3dea\n"
        b"E:ID_FS_VERSION=1.0\nE:odd\nN:x=y\n"
    )

    found = {
        prop.metric.name: (prop.value, prop.labels) for prop in properties_of(DISK, "0", udev)[1:]
    }
    assert found == {
        "node_disk_filesystem_info": (1, ("sda", "ext4", "filesystem", "3dea", "1.0")),
        "node_disk_device_mapper_info": (
            1,
            ("sda", "system-root", "LVM-x", "system", "root", ""),
        ),
    }


def test_ata() -> None:
    """The numeric properties of an ATA disk are served; other disks have none."""
    udev = {
        "ID_ATA_WRITE_CACHE": "1",
        "ID_ATA_WRITE_CACHE_ENABLED": "maybe",
        "ID_ATA_ROTATION_RATE_RPM": "7200",
    }

    found = properties_of(DISK, "0", {"ID_ATA": "1", **udev})[1:]
    assert {prop.metric.name: prop.value for prop in found} == {
        "node_disk_ata_write_cache": 1,
        "node_disk_ata_rotation_rate_rpm": 7200,
    }
    assert properties_of(DISK, "0", udev)[1:] == []


def test_udev_changes(machine: Machine) -> None:
    """Properties that udev writes later are in the next scrape; until then nothing is read again."""
    paths = machine({"proc/diskstats": disk(8, 0, "sda"), "udev/b8:0": "E:ID_MODEL=old\n"})
    collector = Diskstats(Diskstats.Config(**paths))
    settle(paths)
    collect(collector)

    (Path(paths["udev_data"]) / "b8:0").write_text("E:ID_MODEL=new\n")
    settle(paths)
    assert info(collect(collector), 5) == ["old"]

    settle(paths, 1_700_000_001)
    assert info(collect(collector), 5) == ["new"]


def test_udev_writing_just_now(machine: Machine) -> None:
    """While udev may be writing, the properties are read in each scrape."""
    paths = machine({"proc/diskstats": disk(8, 0, "sda"), "udev/b8:0": "E:ID_MODEL=old\n"})
    collector = Diskstats(Diskstats.Config(**paths))
    settle(paths, time.time())
    collect(collector)

    (Path(paths["udev_data"]) / "b8:0").write_text("E:ID_MODEL=new\n")
    assert info(collect(collector), 5) == ["new"]


def test_another_device_of_the_same_name(machine: Machine) -> None:
    """A new device with the name of an old one has its own properties."""
    paths = machine(
        {
            "proc/diskstats": disk(8, 16, "sdb"),
            "udev/b8:16": "E:ID_MODEL=one\n",
            "udev/b8:32": "E:ID_MODEL=two\n",
        }
    )
    collector = Diskstats(Diskstats.Config(**paths))
    settle(paths)
    collect(collector)

    machine({"proc/diskstats": disk(8, 32, "sdb")})
    assert info(collect(collector), 5) == ["two"]


def test_rotational_changes(machine: Machine) -> None:
    """Whether a device rotates can change without udev, and is read in each scrape."""
    paths = machine(
        {
            "proc/diskstats": disk(104, 0, "cciss/c0d0"),
            "sys/block/cciss!c0d0/queue/rotational": "1\n",
        }
    )
    collector = Diskstats(Diskstats.Config(**paths))
    assert info(collect(collector), 8) == ["1"]

    machine({"sys/block/cciss!c0d0/queue/rotational": "0\n"})
    assert info(collect(collector), 8) == ["0"]


def test_removed_devices_are_dropped(machine: Machine) -> None:
    """The properties of a removed device are dropped."""
    collector = Diskstats(Diskstats.Config(**machine({"proc/diskstats": DEVICES})))
    collect(collector)

    machine({"proc/diskstats": disk(8, 5, "sda")})
    collect(collector)
    assert len(collector._properties) == 1


def test_unreadable_line_loses_only_itself() -> None:
    """The devices around an unreadable line are served, and the error has the line."""
    rows = parse(f"{disk(8, 0, 'sda')}8 16 sdb 1 2 3\n{disk(8, 32, 'sdc')}".encode())

    assert [next(rows).device, next(rows).device] == ["sda", "sdc"]
    with pytest.raises(ValueError, match="unexpected content: '8 16 sdb 1 2 3'"):
        next(rows)


def test_unreadable(machine: Machine) -> None:
    """An unreadable file is an error with the path."""
    with pytest.raises(TargetError, match="/proc/diskstats: unexpected content: 'what'"):
        collect(Diskstats(Diskstats.Config(**machine({"proc/diskstats": "what\n"}))))


@pytest.mark.parametrize("files", [{}, {"proc/diskstats": ""}])
def test_no_disks(machine: Machine, files: dict[str, str]) -> None:
    """A host without block devices, such as a container, has nothing to read."""
    with pytest.raises(NotPresent):
        collect(Diskstats(Diskstats.Config(**machine(files))))
