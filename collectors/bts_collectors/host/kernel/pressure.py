"""Parser of pressure stall information (PSI), of the host or of a cgroup: the format is the same."""

from __future__ import annotations

from collections.abc import Iterator

from bts_collectors.host.kernel.files import is_number, lines, unexpected_content

_MICROSECONDS = 1e6


def parse_pressure(content: bytes) -> Iterator[tuple[bytes, float]]:
    """Yield `(b"some" or b"full", seconds)` of each line.

    Raises ValueError at the end, for the first line without a total.
    """
    rows = lines(content)
    bad = None if rows else content
    for line in rows:
        share, _, rest = line.partition(b" ")
        _, found, total = rest.rpartition(b"total=")
        if not found or not is_number(total):
            bad = bad or line
        else:
            yield share, int(total) / _MICROSECONDS
    if bad is not None:
        raise unexpected_content(bad)
