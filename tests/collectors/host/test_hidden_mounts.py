"""Real mounts whose path leads to another file system: they have no values, instead of wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bts_collectors.host.kernel.mount_tree import visible
from bts_collectors.host.subsystems.filesystem import parse
from servers import wait_until
from servers.exporter import Exporter, StartExporter
from servers.namespaces import MakeNamespace, Namespace, namespace

pytestmark = pytest.mark.live

__all__ = ["namespace"]

KIB = 1024


def sizes(server: Exporter, below: Path) -> dict[str, float]:
    """Return the sizes in KiB of the mounts below a directory, by relative path."""
    return {
        dict(labels)["mountpoint"].removeprefix(str(below)): value / KIB
        for (name, labels), value in server.samples("/metrics?collect[]=filesystem").items()
        if name == "node_filesystem_size_bytes" and str(below) in dict(labels)["mountpoint"]
    }


@pytest.fixture
def host(namespace: MakeNamespace, tmp_path: Path) -> Namespace:
    """Give a host with two tmpfs, one below the other."""
    (tmp_path / "mnt").mkdir()
    return namespace(
        f"mount -t tmpfs -o size=400k data {tmp_path}/mnt\n"
        f"mkdir {tmp_path}/mnt/sub {tmp_path}/mnt/new\n"
        f"mount -t tmpfs -o size=80k sub {tmp_path}/mnt/sub\n"
    )


@pytest.fixture
def procfs(host: Namespace, tmp_path: Path) -> Path:
    """Give a /proc whose first process is in the host's mount namespace."""
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "1").symlink_to(f"/proc/{host.popen.pid}")
    (folder / "self").symlink_to("/proc/self")
    return folder


def settings(procfs: Path, rootfs: str) -> str:
    """Return the settings of an exporter that sees the host through `rootfs`."""
    return f"collectors:\n  host: {{procfs: {procfs}, rootfs: {rootfs}}}\n"


def test_mount_on_a_parent_folder(
    host: Namespace, procfs: Path, exporter: StartExporter, tmp_path: Path
) -> None:
    """A mount that another on a directory above hides is left out, and is back when that is unmounted."""
    server = exporter(settings(procfs, f"/proc/{host.popen.pid}/root"))
    before = sizes(server, tmp_path)
    host.run(f"mount -t tmpfs -o size=120k over {tmp_path}/mnt; mkdir {tmp_path}/mnt/sub")
    hidden = sizes(server, tmp_path)
    host.run(f"umount {tmp_path}/mnt")

    assert before == {"/mnt": 400, "/mnt/sub": 80}
    assert hidden == {"/mnt": 120}
    assert sizes(server, tmp_path) == before


#: Runs a script in a new mount namespace with a propagation, then starts an exporter there.
Contained = Callable[[str, str], Exporter]


@pytest.fixture
def contained(
    host: Namespace,
    namespace: MakeNamespace,
    procfs: Path,
    exporter: StartExporter,
    tmp_path: Path,
) -> Contained:
    """Give a function that starts an exporter with the host's / mounted on /.../host."""
    (tmp_path / "host").mkdir()
    host.run("mount --make-rshared /")

    def start(propagation: str, script: str) -> Exporter:
        container = namespace(
            f"exec nsenter --mount=/proc/{host.popen.pid}/ns/mnt"
            f" unshare --mount --propagation {propagation}"
            f" sh -ec 'mount --rbind / {tmp_path}/host; {script}; echo ready; exec sleep 600'"
        )
        return exporter(settings(procfs, f"{tmp_path}/host"), enter=container.enter)

    return start


@pytest.mark.parametrize(("propagation", "new"), [("private", {}), ("slave", {"/mnt/new": 160})])
def test_mount_after_the_start_of_a_container(
    host: Namespace, contained: Contained, tmp_path: Path, propagation: str, new: dict[str, float]
) -> None:
    """A mount after the container's start has no values, unless it is propagated."""
    server = contained(propagation, "true")
    before = sizes(server, tmp_path)
    host.run(f"mount -t tmpfs -o size=160k new {tmp_path}/mnt/new")

    assert before == {"/mnt": 400, "/mnt/sub": 80}
    assert sizes(server, tmp_path) == before | new


def test_wrong_rootfs(contained: Contained, tmp_path: Path) -> None:
    """If none of the host's mounts is visible the collection fails, and the error has the setting."""
    server = contained("private", f"mount -t tmpfs none {tmp_path}/host")

    assert server.value("node_scrape_collector_success", collector="filesystem") == 0
    cure = "is `host.rootfs` the host's root file system?"
    wait_until(lambda: cure in server.log.read_text(), "the cure in the log")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("2 1 / | 3 2 /a | 4 2 /ab", ["2", "3", "4"]),
        ("2 1 / | 3 2 /a/b | 4 3 /a/b/c | 5 2 /a", ["2", "5"]),
        ("2 1 / | 3 2 /a | 4 3 /a | 5 3 /a/b | 6 4 /a/b", ["2", "4", "6"]),
        ("1 1 / | 2 1 / | 3 1 /a | 4 2 /a", ["2", "4"]),
        ("7 1 /a | 8 1 /a/b", ["7", "8"]),
        ("2 3 /a | 3 2 /a/b", ["2", "3"]),
    ],
)
def test_which_are_visible(lines: str, expected: list[str]) -> None:
    """The visible mounts are found by the parent of each mount."""
    rows = [line.split() for line in lines.split(" | ")]
    content = "".join(f"{n} {on} 8:1 / {point} rw - ext4 x rw\n" for n, on, point in rows)

    assert [mount.number.decode() for mount in visible(parse(content.encode())[0])] == expected


def test_many_mounts_on_one_point() -> None:
    """With many mounts on one point the last one is found."""
    content = "".join(f"{n + 1} {n} 8:1 / /a rw - ext4 x rw\n" for n in range(5000))

    assert [mount.number for mount in visible(parse(content.encode())[0])] == [b"5000"]
