from __future__ import annotations

import gc
import threading
import weakref

import pytest

from bts_exporter.collection.worker import SharedWorker, Worker
from servers import wait_until
from stubs import Hang


def threads(name: str) -> int:
    """Return how many threads are called `name`."""
    return sum(thread.name == name for thread in threading.enumerate())


def test_jobs_are_done_in_turn() -> None:
    """One thread executes all jobs in their order."""
    worker, done = Worker("turn"), []

    for number in range(100):
        worker.submit(lambda number=number: done.append((number, threading.current_thread().name)))  # type: ignore[misc]
    worker.stop()
    worker.wait(60)

    assert done == [(number, "turn") for number in range(100)]


def test_thread_starts_with_the_first_job_and_stays() -> None:
    """A worker starts its only thread at its first job."""
    worker = Worker("stays")
    assert threads("stays") == 0

    idents = set()
    for _ in range(3):
        ended = threading.Event()
        worker.submit(lambda ended=ended: (idents.add(threading.get_ident()), ended.set()))  # type: ignore[misc]
        assert ended.wait(60)

    assert (len(idents), threads("stays")) == (1, 1)
    worker.stop()
    worker.wait(60)
    assert threads("stays") == 0


def test_stop_does_not_wait_for_a_job_that_hangs() -> None:
    """`stop` returns while a job hangs; the jobs behind it are executed when it ends."""
    worker, hang, after = Worker("hangs"), Hang(), threading.Event()
    worker.submit(hang)
    worker.submit(after.set)
    assert hang.begun.wait(60)

    worker.stop()
    worker.wait(0.01)

    assert threads("hangs") == 1
    hang.go_on.set()
    worker.wait(60)
    assert (after.is_set(), threads("hangs")) == (True, 0)


def test_job_after_the_stop_is_done() -> None:
    """A job submitted after `stop` is executed, as for a scrape that began before a reload; then the thread ends."""
    worker, done = Worker("late"), threading.Event()
    worker.submit(lambda: None)
    worker.stop()
    worker.wait(60)

    worker.submit(done.set)

    assert done.wait(60)
    wait_until(lambda: threads("late") == 0, "the thread ended")


def test_job_after_the_stop_of_an_unused_worker_is_done() -> None:
    """A job submitted after `stop` is executed even if there was no thread."""
    worker, done = Worker("unused"), threading.Event()
    worker.stop()
    worker.wait(60)

    worker.submit(done.set)

    assert done.wait(60)
    wait_until(lambda: threads("unused") == 0, "the thread ended")


def test_thread_does_not_keep_the_process() -> None:
    """A hanging job does not keep the process from ending."""
    worker, daemon = Worker("daemon"), []

    worker.submit(lambda: daemon.append(threading.current_thread().daemon))
    worker.stop()
    worker.wait(60)

    assert daemon == [True]


def test_idle_worker_holds_no_job() -> None:
    """An idle thread keeps nothing of its last job in memory."""

    class Samples:
        pass

    worker, samples, ended = Worker("idle"), Samples(), threading.Event()
    alive = weakref.ref(samples)
    worker.submit(lambda samples=samples: ended.set())  # type: ignore[misc]
    del samples
    assert ended.wait(60)

    wait_until(lambda: gc.collect() is None or alive() is None, "the samples are freed")
    worker.stop()
    worker.wait(60)


def test_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, the job is refused and not kept; the next one starts a thread."""
    worker, done = Worker("none left"), []

    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            worker.submit(lambda: done.append("refused"))
    worker.submit(lambda: done.append("taken"))
    worker.stop()
    worker.wait(60)

    assert done == ["taken"]


# Threads that are interrupted, or die


class Noted:
    """A job that raises, and records whether it was executed and abandoned."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.notes: list[str] = []
        self._error = error

    def execute(self) -> None:
        """Note, and raise."""
        self.notes.append("executed")
        if self._error:
            raise self._error

    def abandon(self) -> None:
        """Note."""
        self.notes.append("abandoned")


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), KeyboardInterrupt(), MemoryError()])
def test_job_that_raises(error: BaseException) -> None:
    """An interrupted job is ended as a failure, and the same thread executes the jobs behind it."""
    worker, raising, behind = Worker("raises"), Noted(error), Noted()
    idents: list[int] = []

    worker.submit(lambda: idents.append(threading.get_ident()))
    worker.submit_all([raising, behind])
    worker.submit(lambda: idents.append(threading.get_ident()))
    worker.stop()
    worker.wait(60)

    assert raising.notes == ["executed", "abandoned"]
    assert behind.notes == ["executed"]
    assert len(set(idents)) == 1


def die(monkeypatch: pytest.MonkeyPatch, worker: Worker, job: Noted) -> None:
    """Have the worker's thread die in `job`, as by a second exception while it handles the first."""

    def raise_again(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("bts_exporter.collection.worker.log.error", raise_again)
        worker.submit_all([job])
        wait_until(lambda: threads(worker.name) == 0, "the thread died")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_dead_thread_is_replaced_for_the_next_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job of a dead thread is ended as a failure, and the next job gets a new thread."""
    worker, interrupted, after = Worker("dies"), Noted(ValueError()), Noted()
    die(monkeypatch, worker, interrupted)

    worker.submit_all([after])
    worker.stop()
    worker.wait(60)

    assert interrupted.notes == ["executed", "abandoned"]
    assert after.notes == ["executed"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_dead_thread_is_replaced_for_the_jobs_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new thread executes the waiting jobs of the dead one."""
    worker, hang = Worker("dies later"), Hang()
    interrupted, waiting = Noted(ValueError()), Noted()
    worker.submit(hang)
    assert hang.begun.wait(60)
    worker.submit_all([interrupted, waiting])

    def raise_again(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("bts_exporter.collection.worker.log.error", raise_again)
        hang.end()
        wait_until(lambda: threads(worker.name) == 0, "the thread died")
    died = waiting.notes[:]
    worker.revive()
    worker.stop()
    worker.wait(60)

    assert (died, waiting.notes) == ([], ["executed"])
    assert interrupted.notes == ["executed", "abandoned"]


def test_thread_that_lives_is_not_replaced() -> None:
    """`revive` changes nothing while the thread lives, or if none was needed."""
    worker, unused, hang = Worker("lives"), Worker("unused yet"), Hang()
    worker.submit(hang)
    assert hang.begun.wait(60)

    worker.revive()
    unused.revive()

    assert (threads("lives"), threads("unused yet")) == (1, 0)
    hang.end()
    worker.stop()
    worker.wait(60)


def test_shared_worker_leaves_a_stuck_job_behind() -> None:
    """A new thread executes the jobs behind a hanging one, each once."""
    shared, hang, behind = SharedWorker("shared"), Hang(), Noted()
    shared.submit(hang)
    shared.submit_all([behind])
    assert hang.begun.wait(60)

    early = shared.replace_stuck(3600)
    stuck = shared.replace_stuck(0)
    wait_until(lambda: behind.notes, "the job behind is done")
    again = shared.replace_stuck(0)
    assert stuck is not None
    hang.end()
    stuck[0].stop()
    stuck[0].wait(60)
    shared.stop()
    shared.wait(60)

    assert (early, again) == (None, None)
    assert behind.notes == ["executed"]


def test_shared_worker_without_a_thread_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no second thread can be started, the jobs behind a hanging one stay in the queue."""
    shared, hang, behind = SharedWorker("shared alone"), Hang(), Noted()
    shared.submit(hang)
    shared.submit_all([behind])
    assert hang.begun.wait(60)

    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            shared.replace_stuck(0)
    hang.end()
    shared.stop()
    shared.wait(60)

    assert behind.notes == ["executed"]
