"""Ranges in host names, as in Ansible: `bts-[001:400].example`, `db-[a:c]`, `n[1:9:2]`."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from bts_exporter.fleet.machines import Address

#: Hosts of one range; more is a typing error.
_MAX_HOSTS = 100_000
_RANGE = re.compile(r"\[([^\]]*)\]")
_NUMBERS = re.compile(r"(\d+):(\d+)(?::(\d+))?")
_LETTERS = re.compile(r"([a-zA-Z]):([a-zA-Z])(?::(\d+))?")


def expand(pattern: str) -> list[str]:
    """Return the hosts that a pattern stands for; ValueError if it is not valid."""
    names = [""]
    end = 0
    for match in _RANGE.finditer(pattern):
        parts = _parts(match[1])
        if len(names) * len(parts) > _MAX_HOSTS:
            msg = f"{pattern!r} stands for more than {_MAX_HOSTS} hosts"
            raise ValueError(msg)
        before = pattern[end : match.start()]
        names = [f"{name}{before}{part}" for name in names for part in parts]
        end = match.end()
    return [Address.from_setting(name + pattern[end:]) for name in names]


def _parts(text: str) -> Sequence[str]:
    """Return what a range stands for."""
    parts: Sequence[str] = ()
    if match := _NUMBERS.fullmatch(text):
        first, last, step = match.groups()
        width = len(first) if first.startswith("0") else 0
        # As in Ansible: with leading zeros, both numbers have the same length.
        if not width or width == len(last):
            end = min(int(last), int(first) + _MAX_HOSTS * int(step or 1))
            numbers = range(int(first), end + 1, max(1, int(step or 1)))
            parts = [f"{number:0{width}}" for number in numbers]
    elif match := _LETTERS.fullmatch(text):
        first, last, step = match.groups()
        letters = string.ascii_letters
        parts = letters[letters.index(first) : letters.index(last) + 1 : max(1, int(step or 1))]
    if not parts:
        msg = f"[{text}] is not a valid range (expected such as [01:50] or [a:f])"
        raise ValueError(msg)
    return parts
