"""Scrapes with different timeouts of the same collectors."""

from __future__ import annotations

import threading
import time

import pytest

from bts_exporter.collection.collection import Collection
from bts_exporter.collection.runner import Snapshot
from servers import wait_until
from stubs import Hang, LocalStub, Stub, collectors, runner_of


def test_scrapes_that_overlap_give_up_a_collection_that_hangs() -> None:
    """Scrapes that join a collection extend it, and never beyond the time of a new one."""
    hang = Hang()
    with runner_of(Stub(hang)) as runner:
        first = runner.begin(time.monotonic() + 0.5)
        assert hang.begun.wait(60)
        joined: list[Collection] = []

        def scrape() -> bool:
            joined.append(runner.begin(time.monotonic() + 0.5))
            joined[-1].wait(time.monotonic() + 0.05)
            return first.expired

        wait_until(scrape, "it is given up")

        assert set(joined) == {first}
        assert runner.totals.errors == {"timeout": 1}


def test_collection_without_a_turn_has_the_time_of_who_joins_it() -> None:
    """The time that a collection waits for the shared thread does not count."""
    hang = Hang()
    with collectors(("hangs", LocalStub(hang)), ("waits", LocalStub())) as (_, runners):
        runners[0].begin(time.monotonic() + 60)
        assert hang.begun.wait(60)
        waiting = runners[1].begin(time.monotonic() + 0.1)
        later = time.monotonic() + 60

        assert runners[1].begin(later) is waiting
        assert waiting.deadline == pytest.approx(later)


def test_collector_that_blocked_a_hurried_scrape_shares_the_thread_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A collector that blocked only because of a short scrape returns to the shared thread."""
    monkeypatch.setattr("bts_exporter.collection.collector_set._MAX_BLOCKED", 3600)
    hang = Hang()
    members = [("slow", LocalStub(hang)), ("other", LocalStub())]
    with collectors(*members) as (together, runners):
        shots: list[Snapshot] = []
        # A collector may block others for an hour, but at most for a quarter of the scrape's time.
        hurried = threading.Thread(target=lambda: shots.extend(together.collect(runners, 0.5)))
        hurried.start()
        wait_until(lambda: runners[0].exclusive, "the others have another thread")
        hang.end()
        hurried.join(60)
        again = together.collect(runners, 60)

        assert [shot.outcome.success for shot in again] == [True, True]
        assert shots[1].outcome.success
        assert not runners[0].exclusive
        assert runners[0].worker is runners[1].worker


def test_scrape_with_more_time_asks_again() -> None:
    """A collection that a short scrape gave up is waited for, and repeated."""
    hang = Hang()
    stub = Stub(hang)
    with collectors(("slow", stub)) as (together, runners):
        [late] = together.collect(runners, 0.1)
        patient: list[Snapshot] = []
        scrape = threading.Thread(target=lambda: patient.extend(together.collect(runners, 5)))
        scrape.start()
        stub.behave = stub.emit_value
        hang.end()
        scrape.join(60)

        assert (late.outcome.reason, patient[0].outcome.success) == ("timeout", True)
        assert stub.collections == 2
        assert runners[0].totals.errors == {"timeout": 1}


def test_own_timeout_is_not_hurry() -> None:
    """A collector with a shorter `timeout` is not repeated for a scrape with more time."""
    hang = Hang()
    stub = Stub(hang)
    with collectors(("slow", stub, {"timeout": 0.1})) as (together, runners):
        shots = [together.collect(runners, 60)[0] for _ in range(2)]

        assert [shot.outcome.reason for shot in shots] == ["timeout", "busy"]
        assert stub.collections == 1
        hang.end()
