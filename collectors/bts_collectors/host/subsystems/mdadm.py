"""The subsystem `mdadm`: state, disks and rebuild progress of software RAID arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from bts_collectors.host.kernel.files import (
    errors_in,
    is_number,
    lines,
    read,
    read_number,
    text,
    unexpected_content,
)
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, gauge

_DEVICE = ("device",)
_STATES = ("active", "inactive", "recovering", "resync", "check")

#: State of an array by the action in /proc/mdstat; an array stays active during a reshape.
_ACTIONS = {b"recovery": "recovering", b"resync": "resync", b"check": "check", b"reshape": "active"}
_ACTION = re.compile(rb"\b(recovery|resync|check|reshape)\s*=\s*(\S.*)")
_PROGRESS = re.compile(rb"\((\d+)/\d+\)")
#: Besides U and _ some storage vendors have letters for a disk, such as E for one with errors.
_DISKS = re.compile(rb"\[(\d+)/(\d+)\] \[[A-Z_]+\]")
#: Levels with redundancy, for which the kernel prints the number of active disks.
_REDUNDANT = frozenset((b"raid1", b"raid4", b"raid5", b"raid6", b"raid10"))
#: Lines outside of arrays.
_OTHER_LINES = (b"Personalities", b"unused devices", b"read_ahead")
#: The format of other array drivers, such as Unraid's: `mdState=STARTED`.
_FOREIGN = re.compile(rb"(?:[\w.]+=.*\n)+")


class Array(NamedTuple):
    """An array of /proc/mdstat; a block is 1 KiB."""

    name: str
    state: str
    active: int
    required: int
    failed: int
    spare: int
    blocks: int
    synced: int


class Mdadm(Subsystem):
    """Software RAID arrays from /proc/mdstat and /sys/block/<device>/md."""

    name = "mdadm"

    state = gauge(
        "node_md_state",
        "1 for the current state of the array, 0 for the others (/proc/mdstat).",
        ("device", "state"),
    )
    disks = gauge(
        "node_md_disks",
        "Number of active, failed and spare disks of the array (/proc/mdstat).",
        ("device", "state"),
    )
    required = gauge(
        "node_md_disks_required", "Number of disks of the complete array (/proc/mdstat).", _DEVICE
    )
    blocks = gauge("node_md_blocks", "Size in blocks of 1 KiB (/proc/mdstat).", _DEVICE)
    synced = gauge(
        "node_md_blocks_synced",
        "Blocks done by the running resync, recovery, check or reshape; else all blocks (/proc/mdstat).",
        _DEVICE,
    )
    raid_disks = gauge(
        "node_md_raid_disks",
        "Number of disks of the complete array (/sys/block/DEVICE/md/raid_disks).",
        _DEVICE,
    )
    degraded = gauge(
        "node_md_degraded",
        "Number of missing disks; only for levels with redundancy (/sys/block/DEVICE/md/degraded).",
        _DEVICE,
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._path = f"{config.procfs}/mdstat"
        self._folder = f"{config.sysfs}/block"

    def collect(self, scrape: Scrape) -> None:
        """Emit state, disks and blocks of each array."""
        content = read(self._path)
        if _FOREIGN.fullmatch(content):
            msg = f"{self._path} is not from Linux's md driver"
            raise NotPresent(msg)
        found = False
        with errors_in(self._path):
            for array in parse(content):
                found = True
                self._emit(scrape, array)
        if not found:
            msg = f"{self._path} has no arrays"
            raise NotPresent(msg)

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
            # During a reshape raid_disks has two numbers and is skipped.
            value = read_number(f"{self._folder}/{name}/md/{file}")
            if value is not None:
                scrape.emit(metric, value, name)


def parse(content: bytes) -> Iterator[Array]:
    """Yield each array; ValueError at the end, for the first unreadable or truncated section."""
    rows = lines(content)
    bad = None if rows else content
    for section, ended in _sections(rows):
        array = _array(section) if ended else None
        if array is not None:
            yield array
        elif bad is None:
            bad = section[0]
    if bad is not None:
        raise unexpected_content(bad)


def _sections(rows: list[bytes]) -> Iterator[tuple[list[bytes], bool]]:
    """Yield the lines of each array, and whether a line after them shows that they are complete."""
    section: list[bytes] = []
    for row in rows:
        if section and (not row.strip() or not row[:1].isspace()):
            yield section, True
            section = []
        if row.strip() and not row.startswith(_OTHER_LINES):
            section.append(row)
    if section:
        yield section, False


def _array(section: list[bytes]) -> Array | None:
    """Return the array of a section; None if it cannot be parsed."""
    # An array without disks has only one line.
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


def _progress(status: bytes) -> int | None:
    """Return the blocks that are done; 0 if the action is pending, as in `resync=DELAYED`."""
    if found := _PROGRESS.search(status):
        return int(found[1])
    return 0 if status.isupper() else None


def _disks(state: str, words: bytes, layout: bytes) -> tuple[int, int] | None:
    """Return the numbers of active and of required disks; None if they are unknown."""
    if state == "inactive":
        return 0, 0
    if found := _DISKS.search(layout):
        return int(found[2]), int(found[1])
    if not _REDUNDANT.isdisjoint(words.split()):
        return None
    # An active array without redundancy has all of its disks.
    disks = words.count(b"[")
    return disks, disks


COLLECTOR = Mdadm
