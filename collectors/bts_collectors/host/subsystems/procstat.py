"""The collector `stat`: the kernel's totals since boot (the name is the standard library's)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bts_collectors.host.kernel.files import AT_ONCE, MOST, is_number, lines, unreadable
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Scrape, counter, gauge

#: In the order of the kernel's enumeration, which is the order of the line `softirq`.
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

    softirqs: bool = False


class Stat(Subsystem):
    """Totals from /proc/stat."""

    name = "stat"
    Settings = StatSettings

    totals: ClassVar = {
        b"intr": counter("node_intr_total", "Interrupts serviced (/proc/stat, intr)."),
        b"ctxt": counter("node_context_switches_total", "Context switches (/proc/stat, ctxt)."),
        b"processes": counter("node_forks_total", "Forks (/proc/stat, processes)."),
        b"btime": gauge("node_boot_time_seconds", "Boot in Unix time (/proc/stat, btime)."),
        b"procs_running": gauge(
            "node_procs_running", "Tasks that run or could run (/proc/stat, procs_running)."
        ),
        b"procs_blocked": gauge(
            "node_procs_blocked", "Tasks that wait for I/O (/proc/stat, procs_blocked)."
        ),
    }
    softirqs = counter(
        "node_softirqs_total", "Soft interrupts by vector (/proc/stat, softirq).", ("vector",)
    )

    settings: StatSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/stat", AT_ONCE)

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
    """Yield `(field, numbers)` of the lines that are no CPU's; of intr the total alone.

    ValueError at the end, for the first of the lines that could not be read, or when there is none.
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
                # Behind the total of intr there are thousands of numbers on some machines.
                yield field, [_count(rest.split(b" ", 1)[0])]
            found = True
        except ValueError:
            bad = bad or line
    if bad is not None or not found:
        raise unreadable(content if bad is None else bad)


def _count(word: bytes) -> int:
    """Return a number that is not negative; ValueError for others, which some broken kernels print."""
    if not is_number(word) or int(word) >= MOST:
        raise unreadable(word)
    return int(word)


COLLECTOR = Stat
