"""The subsystem `loadavg`: load averages."""

from __future__ import annotations

from math import isfinite

from bts_collectors.host.kernel.files import SINGLE_RECORD, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, gauge


class Loadavg(Subsystem):
    """Load averages from /proc/loadavg."""

    name = "loadavg"

    averages = (
        gauge("node_load1", "1m load average (/proc/loadavg, field 1)."),
        gauge("node_load5", "5m load average (/proc/loadavg, field 2)."),
        gauge("node_load15", "15m load average (/proc/loadavg, field 3)."),
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/loadavg", SINGLE_RECORD)

    def collect(self, scrape: Scrape) -> None:
        """Emit the three averages."""
        with self._file as content:
            for metric, value in zip(self.averages, parse(content), strict=True):
                scrape.emit(metric, value)


def parse(content: bytes) -> tuple[float, float, float]:
    """Return the load averages over 1, 5 and 15 minutes; ValueError for other content."""
    # Without the fields after them, the averages may be truncated.
    fields = content.split()
    if len(fields) < 4:  # noqa: PLR2004  # three averages and another field
        raise unexpected_content(content)
    one, five, fifteen = map(float, fields[:3])
    if not (isfinite(one + five + fifteen) and min(one, five, fifteen) >= 0):
        raise unexpected_content(content)
    return one, five, fifteen


COLLECTOR = Loadavg
