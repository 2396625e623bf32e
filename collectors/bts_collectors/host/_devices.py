"""How folders of /sys with one entry a device are read: devices differ in what they tell, and go."""

from __future__ import annotations

import os

from bts_collectors.host._files import read_value
from bts_exporter import NothingToRead

#: Digits that a 64-bit number can have; a longer one is no value of the kernel's.
_DIGITS = 20


def devices(folder: str, prefix: str = "") -> list[str]:
    """Return the entries of `folder` that are `prefix` and a number, or all of them without one.

    NothingToRead when there are none, which is how the kernel says that there is no such hardware.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208  # no need of Path objects
    except (FileNotFoundError, NotADirectoryError):
        names = []
    found = [
        name
        for name in names
        if not prefix or (name.startswith(prefix) and name[len(prefix) :].isdecimal())
    ]
    if not found:
        msg = f"{folder} is absent, or has no {prefix or 'devices'}"
        raise NothingToRead(msg)
    return sorted(found)


def read_integer(path: str) -> int | None:
    """Return the number in `path`, which may be negative; None where there is none."""
    return parse_integer(read_value(path))


def parse_integer(value: bytes | None) -> int | None:
    """Return the number that `value` spells; None where it spells none that fits 64 bits."""
    if not value:
        return None
    digits = value.removeprefix(b"-")
    return int(value) if digits.isdigit() and len(digits) <= _DIGITS else None
