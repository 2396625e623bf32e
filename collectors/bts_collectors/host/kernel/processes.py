"""What /proc says of processes, read as cheaply as it can be: there may be thousands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from bts_collectors.host.kernel.files import naming, text, unreadable
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.open_files import close_file, open_file, with_room
from bts_collectors.host.kernel.parts import Parts
from bts_exporter import NothingToRead, TargetError

#: More bytes than a stat file can have: a name of 64 and 52 numbers of up to 20 digits.
_SIZE = 2048

#: Fields behind the name that we know of, the last being the resident memory.
_FIELDS = 22

#: Position of the number of threads among them.
_THREADS = 17

#: Files that stay open: enough for most machines, and far from what a process may have open.
_KEPT_OPEN = 128

#: What it means that a process has ended while we looked: that may be between any two steps.
#: A security module may also keep some from us; errors such as too many open files are none of these.
GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


class Stat(NamedTuple):
    """What /proc/PID/stat says; times in ticks of the clock, memory in pages."""

    name: str
    state: str
    user_ticks: int
    system_ticks: int
    threads: int
    started: int  # ticks since boot
    resident_pages: int


def pids(procfs: str) -> dict[str, int]:
    """Return the ids of all processes, with the inode numbers of their folders.

    Another process with the same id has another number. NothingToRead without /proc.
    """
    try:
        with with_room(os.scandir, procfs) as entries:
            found = {entry.name: entry.inode() for entry in entries if entry.name.isdigit()}
    except FileNotFoundError:
        msg = f"{procfs} is absent"
        raise NothingToRead(msg) from None
    if not found:
        msg = f"{procfs} has no processes: is it where the machine's /proc is?"
        raise NothingToRead(msg)
    return found


def hidden(procfs: str) -> TargetError:
    """Return the error for a /proc that hides processes.

    It does where it hides the first one, which is everywhere: who may not look at it sees but some
    of the others.
    """
    msg = (
        f"{procfs} hides processes of other users: set ProtectProc=default in the systemd unit,"
        " or the gid= of the mount option hidepid to a group that the exporter is in"
    )
    return TargetError(reason="noperm", message=msg)


def read_stat(folder: str) -> Stat | None:
    """Return the state of the process or thread in `folder`; None if it is gone, or not for us."""
    try:
        content = read_content(folder)
    except GONE:
        return None
    with naming(f"{folder}/stat"):
        return parse_stat(content)


def read_content(folder: str) -> bytes:
    """Return the stat file of the process or thread in `folder`; OSError if it is gone."""
    descriptor = open_file(f"{folder}/stat")
    try:
        return os.read(descriptor, _SIZE)
    finally:
        close_file(descriptor)


class _Task:
    """A process or thread whose file stays open, as it was last seen: most do nothing."""

    __slots__ = ("content", "file", "state")

    def __init__(self, folder: str) -> None:
        self.file = KernelFile(f"{folder}/stat")
        self.content = b""
        self.state = b"", 0

    def read(self) -> tuple[bytes, int]:
        content = self.file.head()
        if content != self.content:
            self.state = parse_state(content)
            self.content = content
        return self.state


class TaskStates:
    """What processes and threads are doing; the files of the first ones stay open between scrapes."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    def read(self, folders: Sequence[str], parts: Parts) -> list[tuple[str, bytes, int]]:
        """Return `(folder, state, number of threads)` of those in `folders` that are there.

        The error for a file that makes no sense is left to `parts`.
        """
        known, self._tasks = self._tasks, {}
        found = []
        for place, folder in enumerate(folders):
            try:
                if place < _KEPT_OPEN:
                    task = known.get(folder) or _Task(folder)
                    state = task.read()
                    self._tasks[folder] = task
                else:
                    state = parse_state(read_content(folder))
            except GONE:
                continue
            except ValueError as error:
                message = f"{folder}/stat: {error}"
                with parts:
                    raise TargetError(reason="protocol", message=message) from error
                continue
            found.append((folder, *state))
        return found


def parse_state(content: bytes) -> tuple[bytes, int]:
    """Return state and number of threads from a stat file; ValueError for another format."""
    # Only as far as the number of threads: this is read for every process at every scrape.
    fields = content[content.rfind(b") ") + 2 :].split(b" ", _THREADS + 1)
    if len(fields) <= _THREADS + 1 or not content.endswith(b"\n"):
        raise unreadable(content)
    return fields[0], int(fields[_THREADS])


def parse_stat(content: bytes) -> Stat:
    """Return what a stat file says; ValueError for another format, or a part of it."""
    # The name may hold spaces and parentheses, the last of which ends it.
    head, _, rest = content.rpartition(b") ")
    fields = rest.split()
    if len(fields) < _FIELDS or not rest.endswith(b"\n"):
        raise unreadable(content)
    return Stat(
        name=text(head[head.index(b"(") + 1 :]),
        state=text(fields[0]),
        user_ticks=int(fields[11]),
        system_ticks=int(fields[12]),
        threads=int(fields[17]),
        started=int(fields[19]),
        resident_pages=int(fields[21]),
    )
