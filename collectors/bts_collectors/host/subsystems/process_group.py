"""The subsystem `process_group`: CPU, memory, I/O, open files and threads of groups of processes.

The group of a process is kept between scrapes. Processes without a group are rarely read again.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Annotated

import msgspec

from bts_collectors.host.kernel.files import errors_in, lines, read, text, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.open_files import close_file, open_file, room, with_room
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.kernel.processes import (
    GONE,
    Stat,
    hidden,
    parse_stat,
    pids,
    read_content,
    read_stat,
)
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import (
    CollectorConfig,
    Match,
    Metric,
    NotPresent,
    Scrape,
    TargetError,
    counter,
    gauge,
)

_GROUP = ("group",)
_KEYS = ("comm", "cmdline", "user")

#: Bytes of a command line that are matched; some are megabytes long.
_CMDLINE_BYTES = 4096

#: Scans in which a new process is read: in the first one it may not have executed its program yet.
_NEW_SCANS = 2

#: After that, a process without a group is read in every 8th scan, since it may execute another program.
_SCANS_WITHOUT_GROUP = 8

#: A member whose stat file has not changed is read completely in every 16th scan: its fd and io may change while
#: it runs for less than a tick.
_SCANS_UNCHANGED = 16

#: Members whose stat file stays open, since reading it takes half as long: at most this many, and at most a
#: quarter of the files that the process may open.
_KEPT_OPEN = 1024
_SHARE_OF_FILES = 4


class Group(CollectorConfig, frozen=True):
    """A group: the processes that match all of the given expressions."""

    #: The label `group`.
    name: Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1})]
    #: Searched for in the name of the command.
    comm: re.Pattern[str] | None = None
    #: Searched for in the command line.
    cmdline: re.Pattern[str] | None = None
    #: Searched for in the name of the user.
    user: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a group without a name, or without an expression."""
        if not self.name:
            msg = "a group has no name"
            raise ValueError(msg)
        if self.comm is self.cmdline is self.user is None:
            msg = f"group {self.name}: set comm, cmdline or user (regular expressions)"
            raise ValueError(msg)


class ProcessGroupSettings(CollectorConfig, frozen=True):
    """Settings of `process_group`: a process belongs to the first group that it matches."""

    groups: tuple[Group, ...] = ()
    #: Maximum number of processes on the host; with more, the collection fails.
    scan_limit: int = 10_000

    def __post_init__(self) -> None:
        """Raise ValueError if two groups have the same name."""
        names = [group.name for group in self.groups]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"duplicate group names: {', '.join(twice)}"
            raise ValueError(msg)


class _Process(msgspec.Struct):
    """The last state of a process, from which the increase since then is calculated."""

    # Both differ for a later process with the same id; the inode is known without opening a file.
    started: int
    inode: int = 0
    #: The label `group`.
    name: str = ""
    scans: int = 0
    group: str | None = None
    #: Its stat file, if that stays open, and the last content.
    file: KernelFile | None = None
    content: bytes = b""
    user_ticks: int = 0
    system_ticks: int = 0
    threads: int = 0
    resident_pages: int = 0
    open_fds: int | None = None  # None: unknown
    hidden: bool = False
    read_bytes: int = 0
    written_bytes: int = 0


class _Totals(msgspec.Struct):
    """Counters of a group since the exporter started, including processes that have ended."""

    user_ticks: int = 0
    system_ticks: int = 0
    # None: unknown for every process so far
    read_bytes: int | None = None
    written_bytes: int | None = None


class _Usage(msgspec.Struct):
    """Current values of a group."""

    processes: int = 0
    threads: int = 0
    resident_pages: int = 0
    open_fds: int | None = None  # None: unknown for every process
    oldest: int | None = None  # ticks since boot
    hidden: int = 0


class _Candidate:
    """The properties of a process that groups match, read on first use."""

    def __init__(self, folder: str, comm: str, users: dict[bytes, str]) -> None:
        self._folder = folder
        self._users = users
        self.comm = comm

    @cached_property
    def cmdline(self) -> str:
        """Return the command with its arguments; empty for kernel threads."""
        descriptor = open_file(f"{self._folder}/cmdline")
        try:
            return text(os.read(descriptor, _CMDLINE_BYTES).replace(b"\0", b" ").rstrip(b" "))
        finally:
            close_file(descriptor)

    @cached_property
    def user(self) -> str:
        """Return the name of the effective user; the user id if it has no name."""
        path = f"{self._folder}/status"
        content = read(path)
        with errors_in(path):
            uid = parse_user(content)
        return self._users.get(uid) or text(uid)


class ProcessGroup(Subsystem):
    """Groups of processes from /proc/PID/stat, io and fd."""

    name = "process_group"
    Settings = ProcessGroupSettings

    processes = gauge("bts_process_group_processes", "Number of processes (/proc/PID).", _GROUP)
    threads = gauge(
        "bts_process_group_threads", "Number of threads (/proc/PID/stat, num_threads).", _GROUP
    )
    cpu = counter(
        "bts_process_group_cpu_seconds_total",
        "CPU time by mode, including processes that have ended (/proc/PID/stat, utime and stime).",
        (*_GROUP, "mode"),
    )
    memory = gauge(
        "bts_process_group_resident_memory_bytes",
        "Resident memory; shared memory is counted for each process (/proc/PID/stat, rss).",
        _GROUP,
    )
    oldest = gauge(
        "bts_process_group_oldest_start_time_seconds",
        "Start time of the oldest process in Unix time (/proc/PID/stat, starttime).",
        _GROUP,
    )
    fds = gauge("bts_process_group_open_fds", "Number of open files (/proc/PID/fd).", _GROUP)
    read_bytes = counter(
        "bts_process_group_read_bytes_total",
        "Bytes read from storage, including processes that have ended (/proc/PID/io, read_bytes).",
        _GROUP,
    )
    written_bytes = counter(
        "bts_process_group_written_bytes_total",
        "Bytes written to storage, including processes that have ended (/proc/PID/io, write_bytes).",
        _GROUP,
    )
    hidden = gauge(
        "bts_process_group_hidden_processes",
        "Processes whose io (before Linux 6.2 also fd) the exporter may not read:"
        " the metrics from these files lack them.",
        _GROUP,
    )

    settings: ProcessGroupSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._passwd = f"{config.rootfs.rstrip('/')}/etc/passwd"
        self._stat = f"{config.procfs}/stat"
        self._lock = threading.Lock()
        self._scans = 0
        self._room = 0  # how many more files may stay open
        self._known: dict[str, _Process] = {}
        self._totals = {group.name: _Totals() for group in self.settings.groups}

    def matches(self, samples: Mapping[Metric, Mapping[tuple[str, ...], float]]) -> Iterator[Match]:
        """Yield the number of processes that match the expressions of each group."""
        counts = samples.get(self.processes, {})
        for group in self.settings.groups:
            given = [f"{key} {getattr(group, key).pattern}" for key in _KEYS if getattr(group, key)]
            count = int(counts.get((group.name,), 0))
            yield Match(f"group {group.name}", " and ".join(given), count, "processes")

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of every group, also of groups without processes."""
        if not self._totals:
            msg = "process_group.groups is not set"
            raise NotPresent(msg)
        parts = Parts()
        booted = None
        with parts:
            content = read(self._stat)
            with errors_in(self._stat):
                booted = parse_boot_time(content)
        with self._lock:
            usages = self._scan(parts)
            for group, totals in self._totals.items():
                self._emit_totals(scrape, group, totals)
        for group, usage in usages.items():
            self._emit_usage(scrape, group, usage, booted)
        parts.check()

    def _scan(self, parts: Parts) -> dict[str, _Usage]:
        """Update the processes, and return the current values of each group."""
        inodes = pids(self.config.procfs)
        if read_stat(f"{self.config.procfs}/1") is None:
            raise hidden(self.config.procfs)
        limit = self.settings.scan_limit
        if len(inodes) > limit:
            msg = f"{len(inodes)} processes are more than process_group.scan_limit ({limit})"
            raise TargetError(reason="os", message=msg)
        users = self._users()
        usages = {group: _Usage() for group in self._totals}
        self._scans += 1
        kept = sum(process.file is not None for process in self._known.values())
        self._room = min(_most_open() - kept, room())
        for pid, inode in inodes.items():
            process = self._known.get(pid)
            if process is None or process.group is not None or self._is_due(process, inode):
                with parts, suppress(*GONE, NotPresent):
                    self._update(pid, inode, users, usages)
        for pid in self._known.keys() - inodes.keys():
            del self._known[pid]
        return usages

    def _is_due(self, process: _Process, inode: int) -> bool:
        return process.inode != inode or process.scans < _NEW_SCANS or self._in_turn(process, inode)

    def _in_turn(self, process: _Process, inode: int) -> bool:
        every = _SCANS_WITHOUT_GROUP if process.group is None else _SCANS_UNCHANGED
        return (inode + self._scans) % every == 0

    def _users(self) -> dict[bytes, str]:
        if all(group.user is None for group in self.settings.groups):
            return {}
        try:
            return parse_users(read(self._passwd))
        except NotPresent as error:
            msg = f"{error}: process_group.groups with `user` need it"
            raise TargetError(reason="os", message=msg) from error

    def _update(
        self, pid: str, inode: int, users: dict[bytes, str], usages: dict[str, _Usage]
    ) -> None:
        """Read a process, if needed completely, and add it to the values of its group."""
        folder = f"{self.config.procfs}/{pid}"
        process = self._known.get(pid)
        file = process.file if process is not None else None
        content = file.head() if file is not None else read_content(folder)
        if (
            process is None
            or process.content != content
            or process.scans < _NEW_SCANS
            or self._in_turn(process, inode)
        ):
            process = self._read_completely(pid, inode, content, users)
        if process.group is not None:
            _add(process, usages[process.group])

    def _read_completely(
        self, pid: str, inode: int, content: bytes, users: dict[bytes, str]
    ) -> _Process:
        folder = f"{self.config.procfs}/{pid}"
        with errors_in(f"{folder}/stat"):
            stat = parse_stat(content)
        process = self._known.get(pid)
        if process is None or process.started != stat.started:
            process = self._known[pid] = _Process(stat.started)
        if process.name != stat.name:  # another program
            process.name, process.scans = stat.name, 0
        # A process may keep its name when it executes another program.
        if process.scans < _NEW_SCANS or self._in_turn(process, inode):
            process.scans += 1
            process.group = self._group_of(_Candidate(folder, stat.name, users))
        if process.group is None:
            process.file = None
        else:
            if process.file is None and self._room > 0:
                process.file = KernelFile(f"{folder}/stat")
                self._room -= 1
            self._count(process, folder, stat, self._totals[process.group])
            process.content = content
        process.inode = inode
        return process

    def _group_of(self, candidate: _Candidate) -> str | None:
        for group in self.settings.groups:
            if (
                (group.comm is None or group.comm.search(candidate.comm))
                and (group.cmdline is None or group.cmdline.search(candidate.cmdline))
                and (group.user is None or group.user.search(candidate.user))
            ):
                return group.name
        return None

    def _count(self, process: _Process, folder: str, stat: Stat, totals: _Totals) -> None:
        """Add the increase of a process's counters to those of its group."""
        totals.user_ticks += max(stat.user_ticks - process.user_ticks, 0)
        totals.system_ticks += max(stat.system_ticks - process.system_ticks, 0)
        process.user_ticks, process.system_ticks = stat.user_ticks, stat.system_ticks
        process.threads, process.resident_pages = stat.threads, stat.resident_pages
        process.open_fds, process.hidden = None, False
        try:
            process.open_fds = _open_fds(folder)
            self._count_io(process, f"{folder}/io", totals)
        except PermissionError:
            process.hidden = True

    def _count_io(self, process: _Process, path: str, totals: _Totals) -> None:
        content = read(path)
        with errors_in(path):
            read_bytes, written_bytes = parse_io(content)
        increase = max(read_bytes - process.read_bytes, 0)
        totals.read_bytes = (totals.read_bytes or 0) + increase
        increase = max(written_bytes - process.written_bytes, 0)
        totals.written_bytes = (totals.written_bytes or 0) + increase
        process.read_bytes, process.written_bytes = read_bytes, written_bytes

    def _emit_totals(self, scrape: Scrape, group: str, totals: _Totals) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        scrape.emit(self.cpu, totals.user_ticks / ticks, group, "user")
        scrape.emit(self.cpu, totals.system_ticks / ticks, group, "system")
        if totals.read_bytes is not None:
            scrape.emit(self.read_bytes, totals.read_bytes, group)
        if totals.written_bytes is not None:
            scrape.emit(self.written_bytes, totals.written_bytes, group)

    def _emit_usage(self, scrape: Scrape, group: str, usage: _Usage, booted: int | None) -> None:
        scrape.emit(self.processes, usage.processes, group)
        scrape.emit(self.threads, usage.threads, group)
        scrape.emit(self.memory, usage.resident_pages * os.sysconf("SC_PAGE_SIZE"), group)
        scrape.emit(self.hidden, usage.hidden, group)
        if usage.open_fds is not None or not usage.processes:
            scrape.emit(self.fds, usage.open_fds or 0, group)
        if usage.oldest is not None and booted is not None:
            started = booted + usage.oldest / os.sysconf("SC_CLK_TCK")
            scrape.emit(self.oldest, started, group)


def _add(process: _Process, usage: _Usage) -> None:
    """Add a process to the current values of its group."""
    usage.processes += 1
    usage.threads += process.threads
    usage.resident_pages += process.resident_pages
    usage.oldest = min(process.started, usage.oldest or process.started)
    if process.open_fds is not None:
        usage.open_fds = (usage.open_fds or 0) + process.open_fds
    usage.hidden += process.hidden


def _most_open() -> int:
    """Return how many stat files of members may stay open."""
    import resource  # noqa: PLC0415  # not on every platform

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = limit == resource.RLIM_INFINITY
    return _KEPT_OPEN if unlimited else min(_KEPT_OPEN, limit // _SHARE_OF_FILES)


def _open_fds(folder: str) -> int:
    """Return the number of open files of a process; before Linux 6.2 PermissionError for other users."""
    path = f"{folder}/fd"
    # Since Linux 6.2 the size of the directory is the number of files, and every user may read it.
    return os.stat(path).st_size or len(with_room(os.listdir, path))  # noqa: PTH116  # cheaper


def parse_boot_time(content: bytes) -> int:
    """Return the boot time in Unix time from /proc/stat; ValueError if it is missing."""
    for line in lines(content):
        field, _, value = line.partition(b" ")
        if field == b"btime" and value.isdigit():
            return int(value)
    msg = "has no btime"
    raise ValueError(msg)


def parse_io(content: bytes) -> tuple[int, int]:
    """Return the bytes `(read, written)` from the file io of a process; ValueError if they are missing."""
    fields = dict(line.split(b": ", 1) for line in lines(content) if b": " in line)
    try:
        return int(fields[b"read_bytes"]), int(fields[b"write_bytes"])
    except KeyError:
        raise unexpected_content(content) from None


def parse_user(content: bytes) -> bytes:
    """Return the effective user id from the file status of a process; ValueError if it is missing."""
    for line in lines(content):
        if line.startswith(b"Uid:") and len(words := line.split()) == 5:  # noqa: PLR2004
            return words[2]
    msg = "has no line `Uid:` with four ids"
    raise ValueError(msg)


def parse_users(content: bytes) -> dict[bytes, str]:
    """Return the names of users by their ids, from a passwd file; skip other lines."""
    rows = [line.split(b":") for line in lines(content)]
    return {row[2]: text(row[0]) for row in rows if len(row) > 3}  # noqa: PLR2004  # name, password, uid, ...


COLLECTOR = ProcessGroup
