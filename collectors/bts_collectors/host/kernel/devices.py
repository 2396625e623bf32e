"""Directories of /sys with one entry per device. Devices differ in their files, and can disappear."""

from __future__ import annotations

import os

from bts_collectors.host.kernel.files import is_number, known, read_value
from bts_collectors.host.kernel.open_files import TOO_MANY, with_room
from bts_exporter import NotPresent


def devices(folder: str, prefix: str = "") -> list[str]:
    """Return the entries of `folder` named `prefix` and a number, sorted; all entries if `prefix` is empty.

    Raises NotPresent if there are none: the host has no such hardware.
    """
    try:
        names = with_room(os.listdir, folder)
    except (FileNotFoundError, NotADirectoryError):
        names = []
    found = [
        name
        for name in names
        if not prefix or (name.startswith(prefix) and name[len(prefix) :].isdecimal())
    ]
    if not found:
        msg = f"{folder} is absent, or has no {prefix or 'devices'}"
        raise NotPresent(msg)
    return sorted(found)


def entries(folder: str) -> list[str]:
    """Return the names in the directory of a device, sorted; none if the device has just disappeared."""
    try:
        return sorted(with_room(os.listdir, folder))
    except OSError as error:
        if error.errno in TOO_MANY:
            raise
        return []


def read_integer(path: str) -> int | None:
    """Return the number in `path`, which may be negative; None if it has none."""
    return parse_integer(read_value(path))


def parse_integer(value: bytes | None) -> int | None:
    """Return `value` as a number; None if it is not a number, or one that means "unknown"."""
    if not value:
        return None
    digits = value.removeprefix(b"-")
    return known(int(value)) if is_number(digits) else None
