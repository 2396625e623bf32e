"""Only code that root or our own user wrote is executed, whatever path leads to it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bts_exporter.collection import plugin_file
from bts_exporter.collection.registry import Registry
from bts_exporter.errors import PluginError
from stubs import drop_in, environment

ANOTHER = 12345
#: A plug-in that leaves a mark when it is imported.
MARKS = """\
from pathlib import Path
from bts_exporter import Collector, gauge

Path({mark!r}).touch()

class Marks(Collector):
    value = gauge("marks", "A value.")
    def collect(self, scrape):
        scrape.emit(self.value, 1)
"""
as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="not everywhere: only root can give files to another user"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a drop-in folder with a plug-in, below a folder of its own."""
    (tmp_path / "etc").mkdir(mode=0o755)
    drop_in(tmp_path / "etc" / "plugins", "spool")
    return tmp_path / "etc" / "plugins"


def refusal(path: Path) -> str:
    """Return why a file is refused."""
    with pytest.raises(PluginError) as caught:
        plugin_file.read(path)
    return str(caught.value)


# The file


def test_file_is_read(folder: Path) -> None:
    """The content of a file that only we can write is returned."""
    assert b"class SpoolDir" in plugin_file.read(folder / "spool.py")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_file_that_others_can_write(folder: Path, mode: int) -> None:
    """A file that others could change is not run."""
    path = folder / "spool.py"
    path.chmod(mode)

    assert (
        refusal(path) == f"{path} is writable by other users (mode {mode:04o}): chmod go-w {path}"
    )


def test_link_to_a_file(folder: Path) -> None:
    """A symbolic link is not followed, wherever it leads, and the message says what to do."""
    path = folder / "linked.py"
    path.symlink_to("spool.py")

    assert refusal(path) == (
        f"{path} is a symbolic link: copy the file, or let `plugins` name the folder it is in"
    )


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_not_a_file(folder: Path, make: Callable[[Path, int], None]) -> None:
    """A named pipe does not block the process, and a folder is not a plug-in."""
    path = folder / "odd.py"
    make(path, 0o700)

    assert refusal(path) == f"{path} is not a regular file"


@as_root
def test_file_of_another_user(folder: Path) -> None:
    """Code that belongs to another user than root and ours is not run."""
    path = folder / "spool.py"
    os.chown(path, ANOTHER, -1)

    assert refusal(path) == (
        f"{path} belongs to user {ANOTHER}: chown it to root or to the user that runs bts-exporter"
    )


@as_root
def test_file_of_our_own_or_roots(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of the process and root may provide code."""
    os.chown(folder / "spool.py", ANOTHER, -1)
    monkeypatch.setattr(os, "geteuid", lambda: ANOTHER)

    assert plugin_file.read(folder / "spool.py")


# The folders


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777, 0o1775])
def test_folder_that_others_can_write(folder: Path, mode: int) -> None:
    """A plug-in folder that others can write to is refused, even with the sticky bit: they could add files."""
    folder.chmod(mode)

    assert refusal(folder / "spool.py") == (
        f"{folder} is writable by other users (mode {mode:04o}): chmod go-w {folder}"
    )


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_folder_below_one_that_others_can_write(folder: Path, mode: int) -> None:
    """A folder above the plug-ins that others can write to is refused: they could replace the plug-in folder."""
    folder.parent.chmod(mode)

    assert refusal(folder / "spool.py") == (
        f"{folder.parent} is writable by other users (mode {mode:04o}): chmod go-w {folder.parent}"
    )


def test_folder_below_a_sticky_one(folder: Path) -> None:
    """A folder above may have the sticky bit, like /tmp."""
    folder.parent.chmod(0o1777)

    assert plugin_file.read(folder / "spool.py")


@as_root
@pytest.mark.parametrize("depth", [0, 1])
def test_folder_of_another_user(folder: Path, depth: int) -> None:
    """The owner of a folder can change it at any time, also that of one further up."""
    belongs = (folder, folder.parent)[depth]
    os.chown(belongs, ANOTHER, -1)

    assert refusal(folder / "spool.py") == (
        f"{belongs} belongs to user {ANOTHER}: chown it to root or to the user that runs bts-exporter"
    )


@as_root
def test_sticky_folder_of_another_user(folder: Path) -> None:
    """The sticky bit does not bind the owner of the folder."""
    folder.parent.chmod(0o1777)
    os.chown(folder.parent, ANOTHER, -1)

    assert f"{folder.parent} belongs to user {ANOTHER}" in refusal(folder / "spool.py")


def test_link_to_a_folder(folder: Path, tmp_path: Path) -> None:
    """The plug-in folder may be a symbolic link, absolute or relative, and its path may have `..`."""
    (tmp_path / "absolute").symlink_to(folder)
    (tmp_path / "relative").symlink_to("etc/../etc/plugins")

    for name in ("absolute", "relative", "etc/../relative"):
        assert plugin_file.read(tmp_path / name / "spool.py")


def test_link_into_a_folder_that_others_can_write(folder: Path, tmp_path: Path) -> None:
    """Every folder on the way of a symbolic link is checked."""
    (tmp_path / "link").symlink_to(folder)
    folder.parent.chmod(0o777)

    assert f"{folder.parent} is writable by other users" in refusal(tmp_path / "link" / "spool.py")


@as_root
def test_link_of_another_user(folder: Path, tmp_path: Path) -> None:
    """A link of another user is refused, even if it leads to a safe folder."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "link").symlink_to(folder)
    os.chown(shared / "link", ANOTHER, -1, follow_symlinks=False)

    assert refusal(shared / "link" / "spool.py") == (
        f"{shared}/link belongs to user {ANOTHER}: chown it to root or to the user that runs bts-exporter"
    )


def test_links_in_a_circle(tmp_path: Path) -> None:
    """A loop of links is an error of the plug-in."""
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")

    with pytest.raises(OSError, match="symbolic links"):
        plugin_file.read(tmp_path / "one" / "spool.py")


def test_no_descriptor_is_left_open(folder: Path) -> None:
    """Neither a file that is read nor one that is refused keeps a file descriptor."""
    (folder / "linked.py").symlink_to("spool.py")
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(10):
        plugin_file.read(folder / "spool.py")
        refusal(folder / "linked.py")

    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Attacks


def test_folder_that_is_exchanged_while_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    """A path that alternates between a safe and an unsafe folder never loads the unsafe code."""
    evil = tmp_path / "evil"
    drop_in(evil, "spool", "evil")
    evil.chmod(0o777)
    link, ended = tmp_path / "link", threading.Event()

    def exchange() -> None:
        while not ended.is_set():
            for target in (folder, evil):
                (tmp_path / "next").symlink_to(target)
                (tmp_path / "next").rename(link)

    link.symlink_to(folder)
    attacker = threading.Thread(target=exchange)
    attacker.start()
    found = set()
    try:
        for _ in range(2000):
            try:
                found.add(plugin_file.read(link / "spool.py"))
            except PluginError:
                found.add(b"refused")
    finally:
        ended.set()
        attacker.join()

    assert b"evil" not in found
    assert len(found) == 2


@pytest.mark.parametrize("attack", ["link", "folder above", "sticky folder"])
def test_code_of_others_does_not_run(folder: Path, tmp_path: Path, attack: str) -> None:
    """The process serves everything else, reports the unsafe file, and does not execute it."""
    mark, shared = tmp_path / "mark", tmp_path / "shared"
    drop_in(shared, "marks", MARKS.format(mark=str(mark)))
    plugins = {"link": folder, "folder above": shared / "plugins", "sticky folder": shared}[attack]
    if attack == "link":
        (folder / "marks.py").symlink_to(shared / "marks.py")
    elif attack == "folder above":
        drop_in(plugins, "marks", MARKS.format(mark=str(mark)))
    shared.chmod(0o1777 if attack == "sticky folder" else 0o777)
    config = tmp_path / "config.yaml"
    config.write_text(f"plugins: {plugins}\ncollectors: {{marks: , host: {{}}}}\n")

    done = subprocess.run(
        [sys.executable, "-m", "bts_exporter", f"--config.file={config}", "once"],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 'bts_exporter_collector_success{collector="marks",target=""} 0\n' in done.stdout
    assert "node_load1 " in done.stdout
    assert "type marks" in done.stderr
    assert not mark.exists()


def test_registry_reads_files_this_way(folder: Path) -> None:
    """A type in a folder that is not safe is broken, with the cure in its message."""
    folder.chmod(0o777)

    with pytest.raises(
        PluginError, match=f"is broken: {folder} is writable by other users .*: chmod go-w"
    ):
        Registry(folder).load("spool")


def test_unsafe_file_takes_no_installed_type_away(folder: Path) -> None:
    """A file in an unsafe folder does not disable an installed type of the same name."""
    drop_in(folder, "redis")
    (folder / "redis.py").chmod(0o666)

    assert Registry(folder).load("redis").__name__ == "RedisCollector"


def test_names_that_cannot_be_printed_are_no_types(folder: Path) -> None:
    """File names with control characters or invalid encoding are not printed."""
    for name in (b"a\x1b[2J.py", b"b\xff.py", b"c\n.py"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("")

    assert {name[0] for name in Registry(folder).names()} & {"a", "b", "c"} == set()
