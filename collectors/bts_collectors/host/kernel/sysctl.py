"""Files of /proc/sys that hold one number."""

from __future__ import annotations

from bts_collectors.host.kernel.files import is_number, lines, unreadable
from bts_collectors.host.kernel.kernel_file import KernelFile


def read_sysctl(file: KernelFile) -> int:
    """Return the number in `file`; NothingToRead when it is absent, TargetError for other content."""
    with file as content:
        return parse_sysctl(content)


def parse_sysctl(content: bytes) -> int:
    """Return the number that is the only line of `content`; ValueError where it is not."""
    rows = lines(content)
    if len(rows) != 1 or not is_number(rows[0]):
        raise unreadable(content)
    return int(rows[0])
