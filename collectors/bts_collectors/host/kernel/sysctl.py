"""Files of /proc/sys with one number."""

from __future__ import annotations

from bts_collectors.host.kernel.files import is_number, lines, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile


def read_sysctl(file: KernelFile) -> int:
    """Return the number in `file`; NotPresent if it is absent, TargetError for other content."""
    with file as content:
        return parse_sysctl(content)


def parse_sysctl(content: bytes) -> int:
    """Return the number in the only line of `content`; ValueError for other content."""
    rows = lines(content)
    if len(rows) != 1 or not is_number(rows[0]):
        raise unexpected_content(content)
    return int(rows[0])
