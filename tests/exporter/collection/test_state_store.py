from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bts_exporter import Collector, CollectorConfig, Scrape, gauge
from bts_exporter.collection import state_file, state_store
from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.collection.runner import Runner
from bts_exporter.collection.state_store import StateStore
from bts_exporter.settings.loader import Common


class Note(msgspec.Struct):
    """A state."""

    text: str


class Notes(Collector):
    """A collector that stores a note."""

    State = Note
    known = gauge("known", "Whether there is a note.")

    def __init__(self, text: str = "") -> None:
        super().__init__(CollectorConfig())
        self.text = text
        self.restored: list[str] = []
        self.answer: Callable[[], Any] = lambda: ("broker", Note(self.text))

    def collect(self, scrape: Scrape) -> None:
        """Ask for the note."""
        found = self.restore("broker")
        self.restored += [] if found is None else [found.state.text]
        scrape.emit(self.known, len(self.restored))

    def save_state(self) -> Any:
        """Return what the test says."""
        return self.answer()


class Plain(Collector):
    """A collector without a state."""

    def collect(self, scrape: Scrape) -> None:
        """Do nothing."""


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Callable[[], StateStore]]:
    """Return a function that makes a store of the same folder; all are closed in the end."""
    made: list[StateStore] = []

    def make() -> StateStore:
        for store in made:
            store.close()
            store._io.wait(30)  # of the class, to be deterministic
        made.append(StateStore(tmp_path))
        return made[-1]

    yield make
    for store in made:
        store.close()


def runner_of(collector: Collector, name: str = "") -> Runner:
    """Return a runner of a collector."""
    return CollectorSet().add(collector, "notes", Common(name=name))


def save(store: StateStore, *runners: Runner, timeout: float = 5.0) -> None:
    """Save the states, and wait for that."""
    store.adopt(runners)
    done = wait([save.written for save in store.save(runners, timeout)], 30)
    assert not done.not_done


def restored(store: StateStore, timeout: float = 30.0) -> list[str]:
    """Return what a new collector gets."""
    collector = Notes()
    runner = runner_of(collector)
    store.adopt([runner])
    store.restore([runner], timeout)
    collector.collect(Scrape(float("inf")))
    return collector.restored


def errors(runner: Runner) -> dict[str, int]:
    """Return the errors of a runner by operation."""
    assert runner.totals.state is not None
    return dict(runner.totals.state.errors)


def test_state_is_restored_once(stores: Callable[[], StateStore]) -> None:
    """The first collection gets it; the time of the save is known."""
    runner = runner_of(Notes("hello"))
    save(stores(), runner)

    assert restored(stores()) == ["hello"]
    assert runner.totals.state is not None
    assert runner.totals.state.last_save > 0
    assert errors(runner) == {"restore": 0, "save": 0}


def test_collector_without_a_state_has_no_metrics_of_it(stores: Callable[[], StateStore]) -> None:
    """Nothing is stored for it."""
    runner = runner_of(Plain(CollectorConfig()))

    save(stores(), runner)

    assert runner.totals.state is None


def test_none_keeps_what_is_stored(stores: Callable[[], StateStore]) -> None:
    """A collector that does not know its target yet does not replace its state."""
    collector = Notes("hello")
    runner = runner_of(collector)
    store = stores()
    save(store, runner)
    collector.answer = lambda: None

    save(store, runner)

    assert restored(stores()) == ["hello"]


def raising() -> None:
    """Raise what a defect raises."""
    msg = "a defect"
    raise SystemExit(msg)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raising, "save_state: SystemExit: a defect"),
        (lambda: "text", "save_state: "),
        (lambda: ("broker", "text"), "save_state: TypeError: expected the identity as str and a"),
        (lambda: (1, Note("x")), "save_state: TypeError: expected the identity as str and a"),
        (lambda: ("broker", Note("x" * state_file.MAX_BYTES)), "limit: 32 MiB"),
        (lambda: ("broker", Note(object())), "JSON cannot express"),  # type: ignore[arg-type]
    ],
    ids=["raises", "text", "other type", "identity", "size", "object"],
)
def test_defect_of_a_collector_costs_only_its_own_state(
    stores: Callable[[], StateStore],
    caplog: pytest.LogCaptureFixture,
    answer: Callable[[], object],
    reason: str,
) -> None:
    """What save_state returns or raises is counted, and logged once; others are stored."""
    bad, good = Notes(), Notes("hello")
    bad.answer = answer
    runners = [runner_of(bad, "bad"), runner_of(good)]
    store = stores()

    save(store, *runners)
    save(store, *runners)

    assert errors(runners[0]) == {"restore": 0, "save": 2}
    assert [reason in record.getMessage() for record in caplog.records] == [True]
    assert restored(stores()) == ["hello"]


def test_state_of_another_shape_is_not_used(
    stores: Callable[[], StateStore], caplog: pytest.LogCaptureFixture
) -> None:
    """A file that an older version of the collector wrote is ignored with the reason."""

    class Number(msgspec.Struct):
        """A state of another shape."""

        number: int

    older = Notes()
    older.State = Number  # type: ignore[misc]
    older.answer = lambda: ("broker", Number(1))
    save(stores(), runner_of(older))

    assert restored(stores()) == []
    (record,) = caplog.records
    assert "missing required field `text`" in record.getMessage()


def test_save_when_due(stores: Callable[[], StateStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """States are saved about once a minute, not at each look of the main loop."""
    now = [1000.0]
    monkeypatch.setattr(state_store.time, "monotonic", lambda: now[0])
    calls: list[float] = []
    collector = Notes("hello")
    collector.answer = lambda: calls.append(now[0])
    runner = runner_of(collector)
    store = stores()
    store.adopt([runner])

    for now[0] in (1000.0, 1030.0, 1061.0, 1062.0, 1100.0, 1122.0):
        store.tick([runner])
        wait([each.written for each in store._saves.values()], 30)  # to be deterministic

    assert calls == [1061.0, 1122.0]


def test_file_system_that_hangs_is_waited_for_no_longer_than_given(
    stores: Callable[[], StateStore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Start, saves and stop go on; the failures are counted, and nothing piles up."""
    hangs = threading.Event()
    monkeypatch.setattr(state_file, "read", lambda _: hangs.wait() and None)
    monkeypatch.setattr(state_file, "write", lambda *_: hangs.wait())
    runner = runner_of(Notes("hello"))
    store = stores()
    store.adopt([runner])

    store.restore([runner], 0.05)
    first = store.save([runner])
    second = store.save([runner])
    store.close()
    hangs.set()

    assert errors(runner) == {"restore": 1, "save": 1}
    assert (len(first), second) == (1, [])
    assert [
        "not read within 0.05 s: does the file system hang?" in caplog.records[0].getMessage(),
        "the save before has not ended" in caplog.records[1].getMessage(),
    ] == [True, True]


def test_collection_under_way_is_not_disturbed(stores: Callable[[], StateStore]) -> None:
    """The state is read between two collections; one that does not end is left out."""
    collecting, end = threading.Event(), threading.Event()

    class Slow(Notes):
        """A collector whose target hangs."""

        def collect(self, scrape: Scrape) -> None:  # the contract
            """Wait."""
            collecting.set()
            end.wait()

    runner = runner_of(Slow("hello"))
    thread = threading.Thread(target=runner.collect_into, args=[Scrape(float("inf"))])
    thread.start()
    collecting.wait()
    store = stores()

    save(store, runner, timeout=0.05)
    end.set()
    thread.join()

    assert errors(runner) == {"restore": 0, "save": 1}
    save(store, runner)
    assert restored(stores()) == ["hello"]


def test_failure_that_lasts_is_logged_once_and_its_end_as_well(
    stores: Callable[[], StateStore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A full disk is one line until there is space again, which is another one."""
    caplog.set_level(logging.INFO)
    runner = runner_of(Notes("hello"))
    store = stores()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(state_file.os, "write", full)
        for _ in range(3):
            save(store, runner)
    save(store, runner)

    assert errors(runner) == {"restore": 0, "save": 3}
    first, second = (record.getMessage() for record in caplog.records)
    assert "No space left on device; a restart would lose the history since the last save" in first
    assert second == "states are saved again"


def test_full_disk_does_not_prevent_a_restore(
    stores: Callable[[], StateStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process id cannot be written into the lock file, and the state is read."""
    save(stores(), runner_of(Notes("hello")))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_store.os, "pwrite", full)

    assert restored(stores()) == ["hello"]
