"""What a failed collection held is freed, whatever keeps its error."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from bts_exporter import NotPresent, Scrape
from bts_exporter.collection.background import BackgroundRunner
from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.errors import forget_frames
from bts_exporter.exposition.formats import Format
from bts_exporter.page_service import Exporter
from bts_exporter.settings.loader import Common
from servers import wait_until
from servers.exporter import Exporter as Process
from servers.exporter import StartExporter
from stubs import Stub, collect, collectors, drop_in, runner_of, with_worker

MEGABYTES = 6
#: Raises while its frame holds megabytes, and keeps the error as its settings say.
HOLDING = """\
import os
from concurrent.futures import ThreadPoolExecutor
from bts_exporter import Collector, CollectorConfig, NotPresent, TargetError, gauge

KEPT = []

def fail(data):
    copy = bytes(data)
    raise ValueError(len(copy))

class Holding(Collector):
    class Config(CollectorConfig):
        keeps: str
        megabytes: int
    value = gauge("holding_value", "A value.")
    same = ValueError("the same at each collection")
    def collect(self, scrape):
        data = bytearray(os.urandom(self.config.megabytes << 20))
        scrape.emit(self.value, 1)
        getattr(self, self.config.keeps)(data)
    def nothing(self, data):
        fail(data)
    def error(self, data):
        KEPT.append(ValueError("kept"))
        raise KEPT[-1]
    def one(self, data):
        raise self.same
    def cycle(self, data):
        error = ValueError("in a cycle")
        error.itself = error
        raise error
    def cause(self, data):
        try:
            fail(data)
        except ValueError as error:
            KEPT.append(error)
            raise TargetError("protocol", "not understood") from error
    def context(self, data):
        try:
            fail(data)
        except ValueError as error:
            KEPT.append(error)
            raise RuntimeError("while handling another")
    def hidden(self, data):
        try:
            fail(data)
        except ValueError as error:
            KEPT.append(error)
            raise RuntimeError("instead of another") from None
    def group(self, data):
        try:
            fail(data)
        except ValueError as error:
            KEPT.append(error)
        raise ExceptionGroup("several", [KEPT[-1], ValueError("another")])
    def future(self, data):
        with ThreadPoolExecutor(1) as pool:
            KEPT.append(pool.submit(fail, data))
            KEPT[-1].result()
    def absence(self, data):
        KEPT.append(NotPresent("partly"))
        raise KEPT[-1]
"""
WAYS = (
    "nothing", "error", "one", "cycle", "cause", "context", "hidden", "group", "future", "absence",
)  # fmt: skip


def resident(process: Process) -> float:
    """Return the resident memory of a process, in MB."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.parametrize("level", ["info", "debug"])
def test_memory_does_not_grow_with_failures(
    exporter: StartExporter, tmp_path: Path, level: str
) -> None:
    """After fifty failed scrapes the process has as much memory as after five, tracebacks logged or not."""
    drop_in(tmp_path / "plugins", "holding", HOLDING)
    blocks = ", ".join(f"{{name: {w}, keeps: {w}, megabytes: {MEGABYTES}}}" for w in WAYS)
    settings = f"plugins: {tmp_path}/plugins\ncollectors: {{holding: [{blocks}]}}\n"
    server = exporter(settings, f"--log.level={level}")

    for _ in range(5):
        samples = server.samples()
    before = resident(server)
    for _ in range(45):
        samples = server.samples()

    success = [
        value for (name, _), value in samples.items() if name == "bts_exporter_collector_success"
    ]
    assert sorted(success) == [0] * (len(WAYS) - 1) + [1]
    # If one was kept each time, it would be 270 MB.
    assert resident(server) - before < 10 * MEGABYTES


class Held:
    """What the frames of a failing collection hold."""


class Failing:
    """A behaviour whose frame holds an object when it raises; only the error is kept."""

    def __init__(self, error: type[BaseException] = ValueError) -> None:
        self.errors: list[BaseException] = []
        self.held: list[weakref.ref[Held]] = []
        self._error = error

    def __call__(self, scrape: Scrape) -> None:
        """Hold, and raise."""
        held = Held()
        self.held.append(weakref.ref(held))
        scrape.emit(Stub.value, 1)
        self.errors.append(self._error("kept"))
        raise self.errors[-1]

    def holds(self) -> list[bool]:
        """Return for each collection whether its object is still held."""
        return [ref() is not None for ref in self.held]


@pytest.mark.parametrize("error", [ValueError, SystemExit, NotPresent, RecursionError])
def test_error_that_is_kept_holds_no_frames(error: type[BaseException]) -> None:
    """A kept error keeps nothing of its collection alive."""
    failing = Failing(error)
    gc.disable()
    try:
        with runner_of(Stub(failing)) as runner:
            shots = [collect(runner) for _ in range(3)]

            assert [shot.series for shot in shots] == [1] * 3
            assert failing.holds() == [False] * 3
            assert [error.__traceback__ for error in failing.errors] == [None] * 3
    finally:
        gc.enable()


def test_collections_in_the_background_hold_no_frames() -> None:
    """A kept error of a collection in the background keeps nothing of it alive."""
    failing = Failing()
    runner = with_worker(BackgroundRunner(Stub(failing), "stub", Common(), 0.01))
    runner.start()
    try:
        wait_until(lambda: len(failing.held) > 5, "it failed several times")
    finally:
        CollectorSet.stop([runner])
        runner.worker.wait(60)

    assert not any(failing.holds())


def test_page_that_fails_is_kept_by_no_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """An internal error of a shared page keeps nothing of the page alive."""
    exporter = Exporter()
    held: list[weakref.ref[Held]] = []

    def broken(*_: object) -> None:
        thing = Held()
        held.append(weakref.ref(thing))
        raise ZeroDivisionError

    monkeypatch.setattr("bts_exporter.page_service.parts_of", broken)
    gc.disable()
    try:
        with collectors(("one", Stub())) as (together, runners):
            exporter.collectors = together
            with pytest.raises(ZeroDivisionError):
                exporter.page(runners, Format.TEXT)
        assert [ref() is not None for ref in held] == [False] * len(held)
    finally:
        gc.enable()


def test_error_with_a_circle_of_causes() -> None:
    """Errors that caused each other are each detached once."""
    first, second = ValueError("first"), ValueError("second")
    try:
        try:
            raise first
        except ValueError:
            raise second from first
    except ValueError:
        first.__cause__ = second

    forget_frames(second)

    assert (first.__traceback__, second.__traceback__) == (None, None)


def test_generator_that_raised_an_error_goes_on() -> None:
    """A generator that caught the error, and is still in use, is left as it is."""

    def numbers() -> Iterator[BaseException | int]:
        try:
            int("no number")
        except ValueError as error:
            yield error
        yield 2

    generator = numbers()
    error = next(generator)
    assert isinstance(error, ValueError)

    forget_frames(error)

    assert list(generator) == [2]
