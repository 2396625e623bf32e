"""How many processes and threads there are, in which state, and how many there may be."""

from __future__ import annotations

import os
from collections import Counter

from bts_collectors.host._subsystem import Paths, Subsystem
from bts_collectors.host._sysctl import read_sysctl
from bts_collectors.host._tasks import pids, read_state
from bts_exporter import CollectorConfig, Scrape, gauge


class ProcessesSettings(CollectorConfig, frozen=True):
    """Settings of `processes`."""

    #: Processes looked at, and threads: where there are more, their states are left out.
    scan_limit: int = 2_000


class ProcessesConfig(Paths, frozen=True):
    """Settings of `processes`, and where the files are."""

    settings: ProcessesSettings = ProcessesSettings()


class Processes(Subsystem):
    """Processes and threads from /proc/PID/stat, and their limits."""

    name = "processes"
    Config = ProcessesConfig
    Settings = ProcessesSettings

    pids = gauge("node_processes_pids", "Processes (folders /proc/PID).")
    threads = gauge("node_processes_threads", "Threads (/proc/PID/stat, num_threads).")
    states = gauge(
        "node_processes_state", "Processes by state (/proc/PID/stat, state).", ("state",)
    )
    thread_states = gauge(
        "node_processes_threads_state",
        "Threads by state (/proc/PID/task/TID/stat, state).",
        ("thread_state",),
    )
    max_processes = gauge(
        "node_processes_max_processes", "Largest process id (/proc/sys/kernel/pid_max)."
    )
    max_threads = gauge(
        "node_processes_max_threads", "Largest number of threads (/proc/sys/kernel/threads-max)."
    )

    config: ProcessesConfig

    def __init__(self, config: ProcessesConfig) -> None:
        super().__init__(config)
        self._limits = (
            (f"{config.procfs}/sys/kernel/pid_max", self.max_processes),
            (f"{config.procfs}/sys/kernel/threads-max", self.max_threads),
        )

    def collect(self, scrape: Scrape) -> None:
        """Emit limits, which nobody hides, and numbers."""
        for path, metric in self._limits:
            scrape.emit(metric, read_sysctl(path))
        limit = self.config.settings.scan_limit
        found = pids(self.config.procfs)
        scrape.emit(self.pids, len(found))
        if len(found) > limit:
            return
        folders = [f"{self.config.procfs}/{pid}" for pid in found]
        stats = [(folder, *stat) for folder in folders if (stat := read_state(folder)) is not None]
        for state, count in Counter(state for _, state, _ in stats).items():
            scrape.emit(self.states, count, state)
        threads = sum(threads for _, _, threads in stats)
        scrape.emit(self.threads, threads)
        if threads <= limit:
            for state, count in _thread_states(stats).items():
                scrape.emit(self.thread_states, count, state)


def _thread_states(stats: list[tuple[str, str, int]]) -> Counter[str]:
    # Most processes have a single thread, whose state is theirs.
    found = Counter(state for _, state, threads in stats if threads == 1)
    for folder, _, threads in stats:
        if threads != 1:
            found.update(_states_of_threads(folder))
    return found


def _states_of_threads(folder: str) -> list[str]:
    try:
        tasks = os.listdir(f"{folder}/task")  # noqa: PTH208  # no need of Path objects
    except OSError:  # the process has ended
        return []
    found = [read_state(f"{folder}/task/{task}") for task in tasks]
    return [stat[0] for stat in found if stat is not None]


COLLECTOR = Processes
