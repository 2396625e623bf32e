from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from bts_collectors.host.subsystems.filesystem import (
    FS_TYPES_EXCLUDE,
    MOUNT_POINTS_EXCLUDE,
    Filesystem,
    FilesystemSettings,
    parse,
)
from bts_exporter import Duration, NotPresent, TargetError
from bts_exporter.testing import Samples, collect
from servers import wait_until

Machine = Callable[[dict[str, str]], dict[str, Any]]

FIGURES = os.statvfs_result((4096, 1024, 1000, 500, 400, 300, 200, 190, 0, 255))

ROOT = "29 1 259:2 / / rw,relatime shared:1 - ext4 /dev/dm-2 errors=remount-ro,data=ordered\n"
BOOT = "48 29 260:3 / /boot ro,relatime - ext2 /dev/sda3 rw\n"


def statvfs(path: bytes) -> os.statvfs_result:
    """Return the same result for every mount."""
    return FIGURES


def mounted(mountinfo: str) -> dict[str, str]:
    """Return the mountinfo of process 1."""
    return {"proc/1/mountinfo": mountinfo}


@pytest.fixture
def samples(machine: Machine) -> Iterator[Callable[..., Samples]]:
    """Give a function that collects from a mountinfo, with settings."""
    built = []

    def run(mountinfo: str, **settings: Any) -> Samples:
        config = Filesystem.Config(
            **machine(mounted(mountinfo)), settings=FilesystemSettings(**settings)
        )
        built.append(Filesystem(config, statvfs))
        return collect(built[-1])

    yield run
    for collector in built:
        collector.stop()


def points(samples: Mapping[str, Mapping[tuple[str, ...], float]]) -> list[str]:
    """Return the mount points."""
    return [labels[1] for labels in samples["node_filesystem_device_error"]]


def test_figures(samples: Callable[..., Samples]) -> None:
    """Sizes are in bytes, multiplied by the fragment size."""
    labels = ("/dev/dm-2", "/", "ext4", "")

    assert samples(ROOT) == {
        "node_filesystem_size_bytes": {labels: 1000 * 1024},
        "node_filesystem_free_bytes": {labels: 500 * 1024},
        "node_filesystem_avail_bytes": {labels: 400 * 1024},
        "node_filesystem_files": {labels: 300},
        "node_filesystem_files_free": {labels: 200},
        "node_filesystem_readonly": {labels: 0},
        "node_filesystem_device_error": {labels: 0},
        "node_filesystem_mount_info": {("/dev/dm-2", "259", "2", "/"): 1},
    }


def test_own_root(machine: Machine) -> None:
    """The real statvfs(2) is called for the root file system in the settings."""
    paths = machine(mounted(ROOT))
    Path(paths["rootfs"]).mkdir()
    collector = Filesystem(Filesystem.Config(**paths))

    found = collect(collector)["node_filesystem_size_bytes"]
    real = os.statvfs(paths["rootfs"])
    assert found == {("/dev/dm-2", "/", "ext4", ""): real.f_blocks * real.f_frsize}
    collector.stop()


@pytest.mark.parametrize(
    ("options", "super_options", "expected"),
    [
        ("rw,relatime", "rw,errors=remount-ro", 0),
        ("ro,relatime", "rw", 1),
        ("rw,relatime", "ro,data=ordered", 1),
        ("rw,relatime", "rw,emergency_ro", 1),
    ],
)
def test_readonly(
    samples: Callable[..., Samples], options: str, super_options: str, expected: int
) -> None:
    """A mount is read-only if its options, or those of its file system, say so, also after an emergency."""
    found = samples(f"29 1 8:1 / / {options} shared:1 master:2 - ext4 /dev/sda1 {super_options}\n")

    assert list(found["node_filesystem_readonly"].values()) == [expected]


def test_escapes(samples: Callable[..., Samples]) -> None:
    r"""Octal escapes are decoded in mount points and sources: spaces, tabs, newlines, backslashes."""
    found = samples(r"29 1 8:1 / /a\040b\011c\012d\134e\043f rw - ext4 //srv/x\040y rw" + "\n")

    assert [labels[:2] for labels in found["node_filesystem_files"]] == [
        ("//srv/x y", "/a b\tc\nd\\e#f")
    ]


def test_invalid_utf8(machine: Machine) -> None:
    """A name that is not UTF-8 is queried by its bytes, and its label can be rendered."""
    asked = []

    def listen(path: bytes) -> os.statvfs_result:
        asked.append(path)
        return FIGURES

    config = Filesystem.Config(**machine(mounted("29 1 8:1 / /\udcff rw - ext4 x rw\n")))
    collector = Filesystem(config, listen)
    (point,) = points(collect(collector))
    collector.stop()

    assert asked[0].endswith(b"/root/\xff")
    assert point.encode("utf-8", "backslashreplace") == b"/\\udcff"


def test_empty_source(samples: Callable[..., Samples]) -> None:
    """An empty source is an empty label, and does not shift the fields after it."""
    found = samples("29 1 0:25 / / rw - tmpfs  ro,size=4k\n")

    assert found["node_filesystem_readonly"] == {("", "/", "tmpfs", ""): 1}


def test_same_labels_once(samples: Callable[..., Samples]) -> None:
    """Mounts with the same labels are served once."""
    twice = BOOT + BOOT.replace("48 29", "49 29")

    assert points(samples(ROOT + twice)) == ["/", "/boot"]


def test_covered_mounts(samples: Callable[..., Samples]) -> None:
    """A mount that is hidden by another on the same point is left out: the values would be the other's."""
    over = "50 48 8:9 / /boot rw - xfs /dev/sdb rw\n"

    found = samples(ROOT + BOOT + over)
    assert [labels[0] for labels in found["node_filesystem_files"]] == ["/dev/dm-2", "/dev/sdb"]


def test_rootfs_prefix(machine: Machine) -> None:
    """The path of the root file system is removed from mount points that begin with it."""
    paths = machine({})
    root = paths["rootfs"]
    machine(
        mounted(
            f"29 1 8:1 / {root} rw - ext4 a rw\n"
            f"30 29 8:2 / {root}/home rw - ext4 b rw\n"
            f"31 29 8:3 / {root}less rw - ext4 c rw\n"
            f"32 29 8:4 / /srv rw - ext4 d rw\n"
        )
    )
    asked: list[str] = []

    def listen(path: bytes) -> os.statvfs_result:
        asked.append(path.decode())
        return FIGURES

    collector = Filesystem(Filesystem.Config(**paths), listen)
    assert points(collect(collector)) == ["/", "/home", f"{root}less", "/srv"]
    assert asked == [f"{root}/", f"{root}/home", f"{root}{root}less", f"{root}/srv"]
    collector.stop()


def test_default_excludes(samples: Callable[..., Samples]) -> None:
    """Mounts of the kernel and of containers are left out, by mount point or type."""
    rows = [("/dev/shm", "tmpfs"), ("/proc", "tmpfs"), ("/sys/x", "tmpfs"), ("/x", "overlay")]
    rows += [("/var/lib/docker/a/b", "ext4"), ("/run/credentials/a", "tmpfs"), ("/y", "cgroup2")]
    rows += [("/var/lib/docker", "ext4"), ("/device", "ext4"), ("/run", "tmpfs")]
    mountinfo = "".join(
        f"{n} 1 8:{n} / {point} rw - {kind} src{n} rw\n" for n, (point, kind) in enumerate(rows)
    )

    assert points(samples(mountinfo)) == ["/var/lib/docker", "/device", "/run"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mount_points_include": re.compile("^/(boot|dev)$")}, ["/boot", "/dev"]),
        ({"mount_points_exclude": re.compile("^/boot")}, ["/", "/dev"]),
        ({"fs_types_include": re.compile("^ext2$")}, ["/boot"]),
        ({"fs_types_exclude": re.compile("^ext2$")}, ["/"]),
    ],
)
def test_filter(
    samples: Callable[..., Samples], settings: dict[str, re.Pattern[str]], expected: list[str]
) -> None:
    """Mount points and types are selected by one of two expressions each, which replaces the default."""
    dev = "51 29 0:5 / /dev rw - tmpfs udev rw\n"

    assert points(samples(ROOT + BOOT + dev, **settings)) == expected


def test_defaults_of_node_exporter() -> None:
    """The default expressions are those of node_exporter."""
    assert all(FS_TYPES_EXCLUDE.search(kind) for kind in ("cgroup", "cgroup2", "erofs", "bpf"))
    assert not any(FS_TYPES_EXCLUDE.search(kind) for kind in ("ext4", "nfs4", "fuse.sshfs"))
    assert MOUNT_POINTS_EXCLUDE.search("/sys")
    assert not MOUNT_POINTS_EXCLUDE.search("/system")


def test_contradictory_settings() -> None:
    """Both expressions of a pair, and a timeout of 0, are errors."""
    pattern = re.compile("x")
    for pair in ("mount_points", "fs_types"):
        with pytest.raises(ValueError, match=f"{pair}_include and {pair}_exclude cannot"):
            FilesystemSettings(
                **cast("Any", {f"{pair}_include": pattern, f"{pair}_exclude": pattern})
            )
    with pytest.raises(ValueError, match="mount_timeout must be > 0"):
        FilesystemSettings(mount_timeout=Duration(0))


@pytest.mark.parametrize(
    ("error", "label"),
    [
        (OSError(errno.EACCES, "any text"), "permission denied"),
        (OSError(errno.ENOTCONN, "any text"), "transport endpoint is not connected"),
        (ValueError("embedded null byte"), "invalid path"),
    ],
)
def test_error_of_a_mount(machine: Machine, error: Exception, label: str) -> None:
    """A mount with an error has the error as a label, whether it is read-only, and no other series."""

    def refuse(path: bytes) -> os.statvfs_result:
        if path.endswith(b"boot"):
            raise error
        return FIGURES

    collector = Filesystem(Filesystem.Config(**machine(mounted(ROOT + BOOT))), refuse)
    found = collect(collector)
    collector.stop()

    labels = ("/dev/sda3", "/boot", "ext2", label)
    assert {name for name, values in found.items() if labels in values} == {
        "node_filesystem_device_error",
        "node_filesystem_readonly",
    }
    assert found["node_filesystem_device_error"][labels] == 1
    assert found["node_filesystem_readonly"][labels] == 1
    assert points({"node_filesystem_device_error": found["node_filesystem_size_bytes"]}) == ["/"]


def test_hanging_mount(machine: Machine) -> None:
    """A mount that hangs loses only its own series and occupies one thread; it is served again when it is back."""
    release = threading.Event()
    asked = []

    def hang(path: bytes) -> os.statvfs_result:
        if path.endswith(b"boot"):
            asked.append(path)
            release.wait()
        return FIGURES

    home = "52 29 8:7 / /home rw - ext4 /dev/sda7 rw\n"
    remote = BOOT.replace("ext2", "nfs4")
    config = Filesystem.Config(
        **machine(mounted(ROOT + remote + home)),
        settings=FilesystemSettings(mount_timeout=Duration(0.3)),
    )
    collector = Filesystem(config, hang)
    try:
        for _ in range(3):
            found = collect(collector)
            assert points({"node_filesystem_device_error": found["node_filesystem_files"]}) == [
                "/",
                "/home",
            ]
            stuck = ("/dev/sda3", "/boot", "nfs4", "mountpoint timeout")
            assert found["node_filesystem_device_error"][stuck] == 1
        assert len(asked) == 1
    finally:
        release.set()
    wait_until(lambda: len(collect(collector)["node_filesystem_files"]) == 3, "the mount is back")
    collector.stop()


@pytest.mark.parametrize(
    ("mounts", "waiting"),
    [
        ({"/": "ext4", "/a/b": "nfs4"}, ["/a/b"]),
        ({"/": "ext4", "/a": "nfs4", "/a/b": "ext4", "/a/b/c": "xfs", "/ab": "xfs"}, ["/a", "/a/b", "/a/b/c"]),
        ({"/": "overlay", "/a": "ext4"}, ["/a"]),
        ({"/": "ext4", "/a": "autofs", "/a/b": "tmpfs", "/b": "something"}, ["/a/b", "/b"]),
    ],
)  # fmt: skip
def test_mounts_that_are_queried_in_a_thread(
    machine: Machine, mounts: dict[str, str], waiting: list[str]
) -> None:
    """Mounts of other types, and mounts below them, are queried in a thread."""
    asked: dict[str, bool] = {}

    def listen(path: bytes) -> os.statvfs_result:
        asked[path.decode()] = threading.current_thread() is threading.main_thread()
        return FIGURES

    mountinfo = "".join(
        f"{number} 1 8:{number} / {point} rw - {kind} s rw\n"
        for number, (point, kind) in enumerate(mounts.items(), 2)
    )
    paths = machine(mounted(mountinfo)) | {"rootfs": "/"}
    collector = Filesystem(Filesystem.Config(**paths), listen)
    collect(collector)
    collector.stop()

    assert [path for path, at_once in asked.items() if not at_once] == waiting
    assert asked.keys() >= {point for point, kind in mounts.items() if kind in {"ext4", "xfs"}}


def test_other_root_queries_all_in_a_thread(machine: Machine) -> None:
    """With another root file system all mounts are queried in a thread."""
    asked: list[str] = []

    def listen(path: bytes) -> os.statvfs_result:
        asked.append(threading.current_thread().name)
        return FIGURES

    collector = Filesystem(Filesystem.Config(**machine(mounted(ROOT + BOOT))), listen)
    collect(collector)
    collector.stop()

    assert asked == ["bts-statvfs", "bts-statvfs"]


def test_mounts_are_followed(machine: Machine) -> None:
    """A mount that is added, removed or turns read-only is noticed in the next scrape."""
    collector = Filesystem(Filesystem.Config(**machine(mounted(ROOT))), statvfs)
    assert points(collect(collector)) == ["/"]

    machine(mounted(ROOT + BOOT))
    assert points(collect(collector)) == ["/", "/boot"]

    machine(mounted(ROOT.replace("rw,", "ro,")))
    assert collect(collector)["node_filesystem_readonly"] == {("/dev/dm-2", "/", "ext4", ""): 1}
    collector.stop()


@pytest.mark.parametrize("first", [{}, {"proc/1/mountinfo/unreadable": ""}])
def test_hidden_first_process(machine: Machine, first: dict[str, str]) -> None:
    """If process 1 is hidden or unreadable, the exporter's own mounts are used."""
    collector = Filesystem(
        Filesystem.Config(**machine({"proc/self/mountinfo": ROOT} | first)),
        statvfs,
    )

    assert points(collect(collector)) == ["/"]
    collector.stop()


def test_absent(machine: Machine) -> None:
    """Without /proc there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc/self/mountinfo is absent"):
        collect(Filesystem(Filesystem.Config(**machine({}))))


def test_unreadable_lines(machine: Machine) -> None:
    """The mounts around an unreadable line are served in each scrape, and each reports the line."""
    collector = Filesystem(
        Filesystem.Config(**machine(mounted(f"{ROOT}what is this\n{BOOT}"))), statvfs
    )

    for _ in range(2):
        with pytest.raises(
            TargetError, match="/proc/1/mountinfo: unexpected content: 'what is this'"
        ):
            collect(collector)
    assert [mount.point for mount in parse(f"{ROOT}x\n{BOOT}".encode())[0]] == [b"/", b"/boot"]
    collector.stop()


def test_empty(machine: Machine) -> None:
    """A mountinfo without a mount is an error."""
    with pytest.raises(TargetError, match="/proc/1/mountinfo: is empty"):
        collect(Filesystem(Filesystem.Config(**machine(mounted("")))))
