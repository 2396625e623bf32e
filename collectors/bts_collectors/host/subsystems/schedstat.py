"""The subsystem `schedstat`: time that tasks ran and waited, by CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bts_collectors.host.kernel.files import lines, text, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, counter

_CPU = ("cpu",)
_NANOSECONDS = 1e9
#: Fields of a CPU's line: the name and nine numbers, of which the last three are used.
_FIELDS, _COUNTS = 10, 3
#: A number of up to 64 bits.
_COUNT = re.compile(rb"[0-9]{1,20}")


class Schedstat(Subsystem):
    """Scheduler statistics from /proc/schedstat."""

    name = "schedstat"

    running = counter(
        "node_schedstat_running_seconds_total",
        "Time that tasks ran on the CPU (/proc/schedstat, field 7).",
        _CPU,
    )
    waiting = counter(
        "node_schedstat_waiting_seconds_total",
        "Time that tasks waited for the CPU (/proc/schedstat, field 8).",
        _CPU,
    )
    timeslices = counter(
        "node_schedstat_timeslices_total",
        "Time slices run on the CPU (/proc/schedstat, field 9).",
        _CPU,
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/schedstat")

    def collect(self, scrape: Scrape) -> None:
        """Emit running time, waiting time and time slices of each CPU."""
        with self._file as content:
            for cpu, running, waiting, timeslices in parse(content):
                scrape.emit(self.running, running / _NANOSECONDS, cpu)
                scrape.emit(self.waiting, waiting / _NANOSECONDS, cpu)
                scrape.emit(self.timeslices, timeslices, cpu)


def parse(content: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Yield `(cpu, running ns, waiting ns, time slices)`.

    Raises ValueError at the end, for the first line of a CPU with another format, or if there is no such line.
    """
    rows = [line.split() for line in lines(content) if line.startswith(b"cpu")]
    bad = None if rows else content
    for fields in rows:
        cpu, counts = fields[0][3:], fields[7:_FIELDS]
        if len(counts) < _COUNTS or not all(map(_COUNT.fullmatch, (cpu, *counts))):
            bad = bad or b" ".join(fields)
            continue
        running, waiting, timeslices = map(int, counts)
        yield text(cpu), running, waiting, timeslices
    if bad is not None:
        raise unexpected_content(bad)


COLLECTOR = Schedstat
