from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from bts_exporter import Scrape
from bts_exporter.collection.collection import Collection
from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.collection.runner import Runner, Snapshot
from bts_exporter.errors import DeadlineExceeded
from bts_exporter.settings.loader import Common
from servers import wait_until
from stubs import (
    SERIES,
    Hang,
    LocalStub,
    Pushed,
    Stub,
    collect,
    collectors,
    emit_two,
    lines,
    runner_of,
    with_worker,
)


def give_up(runner: Runner, run: Collection) -> Snapshot:
    """Let a running collection reach its deadline, and return its snapshot."""
    run.expire()
    return runner.snapshot(run)


# Hanging


def test_collection_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """The samples of a hanging collection are served, its failure is counted and logged, and it is not started again."""
    hang = Hang(before=emit_two)
    stub = Stub(hang)
    with runner_of(stub) as runner:
        run = runner.begin(time.monotonic() + 60)
        assert hang.begun.wait(60)
        late = give_up(runner, run)
        busy = [collect(runner) for _ in range(3)]

        assert late.samples == SERIES
        assert (late.outcome.success, late.outcome.reason) == (False, "timeout")
        assert late.outcome.message.startswith("no answer within ")
        assert [(shot.outcome.reason, shot.samples) for shot in busy] == [("busy", {})] * 3
        assert busy[0].outcome.message.startswith("a collection begun ")
        assert busy[0].outcome.message.endswith(" s ago is still running")
        assert stub.collections == 1
        assert runner.totals.errors == {"timeout": 1, "busy": 3}
        assert runner.totals.timeouts == 1
        assert len(lines(caplog)) == 1


def test_recovery_of_a_collection_that_hung(caplog: pytest.LogCaptureFixture) -> None:
    """After a hanging collection has ended in any way, the collector is collected again."""
    caplog.set_level(logging.INFO, "bts_exporter")
    hang = Hang()
    stub = Stub(hang)
    with runner_of(stub) as runner:
        run = runner.begin(time.monotonic() + 60)
        assert hang.begun.wait(60)
        give_up(runner, run)
        stub.behave = emit_two
        hang.go_on.set()
        wait_until(lambda: run.ended, "the collection ended")
        shot = collect(runner)

        assert (shot.outcome.success, shot.samples) == (True, SERIES)
        assert runner.totals.errors == {"timeout": 1}
        assert lines(caplog)[1:] == [("INFO", "collection works again")]


def test_samples_after_the_deadline_are_refused() -> None:
    """`emit` raises after the deadline, so that the collection ends; the failure is counted once."""
    caught: list[BaseException] = []

    def after(scrape: Scrape) -> None:
        try:
            scrape.emit(Stub.series, 3, "late")
        except DeadlineExceeded as error:
            caught.append(error)
            raise

    hang = Hang(before=emit_two, after=after)
    with runner_of(Stub(hang)) as runner:
        run = runner.begin(time.monotonic() + 60)
        assert hang.begun.wait(60)
        shot = give_up(runner, run)
        hang.go_on.set()
        wait_until(lambda: run.ended, "the collection ended")

        assert len(caught) == 1
        assert shot.samples == run.scrape.samples == SERIES
        assert runner.snapshot(run).outcome.reason == "timeout"
        assert runner.totals.errors == {"timeout": 1}


def test_scrape_that_is_over_before_the_collection() -> None:
    """A scrape with a shorter timeout serves the samples so far, and does not count a failure."""
    hang = Hang(before=emit_two)
    with runner_of(Stub(hang)) as runner:
        run = runner.begin(time.monotonic() + 60)
        assert hang.begun.wait(60)
        run.wait(time.monotonic())
        early = runner.snapshot(run)
        hang.go_on.set()
        run.wait(time.monotonic() + 60)
        late = runner.snapshot(run)

        assert (early.outcome.reason, early.samples) == ("timeout", SERIES)
        assert (late.outcome.success, late.samples) == (True, SERIES)
        assert (runner.totals.errors, runner.totals.timeouts) == ({}, 0)


def test_what_a_late_scrape_shows_does_not_change() -> None:
    """The samples of a page do not change while the collection continues."""

    def after(scrape: Scrape) -> None:
        scrape.emit(Stub.series, 3, "c")

    hang = Hang(before=emit_two, after=after)
    with runner_of(Stub(hang)) as runner:
        run = runner.begin(time.monotonic() + 60)
        assert hang.begun.wait(60)
        run.wait(time.monotonic())
        early = runner.snapshot(run)
        hang.go_on.set()
        run.wait(time.monotonic() + 60)

        assert early.samples == SERIES
        assert runner.snapshot(run).series == 3


def test_collections_that_overlap_are_one() -> None:
    """Fifty simultaneous scrapes share one collection."""
    hang = Hang(after=emit_two)
    stub = Stub(hang)
    shots: list[Snapshot] = []
    all_begun = threading.Barrier(51)

    def scrape() -> None:
        run = runner.begin(time.monotonic() + 60)
        all_begun.wait(60)
        run.wait(time.monotonic() + 60)
        shots.append(runner.snapshot(run))

    with runner_of(stub) as runner:
        threads = [threading.Thread(target=scrape) for _ in range(50)]
        for thread in threads:
            thread.start()
        all_begun.wait(60)
        hang.go_on.set()
        for thread in threads:
            thread.join(60)

    assert [shot.samples for shot in shots] == [SERIES] * 50
    assert stub.collections == 1


def test_collection_that_ended_is_not_shared() -> None:
    """A scrape that overlaps no other collects again."""
    stub = Stub()
    with runner_of(stub) as runner:
        for _ in range(3):
            collect(runner)

    assert stub.collections == 3


def test_collection_given_up_before_its_turn_never_begins() -> None:
    """A collection that is given up before its turn is not a failure, and is never executed."""
    with collectors(("stub", LocalStub())) as (_, [runner]):
        run = runner.begin(time.monotonic() + 60, [])
        run.expire()
        run.execute()

        assert isinstance(runner.collector, Stub)
        assert runner.collector.collections == 0
        assert run.ended
        assert (
            runner.snapshot(run).outcome.message
            == "not begun: the collector before it did not end in time"
        )
        assert runner.totals.errors == {}


def test_collection_is_given_up_once() -> None:
    """A late collection is counted once, however many scrapes wait for it."""
    hang = Hang()
    with runner_of(Stub(hang)) as runner:
        run = runner.begin(time.monotonic() + 60)
        assert hang.begun.wait(60)
        for _ in range(3):
            run.expire()

        assert runner.totals.timeouts == 1


def test_collection_that_ended_is_not_late() -> None:
    """A collection that ends at the deadline is counted either as a success or as a failure."""
    with runner_of(Stub(emit_two)) as runner:
        deadline = time.monotonic() + 60
        run = runner.begin(deadline)
        run.wait(deadline)
        shot = give_up(runner, run)

        assert shot.outcome.success
        assert runner.totals.timeouts == 0


# Threads


def test_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a thread only that collector fails, and it recovers when a thread can be started."""

    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    stub = Stub(emit_two)
    runner = with_worker(Runner(stub, "stub", Common()))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        runner.start()
        starved = collect(runner)
    fed = collect(runner)
    CollectorSet.stop([runner])

    assert (starved.outcome.reason, starved.outcome.message) == (
        "os",
        "no thread to collect in: can't start new thread",
    )
    assert (fed.outcome.success, fed.samples, stub.collections) == (True, SERIES, 1)


def test_stop_without_a_thread_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a new thread `stop` is called in the collector's own thread; without any, that is logged."""

    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    stopped: list[str] = []
    pushed = Pushed(stop=lambda: stopped.append(threading.current_thread().name))
    runners = [with_worker(Runner(pushed, kind, Common())) for kind in ("used", "unused")]
    collect(runners[0])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        CollectorSet.stop(runners)
    runners[0].worker.wait(60)

    assert stopped == ["bts-used"]
    assert lines(caplog) == [("ERROR", "stop failed: RuntimeError: can't start new thread")]


def test_start_comes_before_the_first_collection() -> None:
    """`start` is called before the first collection."""
    done: list[str] = []
    with runner_of(
        Pushed(lambda _: done.append("collect"), start=lambda: done.append("start"))
    ) as runner:
        collect(runner)

    assert done == ["start", "collect"]


@pytest.mark.parametrize("error", [ValueError("no broker"), SystemExit(1)], ids=repr)
def test_start_that_raises(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in `start` is logged, and the collector is still collected."""

    def start() -> None:
        raise error

    with runner_of(Pushed(emit_two, start=start)) as runner:
        shot = collect(runner)

    assert shot.samples == SERIES
    [(level, text)] = lines(caplog)
    assert level == "ERROR"
    assert text.startswith(f"start failed: {type(error).__name__}: {error} ({Path(__file__).name}:")


def test_start_that_hangs() -> None:
    """A collector whose `start` hangs is late, then busy."""
    hang = Hang()
    stub = Pushed(start=hang)
    try:
        with runner_of(stub) as runner:
            run = runner.begin(time.monotonic() + 60)
            shots = [give_up(runner, run), collect(runner)]

            assert [shot.outcome.reason for shot in shots] == ["timeout", "busy"]
            hang.go_on.set()
            wait_until(lambda: run.ended, "the collection was let go")
            assert collect(runner).outcome.success
            assert stub.collections == 1
    finally:
        hang.go_on.set()


@pytest.mark.parametrize("error", [ValueError("no broker"), SystemExit(1)], ids=repr)
def test_stop_that_raises(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in `stop` is logged and has no other effect."""

    def stop() -> None:
        raise error

    with runner_of(Pushed(stop=stop)):
        pass

    [(level, text)] = lines(caplog)
    assert level == "ERROR"
    assert text.startswith(f"stop failed: {type(error).__name__}: {error} ({Path(__file__).name}:")


def test_stop_is_called_from_another_thread_than_collect() -> None:
    """`stop` is called even while a collection hangs."""
    stopped = threading.Event()
    hang = Hang()
    with runner_of(Pushed(hang, stop=stopped.set)) as runner:
        runner.begin(time.monotonic() + 60)
        assert hang.begun.wait(60)
        runner.stop()

        assert stopped.wait(60)
        assert not hang.go_on.is_set()


def test_stop_that_hangs() -> None:
    """A `stop` that hangs is not waited for."""
    hang = Hang()
    with runner_of(Pushed(stop=hang)) as runner:
        last = runner.stop()
        assert hang.begun.wait(60)
        last.wait(0.01)
        hang.go_on.set()


def test_a_collection_under_way_ends_before_its_collector_does() -> None:
    """A reload that removes a collector lets its running collection end before `stop`."""
    ends: list[str] = []
    hang = Hang(after=lambda _: ends.append("collected"))
    collector = Pushed(hang, stop=lambda: ends.append("stopped"))
    runner = with_worker(Runner(collector, "stub", Common()))
    runner.begin(time.monotonic() + 60)
    assert hang.begun.wait(60)

    last = runner.stop(timeout=60)
    hang.end()
    last.wait(60)

    assert ends == ["collected", "stopped"]
