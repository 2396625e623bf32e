"""The subsystem `meminfo`: every field of /proc/meminfo, whatever the kernel version."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bts_collectors.host.kernel.files import (
    MAX_COUNT,
    SINGLE_RECORD,
    lines,
    text,
    unexpected_content,
)
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Kind, Metric, Scrape, Template

_INVALID_CHARACTERS = re.compile(r"[^a-zA-Z0-9_]+")


class Meminfo(Subsystem):
    """Memory from /proc/meminfo."""

    name = "meminfo"

    bytes_ = Template(
        "node_memory_{field}_bytes", "Field {field} of /proc/meminfo, in bytes.", Kind.GAUGE
    )
    count = Template("node_memory_{field}", "Field {field} of /proc/meminfo.", Kind.GAUGE)

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/meminfo", SINGLE_RECORD)
        self._metrics: dict[tuple[bytes, int], Metric] = {}

    def collect(self, scrape: Scrape) -> None:
        """Emit a sample for each line."""
        metrics = self._metrics
        with self._file as content:
            for field, unit, value in parse(content):
                metric = metrics.get((field, unit))
                if metric is None:
                    template = self.count if unit == 1 else self.bytes_
                    metric = metrics[field, unit] = template.of(_name_part(field))
                if 0 <= value < MAX_COUNT:
                    scrape.emit(metric, value)


def parse(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield `(field, unit, value)` of each line; the unit is 1024 for kB, and 1 for a plain number.

    A value in kB is converted to bytes. Raises ValueError at the end, for the first unreadable line.
    """
    bad = None if content else b""
    for line in lines(content):
        field, _, rest = line.partition(b":")
        try:
            if rest.endswith(b" kB"):
                yield field, 1024, int(rest[:-3]) * 1024
            else:
                yield field, 1, int(rest)
        except ValueError:
            bad = bad or line
    if bad is not None:
        raise unexpected_content(bad)


def _name_part(field: bytes) -> str:
    """Return a field as a part of a metric name: `Active_anon` for `Active(anon)`."""
    return _INVALID_CHARACTERS.sub("_", text(field)).strip("_")


COLLECTOR = Meminfo
