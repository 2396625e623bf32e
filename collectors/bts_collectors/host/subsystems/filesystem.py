"""The subsystem `filesystem`: size and usage of mounted file systems."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from time import monotonic
from typing import Annotated, NamedTuple

from msgspec import Meta

from bts_collectors.host.kernel.files import MAX_COUNT, errors_in, lines, text, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.mount_tree import ancestors, visible
from bts_collectors.host.kernel.statvfs_pool import Result, StatvfsPool
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import (
    CollectorConfig,
    Duration,
    NameFilter,
    NotPresent,
    Scrape,
    TargetError,
    gauge,
)

#: Mount points and types that are left out by default: those of the kernel and of containers.
MOUNT_POINTS_EXCLUDE = re.compile(
    r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)"
)
FS_TYPES_EXCLUDE = re.compile(
    r"^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660"
    r"|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs"
    r"|tracefs)$"
)

#: Types for which statvfs(2) is answered from the kernel's memory, without a server or a device. They are
#: queried without another thread: two thread switches take as long as twenty of these calls.
_IN_MEMORY = frozenset(("ext2", "ext3", "ext4", "xfs", "tmpfs", "ramfs"))

_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")

_MOUNT = ("device", "mountpoint", "fstype", "device_error")


class FilesystemSettings(CollectorConfig, frozen=True):
    """Settings of `filesystem`."""

    #: Mount points to collect; replaces the default of `mount_points_exclude`.
    mount_points_include: re.Pattern[str] | None = None
    #: Mount points not to collect.
    mount_points_exclude: re.Pattern[str] | None = None
    #: File system types to collect; replaces the default of `fs_types_exclude`.
    fs_types_include: re.Pattern[str] | None = None
    #: File system types not to collect.
    fs_types_exclude: re.Pattern[str] | None = None
    #: Timeout for statvfs(2) on each mount.
    mount_timeout: Annotated[Duration, Meta(extra_json_schema={"exclusiveMinimum": 0})] = Duration(
        5
    )

    def __post_init__(self) -> None:
        """Raise ValueError if both expressions of a pair are set, or the timeout is not positive."""
        NameFilter.check_exclusive(
            "mount_points", self.mount_points_include, self.mount_points_exclude
        )
        NameFilter.check_exclusive("fs_types", self.fs_types_include, self.fs_types_exclude)
        if not self.mount_timeout > 0:
            msg = f"mount_timeout must be > 0, got {self.mount_timeout:g}"
            raise ValueError(msg)


class Mount(NamedTuple):
    """A line of mountinfo; the mount point is unescaped."""

    number: bytes
    parent: bytes
    major: str
    minor: str
    point: bytes
    read_only: bool
    fstype: str
    source: str


class Target(NamedTuple):
    """A selected mount, with its path as the exporter sees it."""

    mount: Mount
    path: bytes
    labels: tuple[str, str, str]
    #: Whether statvfs(2) cannot hang: for this mount, and for every mount on its path.
    in_memory: bool

    @property
    def key(self) -> tuple[bytes, bytes]:
        """Return a key that differs from that of an earlier mount on the same path."""
        return self.mount.number, self.path


class Filesystem(Subsystem):
    """Mounts from /proc/1/mountinfo, or /proc/self/mountinfo, and statvfs(2)."""

    name = "filesystem"
    Settings = FilesystemSettings

    size = gauge(
        "node_filesystem_size_bytes", "Filesystem size (statvfs, f_blocks x f_frsize).", _MOUNT
    )
    free = gauge("node_filesystem_free_bytes", "Free space (statvfs, f_bfree x f_frsize).", _MOUNT)
    avail = gauge(
        "node_filesystem_avail_bytes",
        "Space available to non-root users (statvfs, f_bavail x f_frsize).",
        _MOUNT,
    )
    files = gauge("node_filesystem_files", "Number of inodes (statvfs, f_files).", _MOUNT)
    files_free = gauge(
        "node_filesystem_files_free", "Number of free inodes (statvfs, f_ffree).", _MOUNT
    )
    readonly = gauge(
        "node_filesystem_readonly",
        "Whether the mount or the file system is read-only (mountinfo, ro or emergency_ro).",
        _MOUNT,
    )
    device_error = gauge(
        "node_filesystem_device_error",
        "Whether statvfs failed or timed out; the label device_error is the error.",
        _MOUNT,
    )
    mount_info = gauge(
        "node_filesystem_mount_info",
        "A metric with a constant '1' value, labelled by the device numbers (mountinfo).",
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
        # Of process 1, since the exporter may be in another mount namespace.
        self._init = KernelFile(f"{config.procfs}/1/mountinfo")
        self._own = KernelFile(f"{config.procfs}/self/mountinfo")
        self._rootfs = os.fsencode(config.rootfs.rstrip("/"))
        self._point_filter = NameFilter(
            settings.mount_points_include, settings.mount_points_exclude, MOUNT_POINTS_EXCLUDE
        )
        self._type_filter = NameFilter(
            settings.fs_types_include, settings.fs_types_exclude, FS_TYPES_EXCLUDE
        )
        self._statvfs = statvfs
        self._pool = StatvfsPool(statvfs)
        #: Mounts rarely change: the parsed result is kept until mountinfo changes.
        self._mountinfo = b""
        self._own_mountinfo: bytes | None = None
        self._targets: list[Target] = []
        self._unseen = 0  # selected mounts that the exporter's mount namespace does not have
        self._bad: bytes | None = b""

    def stop(self) -> None:
        """End the thread that calls statvfs(2)."""
        self._pool.stop()

    def collect(self, scrape: Scrape) -> None:
        """Emit size and usage of each selected mount, or its error."""
        path, content = self._read()
        # Our own mounts matter if the mounts have changed, or if some could not be seen.
        changed = content != self._mountinfo
        own = self._read_own() if changed or self._unseen else self._own_mountinfo
        if changed or own != self._own_mountinfo:
            mounts, self._bad = parse(content)
            self._targets, self._unseen = self._select(mounts, self._visible_devices(content, own))
            self._mountinfo, self._own_mountinfo = content, own
        results = self._pool.query(
            {target.key: target.path for target in self._targets if not target.in_memory},
            self.settings.mount_timeout,
            monotonic() + scrape.remaining(),
        )
        for target in self._targets:
            result = self._query(target.path) if target.in_memory else results.get(target.key)
            self._emit(scrape, target, result)
        if self._unseen and not self._targets:
            msg = (
                f"none of the mounts in {path} is visible below {self.config.rootfs};"
                " is `host.rootfs` the host's root file system?"
            )
            raise TargetError(reason="os", message=msg)
        if self._bad is not None:
            with errors_in(path):
                raise unexpected_content(self._bad)

    def _read(self) -> tuple[str, bytes]:
        try:
            return self._init.path, self._init.read()
        except (OSError, NotPresent):  # hidden, such as by hidepid
            return self._own.path, self._own.read()

    def _query(self, path: bytes) -> Result:
        try:
            return self._statvfs(path)
        except (OSError, ValueError) as error:
            return error

    def _read_own(self) -> bytes | None:
        """Return the exporter's own mountinfo; None if it cannot be read."""
        try:
            return self._own.read()
        except (OSError, NotPresent):
            return None

    def _visible_devices(
        self, content: bytes, own: bytes | None
    ) -> dict[bytes, tuple[str, str]] | None:
        """Return the devices of the mounts that the exporter sees, by mount point; None if unknown.

        `content` is the mountinfo of process 1, `own` is the exporter's. They may differ: a container does not
        see mounts made after its start, unless its mount of / has the propagation `rslave`.
        """
        if own is None or own == content:
            return None
        seen = {mount.point: (mount.major, mount.minor) for mount in visible(parse(own)[0])}
        # If it is not one of our mounts, the root file system is that of another process, such as /proc/1/root.
        return seen if (self._rootfs or b"/") in seen else None

    def _select(
        self, mounts: list[Mount], seen: dict[bytes, tuple[str, str]] | None
    ) -> tuple[list[Target], int]:
        """Return the selected mounts that the exporter sees, and the number of those that it does not see."""
        slow = {mount.point for mount in mounts if mount.fstype not in _IN_MEMORY}
        found: dict[tuple[str, str, str], Target] = {}
        unseen = 0
        for mount in visible(mounts):
            if not self._type_filter(mount.fstype):
                continue
            point = _within(mount.point, self._rootfs)
            labels = (mount.source, text(point), mount.fstype)
            if not self._point_filter(labels[1]):
                continue
            path = self._rootfs + point
            if seen is not None and seen.get(path.rstrip(b"/") or b"/") != mount[2:4]:
                unseen += 1
                continue
            # In a container the path may cross mounts that mountinfo of process 1 does not list.
            in_memory = not self._rootfs and slow.isdisjoint(ancestors(mount.point))
            found.setdefault(labels, Target(mount, path, labels, in_memory))
        return list(found.values()), unseen

    def _emit(self, scrape: Scrape, target: Target, result: Result | None) -> None:
        mount, labels = target.mount, target.labels
        if not isinstance(result, os.statvfs_result):
            error = _error_of(result)
            scrape.emit(self.device_error, 1, *labels, error)
            scrape.emit(self.readonly, int(mount.read_only), *labels, error)
            return
        device, point, fstype = labels
        unit = result.f_frsize
        scrape.emit(self.device_error, 0, device, point, fstype, "")
        scrape.emit(self.readonly, int(mount.read_only), device, point, fstype, "")
        for metric, number, factor in (
            (self.size, result.f_blocks, unit),
            (self.free, result.f_bfree, unit),
            (self.avail, result.f_bavail, unit),
            (self.files, result.f_files, 1),
            (self.files_free, result.f_ffree, 1),
        ):
            if number < MAX_COUNT:
                scrape.emit(metric, number * factor, device, point, fstype, "")
        self._emit_info(scrape, target)

    def _emit_info(self, scrape: Scrape, target: Target) -> None:
        device, point, _ = target.labels
        scrape.emit(self.mount_info, 1, device, target.mount.major, target.mount.minor, point)


def parse(content: bytes) -> tuple[list[Mount], bytes | None]:
    """Return the mounts and the first unreadable line, which is empty if there are no mounts."""
    mounts = []
    bad: bytes | None = None
    for line in lines(content):
        try:
            mounts.append(_mount(line))
        except ValueError:
            bad = bad or line
    return mounts, bad if mounts or bad else b""


def _mount(line: bytes) -> Mount:
    """Return the mount of one line; ValueError if it has another format."""
    # Exactly one space separates two fields: the source may be empty.
    fields = line.split(b" ")
    dash = fields.index(b"-", 6)
    number, parent, device, _, point, options = fields[:6]
    fstype, source, super_options = fields[dash + 1 : dash + 4]
    major, _, minor = text(device).partition(":")
    if not (number.isdigit() and parent.isdigit() and minor and point.startswith(b"/")):
        raise unexpected_content(line)
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


def _error_of(result: OSError | ValueError | None) -> str:
    """Return the label value for an error: without the path, so that the values are bounded."""
    if result is None:
        return "mountpoint timeout"
    if isinstance(result, OSError) and result.errno is not None:
        return os.strerror(result.errno).lower()
    return "invalid path"


COLLECTOR = Filesystem
