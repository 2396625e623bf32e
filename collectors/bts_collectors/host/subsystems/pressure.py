"""The subsystem `pressure`: pressure stall information (PSI) for CPU, memory, I/O and interrupts."""

from __future__ import annotations

import errno
from typing import ClassVar

from bts_collectors.host.kernel.files import SINGLE_RECORD, errors_in
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.kernel.pressure import parse_pressure
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, counter


class Pressure(Subsystem):
    """Pressure stall information from /proc/pressure."""

    name = "pressure"

    stalls: ClassVar = {
        ("cpu", b"some"): counter(
            "node_pressure_cpu_waiting_seconds_total",
            "Time in which at least one task waited for CPU (/proc/pressure/cpu, some, total).",
        ),
        ("io", b"some"): counter(
            "node_pressure_io_waiting_seconds_total",
            "Time in which at least one task waited for I/O (/proc/pressure/io, some, total).",
        ),
        ("io", b"full"): counter(
            "node_pressure_io_stalled_seconds_total",
            "Time in which all tasks waited for I/O (/proc/pressure/io, full, total).",
        ),
        ("memory", b"some"): counter(
            "node_pressure_memory_waiting_seconds_total",
            "Time in which at least one task waited for memory (/proc/pressure/memory, some, total).",
        ),
        ("memory", b"full"): counter(
            "node_pressure_memory_stalled_seconds_total",
            "Time in which all tasks waited for memory (/proc/pressure/memory, full, total).",
        ),
        ("irq", b"full"): counter(
            "node_pressure_irq_stalled_seconds_total",
            "Time in which all tasks waited for interrupts (/proc/pressure/irq, full, total).",
        ),
    }

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.procfs}/pressure"
        self._files = [
            (what, KernelFile(f"{self._folder}/{what}", SINGLE_RECORD))
            for what in ("cpu", "io", "memory", "irq")
        ]

    def collect(self, scrape: Scrape) -> None:
        """Emit the stall times that this kernel accounts for."""
        parts = Parts()
        for what, file in self._files:
            with parts:
                self._emit(scrape, what, file)
        parts.check()

    def _emit(self, scrape: Scrape, what: str, file: KernelFile) -> None:
        try:
            content = file.read()
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                msg = f"{file.path} is switched off (psi=0)"
                raise NotPresent(msg) from error
            raise
        with errors_in(file.path):
            # On some kernels the only line of irq has no end.
            for share, seconds in parse_pressure(
                content if what != "irq" else content.rstrip() + b"\n"
            ):
                metric = self.stalls.get((what, share))
                if metric is not None:
                    scrape.emit(metric, seconds)


COLLECTOR = Pressure
