"""Files of a cgroup, each as numbers by key; what is in none of its lines is not known."""

from __future__ import annotations

from collections.abc import Iterator

from bts_collectors.host.kernel.files import is_number, lines, unreadable

#: Keys and numbers of a file.
Numbers = Iterator[tuple[bytes, float]]

#: From here on a limit of version 1, in bytes, says that there is none: 2^63, less a page at most.
_NO_LIMIT = 2**63 - 2**16


def _rows(content: bytes) -> list[bytes]:
    """Return the lines; ValueError where the last is cut off, since sums would lack the rest."""
    if content and not content.endswith(b"\n"):
        raise unreadable(content)
    return lines(content)


def parse_pairs(content: bytes) -> Numbers:
    """Yield key and number of lines such as `nr_periods 12`; ValueError at the end, for the first other line."""
    bad: bytes | None = None
    for line in _rows(content):
        key, _, value = line.partition(b" ")
        if is_number(value):
            yield key, int(value)
        else:
            bad = bad or line
    if bad is not None:
        raise unreadable(bad)


def parse_limit(content: bytes) -> Numbers:
    """Yield the one number, under the empty key; infinity for `max`; ValueError for anything else."""
    rows = _rows(content)
    if rows == [b"max"]:
        yield b"", float("inf")
    elif len(rows) == 1 and is_number(rows[0]):
        yield b"", int(rows[0])
    else:
        raise unreadable(content)


def parse_limit_v1(content: bytes) -> Numbers:
    """Yield what `parse_limit` does for a limit in bytes, where the largest number means none."""
    for key, limit in parse_limit(content):
        yield key, float("inf") if limit >= _NO_LIMIT else limit


def parse_io(content: bytes) -> Numbers:
    """Yield the sums over all devices of io.stat, lines such as `8:0 rbytes=1 wbytes=2`.

    ValueError, and no sum, for an odd line: sums without it would fall.
    """
    found = dict.fromkeys((b"rbytes", b"wbytes", b"rios", b"wios"), 0.0)
    for line in _rows(content):
        # Some kernels put devices without numbers on the line of the next one.
        for word in line.split():
            key, sign, value = word.partition(b"=")
            if key not in found:
                continue
            if not sign or not is_number(value):
                raise unreadable(line)
            found[key] += int(value)
    yield from found.items()


def parse_blkio(content: bytes) -> Numbers:
    """Yield the sums over all devices of lines such as `8:0 Read 1`; ValueError as in `parse_io`."""
    found = {b"Read": 0.0, b"Write": 0.0}
    for line in _rows(content):
        words = line.split()
        if not words or not is_number(words[-1]):
            raise unreadable(line)
        if len(words) == 3 and words[1] in found:  # noqa: PLR2004  # else it is the total
            found[words[1]] += int(words[2])
    yield from found.items()
