"""Threads that collections run in: one for all that cannot hang, one for each that can."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Job = Callable[[], None]


class Lane:
    """A thread that does one job after another; it starts with the first and idles in between."""

    def __init__(self, name: str) -> None:
        """Name the thread, as `ps -L` and stack dumps show it."""
        self.name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def submit(self, job: Job) -> None:
        """Have `job` done after those before it; it must not raise.

        RuntimeError, with nothing done, when the system has no thread left.
        """
        with self._lock:
            if self._thread is None:
                # A daemon, since a thread that hangs in a system call must not keep the process.
                thread = threading.Thread(target=self._work, name=self.name, daemon=True)
                thread.start()
                self._thread = thread
            self._jobs.put(job)

    def stop(self) -> None:
        """Let the thread end after the jobs that it has; does not wait.

        A scrape that began before a reload may still submit: such a job is done nevertheless.
        """
        with self._lock:
            self._stopped = True
            self._jobs.put(None)

    def wait(self, seconds: float) -> None:
        """Wait at most `seconds` for a lane that was stopped to be through with its jobs."""
        thread = self._thread
        if thread is not None:
            thread.join(max(seconds, 0))

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is not None:
                job()
            del job  # or an idle lane keeps its last scrape's samples alive
            with self._lock:
                if self._stopped and self._jobs.empty():
                    self._thread = None
                    return
