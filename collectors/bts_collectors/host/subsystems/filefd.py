"""How many files are open, and how many may be."""

from __future__ import annotations

from bts_collectors.host.kernel.files import AT_ONCE, is_number, unreadable
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, gauge


class Filefd(Subsystem):
    """Open files from /proc/sys/fs/file-nr."""

    name = "filefd"

    allocated = gauge("node_filefd_allocated", "Open files (/proc/sys/fs/file-nr, first field).")
    maximum = gauge("node_filefd_maximum", "Limit of them (/proc/sys/fs/file-nr, third field).")

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/sys/fs/file-nr", AT_ONCE)

    def collect(self, scrape: Scrape) -> None:
        """Emit number and limit."""
        with self._file as content:
            allocated, maximum = parse(content)
        scrape.emit(self.allocated, allocated)
        scrape.emit(self.maximum, maximum)


def parse(content: bytes) -> tuple[int, int]:
    """Return `(allocated, maximum)`; ValueError where there are not three numbers."""
    fields = content.split() if content.endswith(b"\n") else []  # else the last may be cut off
    if len(fields) != 3 or not all(map(is_number, fields)):  # noqa: PLR2004
        raise unreadable(content)
    return int(fields[0]), int(fields[2])


COLLECTOR = Filefd
