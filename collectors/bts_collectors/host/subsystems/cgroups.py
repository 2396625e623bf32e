"""The subsystem `cgroups`: cgroup controllers of the kernel."""

from __future__ import annotations

from collections.abc import Iterator

from bts_collectors.host.kernel.files import is_number, text, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, gauge

_SUBSYSTEM = ("subsys_name",)
_HEADER = b"#subsys_name\thierarchy\tnum_cgroups\tenabled"


class Cgroups(Subsystem):
    """Cgroup controllers from /proc/cgroups."""

    name = "cgroups"
    by_default = False

    cgroups = gauge(
        "node_cgroups_cgroups",
        "Number of cgroups of the controller (/proc/cgroups, num_cgroups).",
        _SUBSYSTEM,
    )
    enabled = gauge(
        "node_cgroups_enabled",
        "Whether the controller is enabled (/proc/cgroups, enabled).",
        _SUBSYSTEM,
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/cgroups")

    def collect(self, scrape: Scrape) -> None:
        """Emit the number of cgroups of each controller, and whether it is enabled."""
        with self._file as content:
            for controller, cgroups, enabled in parse(content):
                scrape.emit(self.cgroups, cgroups, controller)
                scrape.emit(self.enabled, enabled, controller)


def parse(content: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield `(controller, cgroups, 0 or 1)` of each line; ValueError at the end, for the first unreadable one."""
    header, *rows = content.splitlines() or [b""]
    if header != _HEADER:
        raise unexpected_content(header)
    bad: bytes | None = None
    for row in rows:
        fields = row.split()
        # The last field has one digit: if it is there, the line is complete.
        if len(fields) != 4 or fields[3] not in {b"0", b"1"} or not is_number(fields[2]):  # noqa: PLR2004  # the columns of the header
            bad = bad or row
        else:
            yield text(fields[0]), int(fields[2]), int(fields[3])
    if bad is not None:
        raise unexpected_content(bad)


COLLECTOR = Cgroups
