"""Parsers of cgroup files: numbers by key. A key that a file lacks is unknown, not 0."""

from __future__ import annotations

from collections.abc import Iterator

from bts_collectors.host.kernel.files import is_number, lines, unexpected_content

#: The keys of a file and their numbers.
Numbers = Iterator[tuple[bytes, float]]

#: Version 1 writes "no limit" as the largest number of bytes: 2^63, rounded down to a page.
_NO_LIMIT = 2**63 - 2**16


def _rows(content: bytes) -> list[bytes]:
    """Return the lines; ValueError if the last one is truncated, since sums would be too small."""
    if content and not content.endswith(b"\n"):
        raise unexpected_content(content)
    return lines(content)


def parse_pairs(content: bytes) -> Numbers:
    """Yield `(key, number)` of lines such as `nr_periods 12`.

    Raises ValueError at the end, for the first line of another format.
    """
    bad: bytes | None = None
    for line in _rows(content):
        key, _, value = line.partition(b" ")
        if is_number(value):
            yield key, int(value)
        else:
            bad = bad or line
    if bad is not None:
        raise unexpected_content(bad)


def parse_limit(content: bytes) -> Numbers:
    """Yield the only number, with an empty key; infinity for `max`; ValueError for anything else."""
    rows = _rows(content)
    if rows == [b"max"]:
        yield b"", float("inf")
    elif len(rows) == 1 and is_number(rows[0]):
        yield b"", int(rows[0])
    else:
        raise unexpected_content(content)


def parse_limit_v1(content: bytes) -> Numbers:
    """Yield the limit in bytes as `parse_limit` does; infinity for the largest number."""
    for key, limit in parse_limit(content):
        yield key, float("inf") if limit >= _NO_LIMIT else limit


def parse_io(content: bytes) -> Numbers:
    """Yield the sums over all devices of io.stat, with lines such as `8:0 rbytes=1 wbytes=2`.

    Raises ValueError, without any sum, for an invalid line: a sum without that line would decrease.
    """
    sums = dict.fromkeys((b"rbytes", b"wbytes", b"rios", b"wios"), 0.0)
    for line in _rows(content):
        # Some kernels print a device without numbers at the beginning of the next device's line.
        for word in line.split():
            key, sign, value = word.partition(b"=")
            if key not in sums:
                continue
            if not sign or not is_number(value):
                raise unexpected_content(line)
            sums[key] += int(value)
    yield from sums.items()


def parse_blkio(content: bytes) -> Numbers:
    """Yield the sums over all devices of lines such as `8:0 Read 1`; ValueError as in `parse_io`."""
    sums = {b"Read": 0.0, b"Write": 0.0}
    for line in _rows(content):
        words = line.split()
        if not words or not is_number(words[-1]):
            raise unexpected_content(line)
        if len(words) == 3 and words[1] in sums:  # noqa: PLR2004  # the others are totals
            sums[words[1]] += int(words[2])
    yield from sums.items()
