"""The subsystem `kernel_hung`: hung tasks that the kernel detected."""

from __future__ import annotations

from bts_collectors.host.kernel.files import SINGLE_RECORD
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.sysctl import read_sysctl
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, counter


class KernelHung(Subsystem):
    """Hung tasks from /proc/sys/kernel/hung_task_detect_count (since Linux 6.13)."""

    name = "kernel_hung"

    tasks = counter(
        "node_kernel_hung_tasks_total",
        "Hung tasks detected since boot (/proc/sys/kernel/hung_task_detect_count).",
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._file = KernelFile(f"{config.procfs}/sys/kernel/hung_task_detect_count", SINGLE_RECORD)

    def collect(self, scrape: Scrape) -> None:
        """Emit the number of hung tasks."""
        scrape.emit(self.tasks, read_sysctl(self._file))


COLLECTOR = KernelHung
