"""--config.auto-reload: a configuration file that changes is loaded, also in a ConfigMap's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bts_exporter.settings_watch import SettingsWatch
from servers import wait_until
from servers.exporter import StartExporter


class Clock:
    """A clock that stands still unless it is moved."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Watched:
    """A watched file, and the looks at it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        path.write_text("a")
        self.watch = SettingsWatch(path, self.clock)

    def look(self, seconds: float = 2.0, *, failed: bool = False) -> bool:
        """Return whether a reload is due after `seconds`."""
        self.clock.now += seconds
        return self.watch.due(failed=failed)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """Return a watched file in a folder of its own."""
    return Watched(tmp_path / "config.yaml")


def test_unchanged_file_is_not_loaded_again(watched: Watched) -> None:
    """Nothing is due while the file stays as it is."""
    assert [watched.look() for _ in range(100)] == [False] * 100


def test_changed_file_is_loaded_once(watched: Watched) -> None:
    """A change is due at the second look that finds it, and only then."""
    watched.path.write_text("changed")

    assert [watched.look() for _ in range(4)] == [False, True, False, False]


def test_file_that_is_being_written_is_not_loaded(watched: Watched) -> None:
    """A file that changes from look to look is loaded when it rests."""
    looks = []
    for size in range(2, 6):
        watched.path.write_text("x" * size)
        looks.append(watched.look())

    assert [*looks, watched.look()] == [False, False, False, False, True]


def test_deleted_file_changes_nothing(watched: Watched) -> None:
    """A file that is gone is not loaded, and one that comes back with other content is."""
    watched.path.unlink()
    assert [watched.look() for _ in range(3)] == [False] * 3

    watched.path.write_text("back again")
    assert [watched.look() for _ in range(2)] == [False, True]


def test_failed_reload_is_repeated_each_minute(watched: Watched) -> None:
    """Settings that failed are tried again a minute later, without a change of the file."""
    watched.path.write_text("changed")
    looks = [watched.look(failed=True) for _ in range(62)]

    assert [index for index, due in enumerate(looks) if due] == [1, 31, 61]


def test_configmap_that_changes(exporter: StartExporter) -> None:
    """New settings of a ConfigMap apply without a restart; a mistake in them keeps the previous ones."""
    process = exporter(settings("a"), "--config.auto-reload")
    assert process.value("redis_up", site="a") == 0

    exchange(process.config, settings("b"))
    wait_until(lambda: process.value("redis_up", site="b") == 0, "the new settings apply")

    exchange(process.config, "collectors: {redis: {nonsense: 1}}")
    wait_until(
        lambda: process.value("bts_exporter_config_last_reload_successful") == 0,
        "the mistake is reported",
    )
    assert process.value("redis_up", site="b") == 0


def settings(site: str) -> str:
    """Return settings whose series have the label `site`."""
    return f"collectors: {{redis: {{url: 'redis://127.0.0.1:1', labels: {{site: {site}}}}}}}"


def exchange(config: Path, text: str) -> None:
    """Change `config` as Kubernetes does: a link to a link to a folder, which is exchanged."""
    folder = config.parent
    version = folder / f"..version-{len(list(folder.iterdir()))}"
    version.mkdir()
    (version / config.name).write_text(text)
    new = folder / "..new"
    new.symlink_to(version.name)
    new.replace(folder / "..data")
    if not config.is_symlink():
        new.symlink_to(f"..data/{config.name}")
        os.replace(new, config)  # noqa: PTH105  # the link itself
