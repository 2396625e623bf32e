"""The subsystem `processes`: numbers of processes and threads, by state, and their limits."""

from __future__ import annotations

import os
from collections import Counter

from bts_collectors.host.kernel.files import SINGLE_RECORD, text
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.open_files import with_room
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.kernel.processes import GONE, TaskStates, hidden, pids
from bts_collectors.host.kernel.sysctl import read_sysctl
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Scrape, gauge


class ProcessesSettings(CollectorConfig, frozen=True):
    """Settings of `processes`."""

    #: Maximum number of processes, and of threads, to read; with more of them, states are left out.
    scan_limit: int = 2_000


class Processes(Subsystem):
    """Numbers and states of processes and threads from /proc/PID/stat, and their limits."""

    name = "processes"
    Settings = ProcessesSettings

    pids = gauge("node_processes_pids", "Number of processes (directories /proc/PID).")
    threads = gauge("node_processes_threads", "Number of threads (/proc/PID/stat, num_threads).")
    states = gauge(
        "node_processes_state", "Number of processes by state (/proc/PID/stat, state).", ("state",)
    )
    thread_states = gauge(
        "node_processes_threads_state",
        "Number of threads by state (/proc/PID/task/TID/stat, state).",
        ("thread_state",),
    )
    max_processes = gauge(
        "node_processes_max_processes", "Limit on process ids (/proc/sys/kernel/pid_max)."
    )
    max_threads = gauge(
        "node_processes_max_threads", "Limit on threads (/proc/sys/kernel/threads-max)."
    )

    settings: ProcessesSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._limits = (
            (KernelFile(f"{config.procfs}/sys/kernel/pid_max", SINGLE_RECORD), self.max_processes),
            (
                KernelFile(f"{config.procfs}/sys/kernel/threads-max", SINGLE_RECORD),
                self.max_threads,
            ),
        )
        self._processes = TaskStates()
        self._threads = TaskStates()

    def collect(self, scrape: Scrape) -> None:
        """Emit the limits, which can always be read, then numbers and states."""
        parts = Parts()
        for file, metric in self._limits:
            with parts:
                scrape.emit(metric, read_sysctl(file))
        with parts:
            self._emit_numbers(scrape, parts)
        parts.check()

    def _emit_numbers(self, scrape: Scrape, parts: Parts) -> None:
        procfs, limit = self.config.procfs, self.settings.scan_limit
        ids = pids(procfs)
        few = len(ids) <= limit
        folders = [f"{procfs}/{pid}" for pid in (ids if few else ("1",))]
        stats = self._processes.read(folders, parts)
        if all(folder != f"{procfs}/1" for folder, _, _ in stats):
            raise hidden(procfs)
        scrape.emit(self.pids, len(ids))
        if few:
            self._emit_states(scrape, stats, parts)

    def _emit_states(
        self, scrape: Scrape, stats: list[tuple[str, bytes, int]], parts: Parts
    ) -> None:
        for state, count in Counter([state for _, state, _ in stats]).items():
            scrape.emit(self.states, count, text(state))
        threads = sum([threads for _, _, threads in stats])
        scrape.emit(self.threads, threads)
        if threads <= self.settings.scan_limit:
            for state, count in self._thread_states(stats, parts).items():
                scrape.emit(self.thread_states, count, text(state))

    def _thread_states(self, stats: list[tuple[str, bytes, int]], parts: Parts) -> Counter[bytes]:
        # The state of a process is that of its first thread, and most have only one.
        tasks = [task for folder, _, threads in stats if threads != 1 for task in _others(folder)]
        return Counter([state for _, state, _ in [*stats, *self._threads.read(tasks, parts)]])


def _others(folder: str) -> list[str]:
    """Return the directories of the threads of a process, except the first one."""
    try:
        tasks = with_room(os.listdir, f"{folder}/task")
    except GONE:  # the process has ended
        return []
    first = folder.rpartition("/")[2]
    return [f"{folder}/task/{task}" for task in tasks if task != first]


COLLECTOR = Processes
