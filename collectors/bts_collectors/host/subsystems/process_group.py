"""What groups of processes take: CPU, memory, I/O, files, threads; groups by name, command or user.

Cheap, since which group a process belongs to is remembered: those in none are seldom looked at.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property

import msgspec

from bts_collectors.host.kernel.files import lines, naming, read, text, unreadable
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
    NothingToRead,
    Scrape,
    TargetError,
    counter,
    gauge,
)

_GROUP = ("group",)
_KEYS = ("comm", "cmdline", "user")

#: Bytes of a command line that are looked at; some have megabytes.
_CMDLINE_SIZE = 4096

#: Scans at which a new process is looked at: at the first it may be about to execute its program.
_LOOKS = 2

#: From then on one in no group is looked at in each of so many scans, since it may execute another.
_ROUND = 8

#: And so is one in a group whose stat is the same to the letter, with its fd and io: what ran for less than
#: a tick may have used them.
_REST = 16

#: Members whose stat stays open, which takes half as long to read; and no more than a part of the open files
#: that the process may have.
_KEPT_OPEN = 1024
_PART_OF_FILES = 4


class Group(CollectorConfig, frozen=True):
    """Processes that count as one: those in which every expression that is given is found."""

    name: str
    comm: re.Pattern[str] | None = None
    cmdline: re.Pattern[str] | None = None
    user: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a group without a name, or that every process would be in."""
        if not self.name:
            msg = "a group has no name"
            raise ValueError(msg)
        if self.comm is self.cmdline is self.user is None:
            msg = f"group {self.name}: give comm, cmdline or user, a regular expression each"
            raise ValueError(msg)


class ProcessGroupSettings(CollectorConfig, frozen=True):
    """Settings of `process_group`: a process belongs to the first group that fits."""

    groups: tuple[Group, ...] = ()
    #: Processes looked at; with more of them on the machine the collection fails.
    scan_limit: int = 10_000

    def __post_init__(self) -> None:
        """Raise ValueError where two groups have one name."""
        names = [group.name for group in self.groups]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"groups named twice: {', '.join(twice)}"
            raise ValueError(msg)


class _Process(msgspec.Struct):
    """A process as it was last seen, so that what it took since then can be added to its group's."""

    # Both tell it from another process that had its id, the second without a look at it.
    started: int
    inode: int = 0
    name: str = ""
    looks: int = 0
    group: str | None = None
    #: Its file stat, where that stays open, and what it said.
    file: KernelFile | None = None
    content: bytes = b""
    user_ticks: int = 0
    system_ticks: int = 0
    threads: int = 0
    resident_pages: int = 0
    open_fds: int | None = None  # None: not known
    hidden: bool = False
    read_bytes: int = 0
    written_bytes: int = 0


class _Totals(msgspec.Struct):
    """What the processes of a group took since we look, those that ended included."""

    user_ticks: int = 0
    system_ticks: int = 0
    # None: not known of any process so far
    read_bytes: int | None = None
    written_bytes: int | None = None


class _Usage(msgspec.Struct):
    """What the processes of a group have now."""

    processes: int = 0
    threads: int = 0
    resident_pages: int = 0
    open_fds: int | None = None  # None: not known of any process
    oldest: int | None = None  # ticks since boot
    hidden: int = 0


class _Candidate:
    """What a new process is known by, read when a group asks for it."""

    def __init__(self, folder: str, comm: str, users: dict[bytes, str]) -> None:
        self._folder = folder
        self._users = users
        self.comm = comm

    @cached_property
    def cmdline(self) -> str:
        """Return the command with its arguments; empty for threads of the kernel."""
        descriptor = open_file(f"{self._folder}/cmdline")
        try:
            return text(os.read(descriptor, _CMDLINE_SIZE).replace(b"\0", b" ").rstrip(b" "))
        finally:
            close_file(descriptor)

    @cached_property
    def user(self) -> str:
        """Return the name of the effective user; the number of one without a name."""
        path = f"{self._folder}/status"
        content = read(path)
        with naming(path):
            uid = parse_user(content)
        return self._users.get(uid) or text(uid)


class ProcessGroup(Subsystem):
    """Groups of processes from /proc/PID/stat, io and fd."""

    name = "process_group"
    Settings = ProcessGroupSettings

    processes = gauge("bts_process_group_processes", "Processes (/proc/PID).", _GROUP)
    threads = gauge("bts_process_group_threads", "Threads (/proc/PID/stat, num_threads).", _GROUP)
    cpu = counter(
        "bts_process_group_cpu_seconds_total",
        "CPU time, that of processes that ended included (/proc/PID/stat, utime and stime).",
        (*_GROUP, "mode"),
    )
    memory = gauge(
        "bts_process_group_resident_memory_bytes",
        "Resident memory; what processes share counts for each (/proc/PID/stat, rss).",
        _GROUP,
    )
    oldest = gauge(
        "bts_process_group_oldest_start_time_seconds",
        "Start of the oldest process, in Unix time (/proc/PID/stat, starttime).",
        _GROUP,
    )
    fds = gauge("bts_process_group_open_fds", "Open files (/proc/PID/fd).", _GROUP)
    read_bytes = counter(
        "bts_process_group_read_bytes_total",
        "Bytes read from storage, by processes that ended, too (/proc/PID/io, read_bytes).",
        _GROUP,
    )
    written_bytes = counter(
        "bts_process_group_written_bytes_total",
        "Bytes written to storage, by processes that ended, too (/proc/PID/io, write_bytes).",
        _GROUP,
    )
    hidden = gauge(
        "bts_process_group_hidden_processes",
        "Processes that we may not look into: they lack in the bytes, on old kernels in open_fds.",
        _GROUP,
    )

    settings: ProcessGroupSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._passwd = f"{config.rootfs.rstrip('/')}/etc/passwd"
        self._stat = f"{config.procfs}/stat"
        self._lock = threading.Lock()
        self._scans = 0
        self._room = 0  # for further files that stay open
        self._known: dict[str, _Process] = {}
        self._totals = {group.name: _Totals() for group in self.settings.groups}

    def matches(self, samples: Mapping[Metric, Mapping[tuple[str, ...], float]]) -> Iterator[Match]:
        """Yield how many processes the expressions of each group found."""
        found = samples.get(self.processes, {})
        for group in self.settings.groups:
            given = [f"{key} {getattr(group, key).pattern}" for key in _KEYS if getattr(group, key)]
            count = int(found.get((group.name,), 0))
            yield Match(f"group {group.name}", " and ".join(given), count, "processes")

    def collect(self, scrape: Scrape) -> None:
        """Emit the figures of every group, of those without a process, too."""
        if not self._totals:
            msg = "no process_group.groups are set"
            raise NothingToRead(msg)
        parts = Parts()
        booted = None
        with parts:
            content = read(self._stat)
            with naming(self._stat):
                booted = parse_boot_time(content)
        with self._lock:
            usages = self._scan(parts)
            for group, totals in self._totals.items():
                self._emit_totals(scrape, group, totals)
        for group, usage in usages.items():
            self._emit_usage(scrape, group, usage, booted)
        parts.check()

    def _scan(self, parts: Parts) -> dict[str, _Usage]:
        """Look at the processes, and return what each group has now."""
        found = pids(self.config.procfs)
        if read_stat(f"{self.config.procfs}/1") is None:
            raise hidden(self.config.procfs)
        limit = self.settings.scan_limit
        if len(found) > limit:
            msg = f"{len(found)} processes are more than process_group.scan_limit ({limit})"
            raise TargetError(reason="os", message=msg)
        users = self._users()
        usages = {group: _Usage() for group in self._totals}
        self._scans += 1
        kept = sum(process.file is not None for process in self._known.values())
        self._room = min(_most_open() - kept, room())
        for pid, inode in found.items():
            process = self._known.get(pid)
            if process is None or process.group is not None or self._is_due(process, inode):
                with parts, suppress(*GONE, NothingToRead):
                    self._look(pid, inode, users, usages)
        for pid in self._known.keys() - found.keys():
            del self._known[pid]
        return usages

    def _is_due(self, process: _Process, inode: int) -> bool:
        return process.inode != inode or process.looks < _LOOKS or self._in_turn(process, inode)

    def _in_turn(self, process: _Process, inode: int) -> bool:
        every = _ROUND if process.group is None else _REST
        return (inode + self._scans) % every == 0

    def _users(self) -> dict[bytes, str]:
        if all(group.user is None for group in self.settings.groups):
            return {}
        try:
            return parse_users(read(self._passwd))
        except NothingToRead as error:
            msg = f"{error}: without it, no process_group.groups can be told by user"
            raise TargetError(reason="os", message=msg) from error

    def _look(
        self, pid: str, inode: int, users: dict[bytes, str], usages: dict[str, _Usage]
    ) -> None:
        """Look at a process: decide which group it belongs to, and count it there."""
        folder = f"{self.config.procfs}/{pid}"
        process = self._known.get(pid)
        file = process.file if process is not None else None
        content = file.head() if file is not None else read_content(folder)
        if (
            process is None
            or process.content != content
            or process.looks < _LOOKS
            or self._in_turn(process, inode)
        ):
            process = self._look_closely(pid, inode, content, users)
        if process.group is not None:
            _add(process, usages[process.group])

    def _look_closely(
        self, pid: str, inode: int, content: bytes, users: dict[bytes, str]
    ) -> _Process:
        folder = f"{self.config.procfs}/{pid}"
        with naming(f"{folder}/stat"):
            stat = parse_stat(content)
        process = self._known.get(pid)
        if process is None or process.started != stat.started:
            process = self._known[pid] = _Process(stat.started)
        if process.name != stat.name:  # another program
            process.name, process.looks = stat.name, 0
        # One that executes another program may keep its name.
        if process.looks < _LOOKS or self._in_turn(process, inode):
            process.looks += 1
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
        """Add to its group's what a process took since it was last seen."""
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
        with naming(path):
            got, put = parse_io(content)
        totals.read_bytes = (totals.read_bytes or 0) + max(got - process.read_bytes, 0)
        totals.written_bytes = (totals.written_bytes or 0) + max(put - process.written_bytes, 0)
        process.read_bytes, process.written_bytes = got, put

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
    """Add a process to what its group has now."""
    usage.processes += 1
    usage.threads += process.threads
    usage.resident_pages += process.resident_pages
    usage.oldest = min(process.started, usage.oldest or process.started)
    if process.open_fds is not None:
        usage.open_fds = (usage.open_fds or 0) + process.open_fds
    usage.hidden += process.hidden


def _most_open() -> int:
    """Return how many files of members may stay open."""
    import resource  # noqa: PLC0415  # not on every platform

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = limit == resource.RLIM_INFINITY
    return _KEPT_OPEN if unlimited else min(_KEPT_OPEN, limit // _PART_OF_FILES)


def _open_fds(folder: str) -> int:
    """Return how many files a process has open; PermissionError from kernels before 6.2."""
    path = f"{folder}/fd"
    # From then on the size of the folder is their number, which anybody may know.
    return os.stat(path).st_size or len(with_room(os.listdir, path))  # noqa: PTH116  # cheaper


def parse_boot_time(content: bytes) -> int:
    """Return when the machine was started, in Unix time, from /proc/stat; ValueError without it."""
    for line in lines(content):
        field, _, value = line.partition(b" ")
        if field == b"btime" and value.isdigit():
            return int(value)
    msg = "has no btime"
    raise ValueError(msg)


def parse_io(content: bytes) -> tuple[int, int]:
    """Return the bytes `(read, written)` of a process from its file io; ValueError without them."""
    found = dict(line.split(b": ", 1) for line in lines(content) if b": " in line)
    try:
        return int(found[b"read_bytes"]), int(found[b"write_bytes"])
    except KeyError:
        raise unreadable(content) from None


def parse_user(content: bytes) -> bytes:
    """Return the effective user of a process from its file status; ValueError without one."""
    for line in lines(content):
        if line.startswith(b"Uid:") and len(words := line.split()) == 5:  # noqa: PLR2004
            return words[2]
    msg = "has no line Uid: with four users"
    raise ValueError(msg)


def parse_users(content: bytes) -> dict[bytes, str]:
    """Return the names of users by their numbers, from a passwd file; other lines are left out."""
    rows = [line.split(b":") for line in lines(content)]
    return {row[2]: text(row[0]) for row in rows if len(row) > 3}  # noqa: PLR2004  # with a number


COLLECTOR = ProcessGroup
