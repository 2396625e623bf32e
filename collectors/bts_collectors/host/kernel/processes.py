"""Processes and threads from /proc, with little work for each: there may be thousands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from bts_collectors.host.kernel.files import errors_in, text, unexpected_content
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.open_files import close_file, open_file, with_room
from bts_collectors.host.kernel.parts import Parts
from bts_exporter import NotPresent, TargetError

#: Bytes; a stat file is shorter: a name of 64 bytes and 52 numbers of up to 20 digits.
_SIZE = 2048

#: Fields after the name up to the last one that is used, the resident memory.
_FIELDS = 22

#: Position of the number of threads among these fields.
_THREADS = 17

#: Files that stay open: enough for most hosts, and far fewer than a process may open.
_KEPT_OPEN = 128

#: Errors if a process has ended, which can happen between any two steps, or if a security module hides it.
#: Other errors, such as too many open files, are not among them.
GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that are used; times in clock ticks, memory in pages."""

    name: str
    state: str
    user_ticks: int
    system_ticks: int
    threads: int
    started: int  # ticks since boot
    resident_pages: int


def pids(procfs: str) -> dict[str, int]:
    """Return the ids of all processes, with the inode numbers of their directories.

    A later process with the same id has another inode number. Raises NotPresent if /proc is absent.
    """
    try:
        with with_room(os.scandir, procfs) as entries:
            found = {entry.name: entry.inode() for entry in entries if entry.name.isdigit()}
    except FileNotFoundError:
        msg = f"{procfs} is absent"
        raise NotPresent(msg) from None
    if not found:
        msg = f"{procfs} has no processes; is `host.procfs` the host's /proc?"
        raise NotPresent(msg)
    return found


def hidden(procfs: str) -> TargetError:
    """Return the error for a /proc that hides processes.

    Process 1 always exists: if it is hidden, processes of other users are hidden, too.
    """
    msg = (
        f"{procfs} hides processes of other users: set ProtectProc=default in the systemd unit,"
        " or the gid= of the mount option hidepid to a group that the exporter is in"
    )
    return TargetError(reason="noperm", message=msg)


def read_stat(folder: str) -> Stat | None:
    """Return the parsed stat file of the process or thread in `folder`; None if it has ended or is hidden."""
    try:
        content = read_content(folder)
    except GONE:
        return None
    with errors_in(f"{folder}/stat"):
        return parse_stat(content)


def read_content(folder: str) -> bytes:
    """Return the content of the stat file in `folder`; OSError if the process or thread has ended."""
    descriptor = open_file(f"{folder}/stat")
    try:
        return os.read(descriptor, _SIZE)
    finally:
        close_file(descriptor)


class _Task:
    """A process or thread whose stat file stays open, with its last state: most are idle."""

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
    """Reads the states of processes or threads; the files of the first ones stay open between scrapes."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    def read(self, folders: Sequence[str], parts: Parts) -> list[tuple[str, bytes, int]]:
        """Return `(folder, state, number of threads)` of the tasks in `folders` that still exist.

        The error for an unreadable file goes to `parts`.
        """
        previous, self._tasks = self._tasks, {}
        states = []
        for position, folder in enumerate(folders):
            try:
                if position < _KEPT_OPEN:
                    task = previous.get(folder) or _Task(folder)
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
            states.append((folder, *state))
        return states


def parse_state(content: bytes) -> tuple[bytes, int]:
    """Return `(state, number of threads)` from a stat file; ValueError for another format."""
    # Split only up to the number of threads: this runs for every process in every scrape.
    fields = content[content.rfind(b") ") + 2 :].split(b" ", _THREADS + 1)
    if len(fields) <= _THREADS + 1 or not content.endswith(b"\n"):
        raise unexpected_content(content)
    return fields[0], int(fields[_THREADS])


def parse_stat(content: bytes) -> Stat:
    """Return the parsed content of a stat file; ValueError for another format, or a truncated file."""
    # The name may contain spaces and parentheses; the last parenthesis ends it.
    head, _, rest = content.rpartition(b") ")
    fields = rest.split()
    if len(fields) < _FIELDS or not rest.endswith(b"\n"):
        raise unexpected_content(content)
    return Stat(
        name=text(head[head.index(b"(") + 1 :]),
        state=text(fields[0]),
        user_ticks=int(fields[11]),
        system_ticks=int(fields[12]),
        threads=int(fields[17]),
        started=int(fields[19]),
        resident_pages=int(fields[21]),
    )
