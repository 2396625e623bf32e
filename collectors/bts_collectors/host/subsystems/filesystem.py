"""How full the mounted file systems are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from bts_collectors.host.kernel.files import MOST, lines, naming, text, unreadable
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.mount_tree import visible, way
from bts_collectors.host.kernel.statvfs_pool import Answer, StatvfsPool
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import (
    CollectorConfig,
    Duration,
    NameFilter,
    NothingToRead,
    Scrape,
    TargetError,
    gauge,
)

#: What is left out where the settings do not say: what belongs to the kernel and to containers.
MOUNT_POINTS_EXCLUDE = re.compile(
    r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)"
)
FS_TYPES_EXCLUDE = re.compile(
    r"^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660"
    r"|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs"
    r"|tracefs)$"
)

#: Types whose figures the kernel has in memory: neither a server nor a device is asked. They need no
#: thread of their own, whose two changes take as long as asking twenty mounts.
_IN_MEMORY = frozenset(("ext2", "ext3", "ext4", "xfs", "tmpfs", "ramfs"))

#: How much of the time that a scrape has left is given to waiting for mounts.
_SHARE = 0.9

_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")

_MOUNT = ("device", "mountpoint", "fstype", "device_error")


class FilesystemSettings(CollectorConfig, frozen=True):
    """Settings of `filesystem`."""

    mount_points_include: re.Pattern[str] | None = None
    mount_points_exclude: re.Pattern[str] | None = None
    fs_types_include: re.Pattern[str] | None = None
    fs_types_exclude: re.Pattern[str] | None = None
    mount_timeout: Duration = Duration(5)

    def __post_init__(self) -> None:
        """Raise ValueError where both expressions of a pair are set, or there is no time to answer."""
        NameFilter.check_exclusive(
            "mount_points", self.mount_points_include, self.mount_points_exclude
        )
        NameFilter.check_exclusive("fs_types", self.fs_types_include, self.fs_types_exclude)
        if not self.mount_timeout > 0:
            msg = "mount_timeout must be above 0"
            raise ValueError(msg)


class Mount(NamedTuple):
    """A line of mountinfo; the mount point as it is spelled for the system, without escapes."""

    number: bytes
    parent: bytes
    major: str
    minor: str
    point: bytes
    read_only: bool
    fstype: str
    source: str


class _Target(NamedTuple):
    """A mount that is wanted, with its point as seen from the root file system that is ours."""

    mount: Mount
    path: bytes
    labels: tuple[str, str, str]
    #: Whether it answers at once, and every mount on the way to it.
    at_once: bool

    @property
    def key(self) -> tuple[bytes, bytes]:
        """Return what tells it from a mount that had its path before."""
        return self.mount.number, self.path


class Filesystem(Subsystem):
    """Mounts from /proc/1/mountinfo, or /proc/self/mountinfo, and statvfs(2)."""

    name = "filesystem"
    Settings = FilesystemSettings

    size = gauge("node_filesystem_size_bytes", "Size (statvfs, f_blocks x f_frsize).", _MOUNT)
    free = gauge("node_filesystem_free_bytes", "Free space (statvfs, f_bfree x f_frsize).", _MOUNT)
    avail = gauge(
        "node_filesystem_avail_bytes",
        "Free space for others than root (statvfs, f_bavail x f_frsize).",
        _MOUNT,
    )
    files = gauge("node_filesystem_files", "Inodes (statvfs, f_files).", _MOUNT)
    files_free = gauge("node_filesystem_files_free", "Free inodes (statvfs, f_ffree).", _MOUNT)
    readonly = gauge(
        "node_filesystem_readonly",
        "Whether it is read-only (mountinfo: ro or emergency_ro, of the mount or of what is mounted).",
        _MOUNT,
    )
    device_error = gauge(
        "node_filesystem_device_error",
        "Whether statvfs failed or did not answer in time; the label device_error says how.",
        _MOUNT,
    )
    mount_info = gauge(
        "node_filesystem_mount_info",
        "A metric with a constant '1' value, labelled by the device's numbers (mountinfo).",
        ("device", "major", "minor", "mountpoint"),
    )

    settings: FilesystemSettings

    def __init__(
        self,
        config: Paths,
        statvfs: Callable[[bytes], os.statvfs_result] = os.statvfs,
    ) -> None:
        super().__init__(config)
        settings = self.settings
        # Of the first process, since ours may be in a mount namespace of its own.
        self._init = KernelFile(f"{config.procfs}/1/mountinfo")
        self._own = KernelFile(f"{config.procfs}/self/mountinfo")
        self._rootfs = os.fsencode(config.rootfs.rstrip("/"))
        self._wants_point = NameFilter(
            settings.mount_points_include, settings.mount_points_exclude, MOUNT_POINTS_EXCLUDE
        )
        self._wants_type = NameFilter(
            settings.fs_types_include, settings.fs_types_exclude, FS_TYPES_EXCLUDE
        )
        self._statvfs = statvfs
        self._pool = StatvfsPool(statvfs)
        #: Mounts change seldom: what to ask, and the first unreadable line, as long as they do not.
        self._mountinfo = b""
        self._own_mountinfo: bytes | None = None
        self._targets: list[_Target] = []
        self._unseen = 0  # mounts that are wanted, and not there in our mount namespace
        self._bad: bytes | None = b""

    def stop(self) -> None:
        """End the thread that asks the mounts."""
        self._pool.stop()

    def collect(self, scrape: Scrape) -> None:
        """Emit the figures of each mount that is wanted; of one that gives none, that it does not."""
        path, content = self._read()
        # What we see is of interest when there is something new, or something that we did not see.
        changed = content != self._mountinfo
        own = self._read_own() if changed or self._unseen else self._own_mountinfo
        if changed or own != self._own_mountinfo:
            mounts, self._bad = parse(content)
            self._targets, self._unseen = self._select(mounts, self._seen(content, own))
            self._mountinfo, self._own_mountinfo = content, own
        answers = self._pool.ask(
            {target.key: target.path for target in self._targets if not target.at_once},
            self.settings.mount_timeout,
            monotonic() + scrape.remaining() * _SHARE,
        )
        for target in self._targets:
            answer = self._ask(target.path) if target.at_once else answers.get(target.key)
            self._emit(scrape, target, answer)
        if self._unseen and not self._targets:
            msg = (
                f"none of the mounts in {path} is visible below {self.config.rootfs}:"
                " is `host.rootfs` where the machine's / is mounted?"
            )
            raise TargetError(reason="os", message=msg)
        if self._bad is not None:
            with naming(path):
                raise unreadable(self._bad)

    def _read(self) -> tuple[str, bytes]:
        try:
            return self._init.path, self._init.read()
        except (OSError, NothingToRead):  # hidden from us, such as by hidepid
            return self._own.path, self._own.read()

    def _ask(self, path: bytes) -> Answer:
        try:
            return self._statvfs(path)
        except (OSError, ValueError) as error:
            return error

    def _read_own(self) -> bytes | None:
        """Return our own mountinfo; None where there is none."""
        try:
            return self._own.read()
        except (OSError, NothingToRead):
            return None

    def _seen(self, content: bytes, own: bytes | None) -> dict[bytes, tuple[str, str]] | None:
        """Return the devices of the mounts that we see, by their points; None if that is not known.

        `content` is the mountinfo of the mounts that are asked, `own` is ours. They may differ: a container
        does not see what is mounted after its start, unless its mount of / has the propagation `rslave`.
        """
        if own is None or own == content:
            return None
        seen = {mount.point: (mount.major, mount.minor) for mount in visible(parse(own)[0])}
        # Where it is not one of our mounts, the root file system is another process's, such as /proc/1/root.
        return seen if (self._rootfs or b"/") in seen else None

    def _select(
        self, mounts: list[Mount], seen: dict[bytes, tuple[str, str]] | None
    ) -> tuple[list[_Target], int]:
        """Return the mounts that are wanted and can be asked, and the number of those that cannot."""
        slow = {mount.point for mount in mounts if mount.fstype not in _IN_MEMORY}
        found: dict[tuple[str, str, str], _Target] = {}
        unseen = 0
        for mount in visible(mounts):
            if not self._wants_type(mount.fstype):
                continue
            point = _within(mount.point, self._rootfs)
            labels = (mount.source, text(point), mount.fstype)
            if not self._wants_point(labels[1]):
                continue
            path = self._rootfs + point
            if seen is not None and seen.get(path.rstrip(b"/") or b"/") != mount[2:4]:
                unseen += 1
                continue
            # In a container there is more on the way than we know of.
            at_once = not self._rootfs and slow.isdisjoint(way(mount.point))
            found.setdefault(labels, _Target(mount, path, labels, at_once))
        return list(found.values()), unseen

    def _emit(self, scrape: Scrape, target: _Target, answer: Answer | None) -> None:
        mount, labels = target.mount, target.labels
        if not isinstance(answer, os.statvfs_result):
            error = _spelled(answer)
            scrape.emit(self.device_error, 1, *labels, error)
            scrape.emit(self.readonly, int(mount.read_only), *labels, error)
            return
        device, point, fstype = labels
        unit = answer.f_frsize
        scrape.emit(self.device_error, 0, device, point, fstype, "")
        scrape.emit(self.readonly, int(mount.read_only), device, point, fstype, "")
        for metric, number, factor in (
            (self.size, answer.f_blocks, unit),
            (self.free, answer.f_bfree, unit),
            (self.avail, answer.f_bavail, unit),
            (self.files, answer.f_files, 1),
            (self.files_free, answer.f_ffree, 1),
        ):
            if number < MOST:
                scrape.emit(metric, number * factor, device, point, fstype, "")
        scrape.emit(self.mount_info, 1, device, mount.major, mount.minor, point)


def parse(content: bytes) -> tuple[list[Mount], bytes | None]:
    """Return the mounts, and the first line that could not be read: the empty one if there are none."""
    mounts = []
    bad: bytes | None = None
    for line in lines(content):
        try:
            mounts.append(_mount(line))
        except ValueError:
            bad = bad or line
    return mounts, bad if mounts or bad else b""


def _mount(line: bytes) -> Mount:
    """Return the mount of one line; ValueError where it has another format."""
    # One space between two fields: what is mounted may have an empty name.
    fields = line.split(b" ")
    dash = fields.index(b"-", 6)
    number, parent, device, _, point, options = fields[:6]
    fstype, source, super_options = fields[dash + 1 : dash + 4]
    major, _, minor = text(device).partition(":")
    if not (number.isdigit() and parent.isdigit() and minor and point.startswith(b"/")):
        raise unreadable(line)
    words = {*options.split(b","), *super_options.split(b",")}
    return Mount(
        number=number,
        parent=parent,
        major=major,
        minor=minor,
        point=_unescape(point),
        read_only=not words.isdisjoint((b"ro", b"emergency_ro")),
        fstype=text(_unescape(fstype)),
        source=text(_unescape(source)),
    )


def _unescape(field: bytes) -> bytes:
    r"""Return a field of mountinfo with its octal escapes, such as `\040`, replaced."""
    if b"\\" not in field:
        return field
    return _ESCAPE.sub(lambda found: bytes((int(found[1], 8),)), field)


def _within(point: bytes, rootfs: bytes) -> bytes:
    """Return a mount point as seen from `rootfs`, which is empty for the root itself."""
    if rootfs and (point == rootfs or point.startswith(rootfs + b"/")):
        return point[len(rootfs) :] or b"/"
    return point


def _spelled(answer: Answer | None) -> str:
    """Return why there are no figures, in the words of the C library: bounded, unlike the path."""
    if answer is None:
        return "mountpoint timeout"
    if isinstance(answer, OSError) and answer.errno is not None:
        return os.strerror(answer.errno).lower()
    return "invalid path"


COLLECTOR = Filesystem
