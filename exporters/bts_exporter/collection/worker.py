"""Threads that collections run in: a shared one for local collectors, one for each other."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol

log = logging.getLogger("bts_exporter.collection.worker")


class Job(Protocol):
    """A unit of work of a worker."""

    def execute(self) -> None:
        """Do the work; called once."""

    def abandon(self) -> None:
        """End the job: its thread was interrupted in it, or died."""


class _Call:
    """A function as a job."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def execute(self) -> None:
        """Call the function."""
        self._function()

    def abandon(self) -> None:
        """Do nothing: the result of the function is not used."""


class Worker:
    """A thread that does one job after another; it starts with the first and idles in between.

    It survives whatever a job raises, and what a plug-in raises in it from another thread
    (PyThreadState_SetAsyncExc). A thread that dies nevertheless is replaced.
    """

    def __init__(self, name: str) -> None:
        """Name the thread, as `ps -L` and stack dumps show it."""
        self.name = name
        #: The job under way.
        self.current: Job | None = None
        self._began = 0.0
        self._backlog: deque[Job] = deque()
        # One token for each addition to the backlog. The jobs are not in the queue, since an
        # exception from another thread is raised where `get` returns, and what it returned is lost.
        self._added: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._lock = threading.Lock()

    @property
    def idle(self) -> bool:
        """Return whether no job is running or waiting."""
        return self.current is None and not self._backlog

    def submit(self, function: Callable[[], object]) -> None:
        """Call `function` after the jobs before it.

        RuntimeError, with nothing done, when the system has no thread left.
        """
        self.submit_all([_Call(function)])

    def submit_all(self, jobs: Sequence[Job]) -> None:
        """Do `jobs` after those before them; RuntimeError as with `submit`."""
        self._bury_dead_thread()
        with self._lock:
            if self._thread is None:
                self._start_thread()
            self._backlog.extend(jobs)
            self._added.put(None)

    def revive(self) -> None:
        """Replace the thread if it died: the jobs that wait are done by the new one.

        RuntimeError when the system has no thread left.
        """
        self._bury_dead_thread()
        with self._lock:
            if self._thread is None and self._backlog:
                self._start_thread()

    def stuck_job(self, seconds: float) -> Job | None:
        """Return the job under way if it began `seconds` ago or earlier."""
        job = self.current
        if job is not None and time.monotonic() - self._began >= seconds:
            return job
        return None

    def drain(self) -> list[Job]:
        """Take the jobs that wait out of the worker."""
        with self._lock:
            jobs = list(self._backlog)
            self._backlog.clear()
        return jobs

    def stop(self) -> None:
        """Let the thread end after the jobs that it has; does not wait.

        A scrape that began before a reload may still submit: such a job is done nevertheless.
        """
        with self._lock:
            self._stopped = True
            self._added.put(None)

    def wait(self, seconds: float) -> None:
        """Wait at most `seconds` for a worker that was stopped to finish its jobs."""
        thread = self._thread
        if thread is not None:
            thread.join(max(seconds, 0))

    def _start_thread(self) -> None:
        # A daemon, since a thread that hangs in a system call must not keep the process.
        thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        thread.start()
        self._thread = thread

    def _bury_dead_thread(self) -> None:
        """Remove a thread that died, and end its job."""
        thread = self._thread
        if thread is None or thread.is_alive():
            return
        with self._lock:
            if self._thread is not thread:  # another thread has done it
                return
            self._thread = None
        self._abandon_interrupted()

    def _work(self) -> None:
        while True:
            try:
                self._abandon_interrupted()
                self._serve()
            except BaseException as error:  # noqa: BLE001  # from a job, or raised by another thread
                # Only the name: an error's own code may raise, too.
                name = type(error).__name__
                log.error("the thread %s continues after %s", self.name, name)  # noqa: TRY400  # as above
            else:
                return

    def _serve(self) -> None:
        """Do jobs until the worker was stopped and none is left."""
        while not self._is_over():
            while self._take():
                job = self.current
                if job is not None:
                    job.execute()
                del job  # or an idle worker keeps its last scrape's samples alive
                self.current = None
            self._added.get()

    def _take(self) -> bool:
        """Make the first waiting job the current one; return False if there is none."""
        with self._lock:
            if not self._backlog:
                return False
            self._began = time.monotonic()
            # In this order: interrupted in between, it is abandoned, and not lost.
            self.current = self._backlog[0]
            self._backlog.popleft()
            return True

    def _abandon_interrupted(self) -> None:
        job, self.current = self.current, None
        if job is not None:
            job.abandon()

    def _is_over(self) -> bool:
        with self._lock:
            over = self._stopped and not self._backlog
            if over:
                self._thread = None
            return over


class SharedWorker:
    """The worker of all local collectors; if one hangs nevertheless, the others get a new thread."""

    def __init__(self, name: str) -> None:
        """Name the threads."""
        self.name = name
        self._worker = Worker(name)
        self._stopped = False
        self._lock = threading.Lock()

    def submit(self, function: Callable[[], object]) -> None:
        """Do as `Worker.submit` does."""
        with self._lock:
            self._worker.submit(function)

    def submit_all(self, jobs: Sequence[Job]) -> None:
        """Do as `Worker.submit_all` does."""
        with self._lock:
            self._worker.submit_all(jobs)

    def revive(self) -> None:
        """Do as `Worker.revive` does."""
        with self._lock:
            self._worker.revive()

    def stop(self) -> None:
        """Do as `Worker.stop` does."""
        with self._lock:
            self._stopped = True
            self._worker.stop()

    def wait(self, seconds: float) -> None:
        """Do as `Worker.wait` does."""
        self._worker.wait(seconds)

    def replace_stuck(self, seconds: float) -> tuple[Worker, Job] | None:
        """Continue in a new worker if a job has taken `seconds` or longer; return that job and its worker.

        RuntimeError, with nothing changed, when the system has no thread left.
        """
        with self._lock:
            stuck = self._worker
            job = stuck.stuck_job(seconds)
            if job is None:
                return None
            new = Worker(self.name)
            new.submit_all([])  # the thread first: without one the jobs stay where they are
            new.submit_all(stuck.drain())
            self._worker = new
            if self._stopped:
                new.stop()
            return stuck, job
