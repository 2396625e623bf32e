from __future__ import annotations

import signal
from pathlib import Path

import pytest

from servers import wait_until
from servers.exporter import Exporter, StartExporter
from stubs import TALLY, drop_in

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

    def start(self, collectors: str = _ONE, *flags: str, settings: str | None = None) -> Exporter:
        """Start an exporter."""
        return self._start(settings or self.settings(collectors), *flags)


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
    first = place.start(settings=settings)
    wait_until(lambda: count(first) >= 5, "five collections")
    stop(first)

    second = place.start(settings=settings)

    assert count(second) < 5
    assert errors(second, "save") is None
    assert list(place.state.iterdir()) == []


def test_two_exporters_do_not_share_a_folder(place: Place) -> None:
    """The second one serves, stores nothing, and tells which process uses the folder; it follows on the first."""
    first = place.start()
    wait_until(lambda: count(first) >= 5, "five collections")

    second = place.start()

    assert count(second) < 5
    assert errors(second, "restore") == 1
    (line,) = warnings(second)
    assert f"{place.state} is used by another exporter (process {first.popen.pid})" in line
    stop(second)
    assert not (place.state / "tally.state").exists()
    stop(first)
    third = place.start()
    assert count(third) > 5


def test_damaged_file_costs_only_the_history(place: Place) -> None:
    """A file that was cut off is ignored with one line, which names file, reason and consequence."""
    first = place.start()
    wait_until(lambda: count(first) >= 5, "five collections")
    stop(first)
    path = place.state / "tally.state"
    path.write_bytes(path.read_bytes()[:-20])

    second = place.start()

    assert count(second) < 5
    assert errors(second, "restore") == 1
    (line,) = warnings(second)
    assert f"state {path} is not used: it is damaged" in line
    assert "the collector starts without its history" in line


def test_file_of_another_broker_costs_only_the_history(place: Place) -> None:
    """A state whose identity is not that of the target is ignored when the target is known."""
    first = place.start()
    wait_until(lambda: count(first) >= 5, "five collections")
    stop(first)

    second = place.start("tally: {broker: b}")

    assert count(second) < 5
    assert errors(second, "restore") == 1
    (line,) = warnings(second)
    assert "it is of a, and the target is b" in line


def test_missing_folder_costs_no_sample(place: Place) -> None:
    """Without the folder everything is served, one line tells what to do, and a later save finds it."""
    place.state.rmdir()

    exporter = place.start()

    assert count(exporter) > 0
    (line,) = warnings(exporter)
    assert f"{place.state}/.lock: No such file or directory: create the folder" in line
    place.state.mkdir()
    stop(exporter)
    assert (place.state / "tally.state").exists()


def test_state_that_hangs_delays_neither_scrapes_nor_the_stop(place: Place) -> None:
    """A plug-in whose save_state hangs does not keep the process, and others are saved."""
    exporter = place.start("tally: [{name: good}, {name: bad, hangs: true}]")
    wait_until(lambda: count(exporter, target="good") >= 5, "five collections")

    stop(exporter)

    assert exporter.popen.returncode == 0
    assert sorted(path.name for path in place.state.glob("*.state")) == ["tally@good.state"]


def reload(exporter: Exporter, settings: str) -> None:
    """Have other settings loaded."""
    exporter.config.write_text(settings)
    status, text = exporter.get("/-/reload", method="POST")
    assert status == 200, text


@pytest.mark.parametrize(
    ("before", "after", "target"),
    [
        ("tally: {}", "tally: {}", ""),
        ("tally: {}", "tally: {other: 1}", ""),
        ("tally: {name: x}", "tally: {name: y}", "y"),
        ("tally: {}", "tally: {name: y}", "y"),
    ],
    ids=["unchanged", "other settings", "renamed", "named"],
)
def test_history_survives_a_reload(place: Place, before: str, after: str, target: str) -> None:
    """A collector with other settings, or another name, continues with the state of the one before."""
    exporter = place.start(before, "--web.enable-lifecycle")
    named = {"target": "x"} if "x" in before else {}
    wait_until(lambda: count(exporter, **named) >= 5, "five collections")

    reload(exporter, place.settings(after))

    assert count(exporter, **({"target": target} if target else {})) > 5
    assert errors(exporter, "restore", target) == 0
    assert warnings(exporter) == []
    stop(exporter)
    assert len(list(place.state.glob("*.state"))) == 1


def test_setting_can_be_added_and_removed_by_a_reload(place: Place) -> None:
    """From then on states are stored, or not; collectors that stay keep what they know."""
    without = place.settings().replace(f"state: {place.state}\n", "")
    exporter = place.start(_ONE, "--web.enable-lifecycle", settings=without)
    wait_until(lambda: count(exporter) >= 5, "five collections")

    reload(exporter, place.settings())
    added = errors(exporter, "save")
    known = count(exporter)
    reload(exporter, without)

    assert (added, errors(exporter, "save")) == (0, None)
    assert known > 5
    stop(exporter)
    assert not (place.state / "tally.state").exists()
