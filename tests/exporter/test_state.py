from __future__ import annotations

import signal
from pathlib import Path

import pytest

from servers import wait_until
from servers.exporter import Exporter, StartExporter
from stubs import drop_in

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
_ONE = "tally: {}"


class Place:
    """A folder with the plug-in, and one for states."""

    def __init__(self, folder: Path, start: StartExporter) -> None:
        self.plugins = folder / "plugins"
        drop_in(self.plugins, "tally", TALLY)
        self.state = folder / "state"
        self.state.mkdir()
        self._start = start

    def settings(self, collectors: str = _ONE) -> str:
        """Return settings with the states in the folder."""
        return f"plugins: {self.plugins}\nstate: {self.state}\ncollectors:\n  {collectors}\n"

    def start(self, collectors: str = _ONE) -> Exporter:
        """Start an exporter."""
        return self._start(self.settings(collectors))


@pytest.fixture
def place(tmp_path: Path, exporter: StartExporter) -> Place:
    """Return a folder with a plug-in that has a state."""
    return Place(tmp_path, exporter)


def stop(exporter: Exporter) -> str:
    """End an exporter as systemd does; return its log."""
    exporter.popen.send_signal(signal.SIGTERM)
    exporter.popen.wait(timeout=60)
    return exporter.log.read_text()


def count(exporter: Exporter, **labels: str) -> float:
    """Return the collections that the plug-in has counted, the one of this scrape included."""
    found = exporter.value("tally", **labels)
    assert found is not None
    return found


def errors(exporter: Exporter, operation: str, target: str = "") -> float | None:
    """Return how often a state could not be used or saved."""
    return exporter.value(
        "bts_exporter_state_errors_total", collector="tally", target=target, operation=operation
    )


def warnings(exporter: Exporter) -> list[str]:
    """Return the lines of the log that are about states and not good news."""
    return [line for line in exporter.log.read_text().splitlines() if "WARN" in line.upper()]


def test_history_continues_after_a_restart(place: Place) -> None:
    """What a collector stored at the end is there after the next start, with its times on the new clock."""
    first = place.start()
    wait_until(lambda: count(first) >= 5, "five collections")
    stop(first)

    second = place.start()

    assert count(second) > 5
    age = second.value("tally_age_seconds")
    assert age is not None
    assert age > 0
    assert errors(second, "restore") == errors(second, "save") == 0
    assert warnings(second) == []
    assert (place.state / "tally.state").stat().st_mode & 0o777 == 0o600


def test_nothing_is_stored_without_the_setting(place: Place) -> None:
    """Without `state`, a restart begins without history, and no metric tells about it."""
    settings = place.settings().replace(f"state: {place.state}\n", "")
    first = place._start(settings)  # of this file
    wait_until(lambda: count(first) >= 5, "five collections")
    stop(first)

    second = place._start(settings)  # of this file

    assert count(second) < 5
    assert errors(second, "save") is None
    assert list(place.state.iterdir()) == []
