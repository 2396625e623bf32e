"""Collectors that do what a test says, plug-ins written to disk, and what runs them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

import bts_exporter
from bts_exporter import Collector, CollectorConfig, Scrape, gauge
from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.collection.runner import Runner, Snapshot
from bts_exporter.collection.worker import Worker
from bts_exporter.settings.loader import Common

AnyRunner = TypeVar("AnyRunner", bound=Runner)
Behaviour = Callable[[Scrape], None]

#: A plug-in that records its start and stop in the file of its settings.
DIARY = """\
from bts_exporter import Collector, CollectorConfig, gauge

class Diary(Collector):
    class Config(CollectorConfig):
        path: str
        version: int = 1
    entries = gauge("diary_version", "Of the settings.")
    def _note(self, word):
        with open(self.config.path, "a") as file:
            file.write(f"{word}{self.config.version} ")
    def start(self):
        self._note("start")
    def stop(self):
        self._note("stop")
    def collect(self, scrape):
        scrape.emit(self.entries, self.config.version)
"""
QUIET = """\
from bts_exporter import Collector, gauge

class Quiet(Collector):
    value = gauge("quiet", "Nothing to say.")
    def collect(self, scrape):
        scrape.emit(self.value, 1)
"""

#: A plug-in that counts its collections and remembers when the first one was.
TALLY = """\
import time
from msgspec import Struct
from bts_exporter import Collector, CollectorConfig, gauge

class Tally(Collector):
    class Config(CollectorConfig):
        broker: str = "a"
        hangs: bool = False
        other: int = 0
    class State(Struct):
        count: int
        first: float
    total = gauge("tally", "Collections.")
    age = gauge("tally_age_seconds", "Since the first collection.")
    state = None
    def collect(self, scrape):
        if self.state is None:
            found = self.restore(self.config.broker)
            if found is None:
                self.state = Tally.State(0, time.monotonic())
            else:
                self.state = Tally.State(found.state.count, found.state.first + found.shift)
        self.state.count += 1
        scrape.emit(self.total, self.state.count)
        scrape.emit(self.age, time.monotonic() - self.state.first)
    def save_state(self):
        if self.config.hangs:
            time.sleep(600)
        return None if self.state is None else (self.config.broker, self.state)
COLLECTOR = Tally
"""

#: The example of the design, as plug-in authors are shown it.
SPOOLDIR = '''\
from pathlib import Path

from bts_exporter import Collector, CollectorConfig, Scrape, gauge


class SpoolDir(Collector):
    """Files waiting in a spool directory."""
    class Config(CollectorConfig):
        path: str
        pattern: str = "*"
    files = gauge("spool_files", "Files waiting in the spool directory.", labels=("path",))
    def collect(self, scrape: Scrape) -> None:
        scrape.emit(self.files, len(list(Path(self.config.path).glob(self.config.pattern))), self.config.path)
'''


class Stub(Collector):
    """Does in `collect`, `start` and `stop` what the test says."""

    value = gauge("stub_value", "A value.")
    series = gauge("stub_series", "A value for each key.", labels=("key",))

    def __init__(
        self,
        behave: Behaviour | None = None,
        *,
        start: Callable[[], None] = lambda: None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(CollectorConfig())
        self.behave = behave or self.emit_value
        self.collections = 0
        self._start = start
        self._stop = stop

    def emit_value(self, scrape: Scrape) -> None:
        """Emit one sample."""
        scrape.emit(self.value, 1)

    def collect(self, scrape: Scrape) -> None:
        """Do what the test says."""
        self.collections += 1
        self.behave(scrape)


class Pushed(Stub):
    """One with something to do between scrapes."""

    def start(self) -> None:
        """Do what the test says."""
        self._start()

    def stop(self) -> None:
        """Do what the test says."""
        self._stop()


class LocalStub(Stub):
    """One that says of itself that it cannot hang."""

    local = True


SERIES = {Stub.series: {("a",): 1, ("b",): 2}}


def emit_two(scrape: Scrape) -> None:
    """Emit SERIES."""
    scrape.emit(Stub.series, 1, "a")
    scrape.emit(Stub.series, 2, "b")


class Hang:
    """A behaviour that begins, and ends when it is let."""

    def __init__(self, before: Behaviour | None = None, after: Behaviour | None = None) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self._before = before
        self._after = after

    def __call__(self, scrape: Scrape | None = None) -> None:
        """Wait, and do what was given for before and after that."""
        if self._before and scrape:
            self._before(scrape)
        self.begun.set()
        assert self.go_on.wait(600)  # longer than any test, so that none passes because it ended
        if self._after and scrape:
            self._after(scrape)

    def end(self) -> None:
        """Let it end."""
        self.go_on.set()


def with_worker(runner: AnyRunner) -> AnyRunner:
    """Give `runner` a worker, as a set does; `CollectorSet.stop` ends both."""
    runner.bind(Worker(f"bts-{runner.identity}"), exclusive=True)
    return runner


@contextmanager
def runner_of(collector: Collector, **common: Any) -> Iterator[Runner]:
    """Run one collector of type `stub`, the settings common to all given as they are."""
    with collectors(("stub", collector, common)) as (_, [runner]):
        yield runner


@contextmanager
def collectors(
    *members: tuple[str, Collector] | tuple[str, Collector, dict[str, Any]],
) -> Iterator[tuple[CollectorSet, list[Runner]]]:
    """Run several, each with its type's name; when the block ends, those that hang are let go."""
    together = CollectorSet()
    runners = [
        together.add(collector, kind, Common(**(common[0] if common else {})))
        for kind, collector, *common in members
    ]
    for runner in runners:
        runner.start()
    try:
        yield together, runners
    finally:
        for runner in runners:
            behave = getattr(runner.collector, "behave", None)
            if isinstance(behave, Hang):
                behave.go_on.set()
        for last in together.stop(runners):
            last.wait(60)
        together.close()


def collect(runner: Runner) -> Snapshot:
    """Have it collect, with all the time it wants, and return what it has to show."""
    deadline = time.monotonic() + 60
    run = runner.begin(deadline)
    run.wait(deadline)
    return runner.snapshot(run)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return level and text of the log lines so far, and forget them."""
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def drop_in(folder: Path, name: str, source: str = SPOOLDIR) -> Path:
    """Write a plug-in into a folder that other users cannot write to, and return its path."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    path = folder / f"{name}.py"
    path.write_text(source)
    path.chmod(0o644)
    return path


def configure(folder: Path, collectors: str) -> None:
    """Write `config.yaml`: the plug-ins of its folder, and what stands in the map of collectors."""
    (folder / "config.yaml").write_text(f"plugins: plugins\ncollectors: {{{collectors}}}\n")


def install(folder: Path, entry_point: str, source: str, *, version: str = "1.2") -> None:
    """Lay out an installed distribution `extra` in `folder`: `entry_point` as `name = module:object`."""
    module = entry_point.partition("=")[2].strip().partition(":")[0]
    (folder / f"{module}.py").write_text(source)
    metadata = folder / f"{module}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n"
    )
    (metadata / "entry_points.txt").write_text(f"[bts_exporter.collectors]\n{entry_point}\n")


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which a new Python imports what this one does."""
    own = Path(bts_exporter.__file__).parents[1]
    roots = dict.fromkeys(str(Path(entry).resolve()) for entry in (own, *sys.path) if entry)
    silent = (
        "PYTHONUNBUFFERED",
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "WATCHDOG_USEC",
        "CREDENTIALS_DIRECTORY",
    )
    kept = {key: value for key, value in os.environ.items() if key not in silent}
    return {**kept, "PYTHONPATH": os.pathsep.join(roots), **more}
