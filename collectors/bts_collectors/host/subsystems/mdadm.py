"""Whether the software RAID arrays are whole, and how far a rebuild has come."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from bts_collectors.host.kernel.files import (
    is_number,
    lines,
    naming,
    read,
    read_number,
    text,
    unreadable,
)
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NothingToRead, Scrape, gauge

_DEVICE = ("device",)
_STATES = ("active", "inactive", "recovering", "resync", "check")

#: Word of /proc/mdstat for what goes on, and the state it is; a reshaped array stays active.
_ACTIONS = {b"recovery": "recovering", b"resync": "resync", b"check": "check", b"reshape": "active"}
_ACTION = re.compile(rb"\b(recovery|resync|check|reshape)\s*=\s*(\S.*)")
_PROGRESS = re.compile(rb"\((\d+)/\d+\)")
#: Some makers of storage have further letters for a disk, such as E for one with errors.
_DISKS = re.compile(rb"\[(\d+)/(\d+)\] \[[A-Z_]+\]")
#: Levels whose arrays can lack a disk, so that the kernel says how many are there.
_REDUNDANT = frozenset((b"raid1", b"raid4", b"raid5", b"raid6", b"raid10"))
#: Lines that belong to no array.
_NO_ARRAY = (b"Personalities", b"unused devices", b"read_ahead")
#: What the file is on a kernel with an array driver of its own, such as Unraid's: `mdState=STARTED`.
_FOREIGN = re.compile(rb"(?:[\w.]+=.*\n)+")


class Array(NamedTuple):
    """An array of /proc/mdstat; blocks have 1 KiB."""

    name: str
    state: str
    active: int
    required: int
    failed: int
    spare: int
    blocks: int
    synced: int


class Mdadm(Subsystem):
    """Arrays from /proc/mdstat and /sys/block/<device>/md."""

    name = "mdadm"

    state = gauge(
        "node_md_state", "1 for the state of the array (/proc/mdstat).", ("device", "state")
    )
    disks = gauge(
        "node_md_disks",
        "Disks of the array that are active, failed or spare (/proc/mdstat).",
        ("device", "state"),
    )
    required = gauge("node_md_disks_required", "Disks of the whole array (/proc/mdstat).", _DEVICE)
    blocks = gauge("node_md_blocks", "Blocks of 1 KiB (/proc/mdstat).", _DEVICE)
    synced = gauge(
        "node_md_blocks_synced",
        "Blocks that are in sync: all, unless something goes on (/proc/mdstat).",
        _DEVICE,
    )
    raid_disks = gauge(
        "node_md_raid_disks",
        "Disks of the whole array (/sys/block/DEVICE/md/raid_disks).",
        _DEVICE,
    )
    degraded = gauge(
        "node_md_degraded",
        "Disks that the array lacks (/sys/block/DEVICE/md/degraded); none where it can lack none.",
        _DEVICE,
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._path = f"{config.procfs}/mdstat"
        self._folder = f"{config.sysfs}/block"

    def collect(self, scrape: Scrape) -> None:
        """Emit what is known of each array."""
        content = read(self._path)
        if _FOREIGN.fullmatch(content):
            msg = f"{self._path} is not of Linux's md driver"
            raise NothingToRead(msg)
        found = False
        with naming(self._path):
            for array in parse(content):
                found = True
                self._emit(scrape, array)
        if not found:
            msg = f"{self._path} has no array"
            raise NothingToRead(msg)

    def _emit(self, scrape: Scrape, array: Array) -> None:
        name = array.name
        for state in _STATES:
            scrape.emit(self.state, int(state == array.state), name, state)
        scrape.emit(self.disks, array.active, name, "active")
        scrape.emit(self.disks, array.failed, name, "failed")
        scrape.emit(self.disks, array.spare, name, "spare")
        scrape.emit(self.required, array.required, name)
        scrape.emit(self.blocks, array.blocks, name)
        scrape.emit(self.synced, array.synced, name)
        for metric, file in ((self.raid_disks, "raid_disks"), (self.degraded, "degraded")):
            # While the number of disks changes, raid_disks has the old one behind the new.
            value = read_number(f"{self._folder}/{name}/md/{file}")
            if value is not None:
                scrape.emit(metric, value, name)


def parse(content: bytes) -> Iterator[Array]:
    """Yield each array; ValueError at the end, for the first section that makes no sense or has no end."""
    rows = lines(content)
    bad = None if rows else content
    for section, ended in _sections(rows):
        array = _array(section) if ended else None
        if array is not None:
            yield array
        elif bad is None:
            bad = section[0]
    if bad is not None:
        raise unreadable(bad)


def _sections(rows: list[bytes]) -> Iterator[tuple[list[bytes], bool]]:
    """Yield the lines of each array, and whether another line shows that none of them was cut off."""
    section: list[bytes] = []
    for row in rows:
        if section and (not row.strip() or not row[:1].isspace()):
            yield section, True
            section = []
        if row.strip() and not row.startswith(_NO_ARRAY):
            section.append(row)
    if section:
        yield section, False


def _array(section: list[bytes]) -> Array | None:
    """Return the array that a section describes; None where it makes no sense."""
    # An array without disks has no second line.
    head, status, *details = section if len(section) > 1 else [section[0], b"0 blocks"]
    name, colon, words = head.partition(b" : ")
    size, unit, layout = status.strip().partition(b" blocks")
    if not (colon and words.strip() and unit and is_number(size)):
        return None
    state = text(words.split()[0])
    disks = _disks(state, words, layout)
    blocks = int(size)
    synced: int | None = blocks
    for detail in details:
        if found := _ACTION.search(detail):
            state = _ACTIONS[found[1]]
            synced = _progress(found[2])
    if disks is None or synced is None:
        return None
    failed, spare = words.count(b"(F)"), words.count(b"(S)")
    return Array(text(name), state, *disks, failed, spare, blocks, synced)


def _progress(told: bytes) -> int | None:
    """Return the blocks that are done; 0 where the action waits, as in `resync=DELAYED`."""
    if found := _PROGRESS.search(told):
        return int(found[1])
    return 0 if told.isupper() else None


def _disks(state: str, words: bytes, layout: bytes) -> tuple[int, int] | None:
    """Return how many disks are active, and how many there should be; None where that is not known."""
    if state == "inactive":
        return 0, 0
    if found := _DISKS.search(layout):
        return int(found[2]), int(found[1])
    if not _REDUNDANT.isdisjoint(words.split()):
        return None
    # Without redundancy an array that is active has all of its disks.
    disks = words.count(b"[")
    return disks, disks


COLLECTOR = Mdadm
