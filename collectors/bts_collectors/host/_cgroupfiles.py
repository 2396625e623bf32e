"""Files of a cgroup, each as numbers by key; what is in none of its lines is not known."""

from __future__ import annotations

from bts_collectors.host import pressure
from bts_collectors.host._files import lines, unreadable

#: From here on a limit of version 1, in bytes, says that there is none: 2^63, less a page at most.
_NO_LIMIT = 2**63 - 2**16


def _rows(content: bytes) -> list[bytes]:
    """Return the lines; ValueError where the last is cut off, since sums would lack the rest."""
    if content and not content.endswith(b"\n"):
        raise unreadable(content)
    return lines(content)


def parse_pairs(content: bytes) -> dict[bytes, float]:
    """Return the numbers by key of lines such as `nr_periods 12`; ValueError for other lines."""
    found: dict[bytes, float] = {}
    for line in _rows(content):
        key, _, value = line.partition(b" ")
        if not value.isdigit():
            raise unreadable(line)
        found[key] = int(value)
    return found


def parse_limit(content: bytes) -> dict[bytes, float]:
    """Return the one number, under the empty key; infinity for `max`; ValueError for anything else."""
    rows = _rows(content)
    if rows == [b"max"]:
        return {b"": float("inf")}
    if len(rows) != 1 or not rows[0].isdigit():
        raise unreadable(content)
    return {b"": int(rows[0])}


def parse_limit_v1(content: bytes) -> dict[bytes, float]:
    """Return what `parse_limit` does for a limit in bytes, where the largest number means none."""
    limit = parse_limit(content)[b""]
    return {b"": float("inf") if limit >= _NO_LIMIT else limit}


def parse_io(content: bytes) -> dict[bytes, float]:
    """Return the sums over all devices of io.stat, lines such as `8:0 rbytes=1 wbytes=2`."""
    found = dict.fromkeys((b"rbytes", b"wbytes", b"rios", b"wios"), 0.0)
    for line in _rows(content):
        # Some kernels put devices without numbers on the line of the next one.
        for word in line.split():
            key, sign, value = word.partition(b"=")
            if key not in found:
                continue
            if not sign or not value.isdigit():
                raise unreadable(line)
            found[key] += int(value)
    return found


def parse_blkio(content: bytes) -> dict[bytes, float]:
    """Return the sums over all devices of lines such as `8:0 Read 1`."""
    found = {b"Read": 0.0, b"Write": 0.0}
    for line in _rows(content):
        words = line.split()
        if not words or not words[-1].isdigit():
            raise unreadable(line)
        if len(words) == 3 and words[1] in found:  # noqa: PLR2004  # else it is the total
            found[words[1]] += int(words[2])
    return found


def parse_pressure(content: bytes) -> dict[bytes, float]:
    """Return the seconds of the lines `some` and `full`."""
    return dict(pressure.parse(content))
