from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bts_exporter import Scrape
from bts_exporter.collection.background import BackgroundRunner
from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.collection.runner import Snapshot
from bts_exporter.settings.loader import Common
from servers import wait_until
from stubs import Hang, Pushed, Stub, with_worker

#: An interval longer than any test, and one that is over at once.
LONG, SHORT = 3600.0, 0.01


@contextmanager
def background(stub: Stub, interval: float, **common: Any) -> Iterator[BackgroundRunner]:
    """Run one collector at an interval that may be shorter than settings allow."""
    runner = with_worker(BackgroundRunner(stub, "stub", Common(**common), interval))
    runner.start()
    try:
        yield runner
    finally:
        if isinstance(stub.behave, Hang):
            stub.behave.end()
        CollectorSet.stop([runner])
        runner.worker.wait(60)


def look(runner: BackgroundRunner, seconds: float = 60) -> Snapshot:
    """Return what a scrape with `seconds` of time shows."""
    deadline = time.monotonic() + seconds
    run = runner.begin(deadline)
    run.wait(deadline)
    return runner.snapshot(run)


class Rounds:
    """A behaviour that emits the number of its round, and can raise in all rounds but the first."""

    def __init__(self, error: Exception | None = None) -> None:
        self.number = 0
        self.error = error

    def __call__(self, scrape: Scrape) -> None:
        """Emit, and raise in all rounds but the first."""
        self.number += 1
        scrape.emit(Stub.value, self.number)
        if self.error and self.number > 1:
            raise self.error


def value(shot: Snapshot) -> float | None:
    """Return the one sample."""
    return shot.samples.get(Stub.value, {}).get(())


def test_first_scrape_waits_and_later_ones_do_not() -> None:
    """The first scrape waits for the first collection; later scrapes serve its samples with their age."""
    stub = Stub()
    with background(stub, LONG) as runner:
        shots = [look(runner) for _ in range(3)]

        assert [value(shot) for shot in shots] == [1, 1, 1]
        assert stub.collections == 1
        ages = [shot.age for shot in shots]
        assert None not in ages
        assert ages == sorted(ages)  # type: ignore[type-var]
        assert all(shot.outcome.success for shot in shots)


def test_collection_comes_round_by_itself() -> None:
    """Collections run without scrapes, and a scrape serves the newest one."""
    with background(Stub(Rounds()), 0.2) as runner:
        for number in (1, 2, 3):
            wait_until(lambda: (value(look(runner)) or 0) >= number, "a later one is served")  # noqa: B023  # called at once


def test_first_scrape_does_not_wait_longer_than_it_can() -> None:
    """A first collection that takes longer than the scrape is shown as late, and does not count as a failure yet."""
    hang = Hang()
    with background(Stub(hang), LONG) as runner:
        assert hang.begun.wait(60)
        early = look(runner, seconds=0)
        hang.go_on.set()
        late = look(runner)

        assert (early.outcome.success, early.outcome.reason, early.samples, early.age) == (
            False,
            "timeout",
            {},
            0,
        )
        assert late.outcome.success
        assert runner.totals.errors == {}


def test_hang_is_shown_while_the_last_samples_stay() -> None:
    """A collection that takes longer than its interval fails, and the previous samples are served."""
    hang = Hang()
    stub = Stub()
    with background(stub, 0.2) as runner:
        assert look(runner).outcome.success
        stub.behave = hang
        assert hang.begun.wait(60)
        wait_until(lambda: not look(runner).outcome.success, "the hang is seen")
        shots = [look(runner) for _ in range(3)]

        assert [(value(shot), shot.outcome.reason) for shot in shots] == [(1, "timeout")] * 3
        assert runner.totals.errors == {"timeout": 1}
        assert runner.totals.timeouts == 1
        begun = stub.collections
        stub.behave = stub.emit_value
        hang.go_on.set()
        wait_until(lambda: look(runner).outcome.success, "it recovers")
        assert stub.collections > begun


def test_hang_is_never_started_twice() -> None:
    """Any number of scrapes during a hanging collection start no second one."""
    hang = Hang()
    stub = Stub(hang)
    with background(stub, SHORT) as runner:
        assert hang.begun.wait(60)
        wait_until(lambda: runner.totals.timeouts or look(runner, seconds=0) is None, "it is late")
        for _ in range(10):
            look(runner, seconds=0)

        assert stub.collections == 1
        assert runner.totals.errors == {"timeout": 1}


def test_failure_is_shown_with_what_it_found() -> None:
    """A collection that fails serves the samples that it emitted, and the reason of its failure."""
    expected = ("internal", "ValueError: defect (test_background.py:57)")
    with background(Stub(Rounds(ValueError("defect"))), 0.2) as runner:
        wait_until(lambda: (value(look(runner)) or 0) > 1, "a later round is served")
        shot = look(runner)

        assert (shot.outcome.reason, shot.outcome.message) == expected


def test_own_timeout_within_the_interval() -> None:
    """A collection may take as long as its interval, or its timeout if that is shorter."""
    left: list[float] = []
    for common in ({}, {"timeout": 5.0}):
        stub = Stub(lambda scrape: left.append(scrape.remaining()))
        with background(stub, 100, **common) as runner:
            look(runner)

    assert 60 < left[0] < 100
    assert 0 < left[1] < 5


def test_start_comes_before_the_first_collection() -> None:
    """`start` has returned before the first collection begins."""
    done: list[str] = []
    stub = Pushed(lambda _: done.append("collect"), start=lambda: done.append("start"))
    with background(stub, LONG) as runner:
        look(runner)

    assert done == ["start", "collect"]


def test_stop_ends_the_collecting() -> None:
    """After `stop` there are no further collections, and the thread ends."""
    own: list[threading.Thread] = []

    def behave(scrape: Scrape) -> None:
        own.append(threading.current_thread())
        scrape.emit(Stub.value, 1)

    stub = Stub(behave)
    with background(stub, LONG) as runner:
        look(runner)
        CollectorSet.stop([runner])
        wait_until(lambda: not own[0].is_alive(), "the thread ends")

        assert stub.collections == 1
        assert value(look(runner)) == 1


def test_scrape_before_the_start() -> None:
    """A collector that was not started yet reports that."""
    runner = with_worker(BackgroundRunner(Stub(), "stub", Common(), LONG))

    shot = look(runner)

    assert (shot.outcome.reason, shot.outcome.message) == ("busy", "not started yet")


def test_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector without a thread for its collections reports why."""

    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", start)
    runner = with_worker(BackgroundRunner(Stub(), "stub", Common(), LONG))
    runner.start()

    shot = look(runner)

    assert (shot.outcome.reason, shot.outcome.message) == (
        "os",
        "no thread to collect in: can't start new thread",
    )
