"""The subsystem `filefd`: open files of the whole host, and their limit."""

from __future__ import annotations

from bts_collectors.host.kernel.files import SINGLE_RECORD, is_number, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, gauge


class Filefd(Subsystem):
    """Open files from /proc/sys/fs/file-nr."""

    name = "filefd"

    allocated = gauge(
        "node_filefd_allocated", "Number of open files (/proc/sys/fs/file-nr, field 1)."
    )
    maximum = gauge(
        "node_filefd_maximum", "Maximum number of open files (/proc/sys/fs/file-nr, field 3)."
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/sys/fs/file-nr", SINGLE_RECORD)

    def collect(self, scrape: Scrape) -> None:
        """Emit the number of open files and the limit."""
        with self._file as content:
            allocated, maximum = parse(content)
        scrape.emit(self.allocated, allocated)
        scrape.emit(self.maximum, maximum)


def parse(content: bytes) -> tuple[int, int]:
    """Return `(allocated, maximum)`; ValueError unless there are three numbers."""
    fields = content.split() if content.endswith(b"\n") else []  # else the last may be truncated
    if len(fields) != 3 or not all(map(is_number, fields)):  # noqa: PLR2004
        raise unexpected_content(content)
    return int(fields[0]), int(fields[2])


COLLECTOR = Filefd
