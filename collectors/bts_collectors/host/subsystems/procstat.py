"""The subsystem `stat`: totals since boot from /proc/stat (`stat` is a standard module)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bts_collectors.host.kernel.files import (
    MAX_COUNT,
    SINGLE_RECORD,
    is_number,
    lines,
    unexpected_content,
)
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Scrape, counter, gauge

#: In the order of the kernel's enumeration, as in the line `softirq`.
_VECTORS = (
    "hi",
    "timer",
    "net_tx",
    "net_rx",
    "block",
    "block_iopoll",
    "tasklet",
    "sched",
    "hrtimer",
    "rcu",
)


class StatSettings(CollectorConfig, frozen=True):
    """Settings of `stat`."""

    #: Whether to emit soft interrupts by vector.
    softirqs: bool = False


class Stat(Subsystem):
    """Totals from /proc/stat."""

    name = "stat"
    Settings = StatSettings

    totals: ClassVar = {
        b"intr": counter("node_intr_total", "Interrupts serviced (/proc/stat, intr)."),
        b"ctxt": counter("node_context_switches_total", "Context switches (/proc/stat, ctxt)."),
        b"processes": counter("node_forks_total", "Forks (/proc/stat, processes)."),
        b"btime": gauge("node_boot_time_seconds", "Boot time in Unix time (/proc/stat, btime)."),
        b"procs_running": gauge(
            "node_procs_running", "Number of runnable tasks (/proc/stat, procs_running)."
        ),
        b"procs_blocked": gauge(
            "node_procs_blocked", "Number of tasks blocked by I/O (/proc/stat, procs_blocked)."
        ),
    }
    softirqs = counter(
        "node_softirqs_total", "Soft interrupts by vector (/proc/stat, softirq).", ("vector",)
    )

    settings: StatSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/stat", SINGLE_RECORD)

    def collect(self, scrape: Scrape) -> None:
        """Emit the totals that this kernel has."""
        with self._file as content:
            for field, numbers in parse(content):
                if field != b"softirq":
                    scrape.emit(self.totals[field], numbers[0])
                elif self.settings.softirqs:
                    for vector, value in zip(_VECTORS, numbers[1:], strict=False):
                        scrape.emit(self.softirqs, value, vector)


def parse(content: bytes) -> Iterator[tuple[bytes, list[int]]]:
    """Yield `(field, numbers)` of the lines other than those of CPUs; only the total of `intr`.

    Raises ValueError at the end, for the first unreadable line, or if there are no such lines.
    """
    bad: bytes | None = None
    found = False
    for line in lines(content):
        field, _, rest = line.partition(b" ")
        if field not in Stat.totals and field != b"softirq":
            continue
        try:
            if field == b"softirq":
                yield field, list(map(_count, rest.split()))
            else:
                # On some hosts thousands of numbers follow the total of intr.
                yield field, [_count(rest.split(b" ", 1)[0])]
            found = True
        except ValueError:
            bad = bad or line
    if bad is not None or not found:
        raise unexpected_content(content if bad is None else bad)


def _count(word: bytes) -> int:
    """Return a number; ValueError for a negative one, which some broken kernels print, and for other words."""
    if not is_number(word) or int(word) >= MAX_COUNT:
        raise unexpected_content(word)
    return int(word)


COLLECTOR = Stat
