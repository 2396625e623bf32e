"""Threads that are interrupted or die: they come back, each collection ends once, and no lock stays locked."""

from __future__ import annotations

import ctypes
import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bts_exporter import HttpClient, Product, Scrape, Url
from bts_exporter.collection.background import BackgroundRunner
from bts_exporter.collection.collection import Collection
from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.collection.outcome import Outcome
from bts_exporter.collection.runner import Runner
from bts_exporter.errors import StateError
from bts_exporter.line_writer import LineWriter
from bts_exporter.settings.loader import Common
from interruptions import interruptions, is_free
from servers import free_port, wait_until
from stubs import Hang, LocalStub, Pushed, Stub, collect, collectors, runner_of, with_worker


def raise_in(thread: int, error: type[BaseException]) -> None:
    """Raise `error` in another thread as soon as that executes Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


@pytest.fixture(autouse=True)
def hooks_without_gaps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Log through the exporter's handler only, and report no thread that dies.

    The handlers of pytest keep their locks, and its hooks fail, where their thread is interrupted in them.
    """
    log = logging.getLogger("bts_exporter")
    with Path(os.devnull).open("wb") as sink:
        monkeypatch.setattr(log, "handlers", [LineWriter(sink.fileno())])
        monkeypatch.setattr(log, "propagate", False)
        monkeypatch.setattr(log, "addHandler", id)  # pytest adds its own after this
        monkeypatch.setattr(threading, "excepthook", id)  # in C: no exception is raised in it
        monkeypatch.setattr(sys, "unraisablehook", id)
        yield


def deadly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads die of an exception, as by a second one while they handle the first."""

    def raise_again(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("bts_exporter.collection.worker.log.error", raise_again)
    # Exceptions of collectors are caught earlier; this simulates an interruption elsewhere.
    monkeypatch.setattr("bts_exporter.collection.collection.Collection._conclude", raise_again)


@pytest.mark.parametrize("stub", [Stub, LocalStub])
def test_thread_that_dies(stub: type[Stub], monkeypatch: pytest.MonkeyPatch) -> None:
    """The collection of an interrupted thread fails, and the next one has a thread."""
    own: list[threading.Thread] = []
    collector = stub(lambda _: own.append(threading.current_thread()))
    with collectors(("stub", collector)) as (together, runners):
        with monkeypatch.context() as patched:
            deadly(patched)
            run = runners[0].begin(time.monotonic() + 60)
            wait_until(lambda: own and not own[0].is_alive(), "the thread died")
        shots = [together.collect(runners, 60)[0] for _ in range(2)]

        assert run.ended
        assert run.outcome is not None
        assert (run.outcome.reason, collector.collections) == ("internal", 3)
        assert [shot.outcome.success for shot in shots] == [True, True]


def test_thread_that_dies_during_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collections behind an interrupted one are executed within the same scrape."""
    own: list[threading.Thread] = []
    hang = Hang(before=lambda _: own.append(threading.current_thread()))
    first, behind = LocalStub(hang), LocalStub()
    with collectors(("first", first), ("behind", behind)) as (together, runners):
        shots: dict[str, Outcome] = {}

        def scrape() -> None:
            found = together.collect(runners, 60)
            shots.update({shot.runner.name: shot.outcome for shot in found})

        scraping = threading.Thread(target=scrape)
        with monkeypatch.context() as patched:
            deadly(patched)
            scraping.start()
            assert hang.begun.wait(60)
            hang.end()
            wait_until(lambda: not own[0].is_alive(), "the thread died")
        scraping.join(60)

        assert shots["first"].reason == "internal"
        assert shots["behind"].success


def test_thread_that_is_interrupted_while_it_waits() -> None:
    """An exception in an idle thread does not affect the next collection."""
    idents: list[int] = []
    with runner_of(Stub(lambda _: idents.append(threading.get_ident()))) as runner:
        collect(runner)
        wait_until(lambda: runner.worker.idle, "the thread is idle")  # type: ignore[union-attr]
        raise_in(idents[0], SystemExit)
        outcomes = [collect(runner).outcome.success for _ in range(3)]

    assert outcomes == [True] * 3
    assert len(set(idents)) == 1


def test_background_collection_that_is_interrupted() -> None:
    """Collections at an interval continue after an interruption, at the next scrape at the latest."""
    idents: list[int] = []
    stub = Stub(lambda _: idents.append(threading.get_ident()))
    with collectors(("stub", stub, {"interval": 1.0})) as (together, runners):
        for turn in range(2):
            wait_until(lambda: len(idents) > turn, "it collects")  # noqa: B023  # called at once
            raise_in(idents[-1], KeyboardInterrupt)
            before = stub.collections
            wait_until(
                lambda: together.collect(runners, 60) and stub.collections > before + 1,  # noqa: B023  # as above
                "it goes on",
            )
        wait_until(lambda: together.collect(runners, 60)[0].outcome.success, "it is well again")


def test_state_is_read_by_a_thread_that_is_interrupted() -> None:
    """Wherever a thread is interrupted that reads a collector's state, the collector can be collected."""
    with runner_of(Stub()) as runner:

        def read() -> None:
            with suppress(StateError):
                runner.read_state(60)

        for point in interruptions(read):
            assert is_free(runner._in_use), f"interrupted after {point} calls and returns"
        succeeds = collect(runner).outcome.success

    assert point > 5
    assert succeeds


def test_client_is_closed_by_a_thread_that_is_interrupted() -> None:
    """Wherever a thread is interrupted that closes an HTTP client, the client can be used."""
    client = HttpClient(Product("shop API"), Url(f"http://127.0.0.1:{free_port()}"))

    for point in interruptions(client.close):
        assert is_free(client._lock), f"interrupted after {point} calls and returns"

    assert point > 3


def no_thread(_: threading.Thread) -> None:
    """Refuse to start, as at the limit of threads."""
    message = "can't start new thread"
    raise RuntimeError(message)


def test_start_that_had_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """`start` is called as soon as a thread can be started."""
    done: list[str] = []
    pushed = Pushed(lambda _: done.append("collect"), start=lambda: done.append("start"))
    runner = with_worker(Runner(pushed, "stub", Common()))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        runner.start()
        starved = collect(runner)
    for _ in range(2):
        collect(runner)
    for last in CollectorSet.stop([runner]):
        last.wait(60)

    assert starved.outcome.reason == "os"
    assert done == ["start", "collect", "collect"]


def test_background_collection_that_had_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collections at an interval begin at the first scrape for which a thread can be started."""
    runner = with_worker(BackgroundRunner(Stub(), "stub", Common(), 3600))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        runner.start()
        starved = collect(runner)

    wait_until(lambda: collect(runner).outcome.success, "it collects")
    CollectorSet.stop([runner])
    runner.worker.wait(60)

    assert starved.outcome.reason == "os"


class Counted(Collection):
    """A collection that counts its calls of `_conclude` and `_end`."""

    ends: Counter[int]

    def _end(self) -> None:
        ended = self.ended
        super()._end()
        if not ended:
            self.ends[id(self)] += 1
            self.kept.append(self)  # so that its id is not reused

    kept: list[Collection]


def test_every_collection_ends_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No collector stays behind after scrapes with different timeouts, hangs and interruptions."""
    monkeypatch.setattr("bts_exporter.collection.runner.Collection", Counted)
    Counted.ends, Counted.kept = Counter(), []
    dice = random.Random(1)
    own: set[threading.Thread] = set()

    def behave(scrape: Scrape) -> None:
        own.add(threading.current_thread())
        scrape.emit(Stub.value, 1)
        if dice.random() < 0.03:
            time.sleep(dice.random() / 5)

    members = [(f"local{n}", LocalStub(behave)) for n in range(8)]
    with collectors(*members, ("own", Stub(behave))) as (together, runners):
        ended = threading.Event()

        def scrape(seed: int) -> None:
            patience = random.Random(seed)
            for _ in range(60):
                together.collect(runners, patience.choice([0.001, 0.01, 0.1, 1]))

        def interrupt() -> None:
            while not ended.wait(0.01):
                # The identifier of a thread that ended may be that of one that is being started.
                alive = [thread.ident or 0 for thread in list(own) if thread.is_alive()]
                raise_in(dice.choice(alive or [0]), KeyboardInterrupt)

        threads = [threading.Thread(target=scrape, args=(seed,)) for seed in range(6)]
        interrupting = threading.Thread(target=interrupt)
        for thread in (*threads, interrupting):
            thread.start()
        for thread in threads:
            thread.join()
        ended.set()
        interrupting.join()
        wait_until(lambda: all_well(together, runners), "all collectors are back")

    assert set(Counted.ends.values()) == {1}


def all_well(together: CollectorSet, runners: list[Runner]) -> bool:
    """Return whether all collectors succeed in one scrape, short enough to be repeated."""
    return all(shot.outcome.success for shot in together.collect(runners, 5))
