"""How kernel files are opened and closed, and how many stay open: other parts of the process need files, too."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from time import monotonic
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

#: Errors that say that the process, or the system, cannot have another open file.
TOO_MANY = frozenset((errno.EMFILE, errno.ENFILE))

#: Files that are left to listener, connections, targets and files that are closed after each read.
_RESERVED = 64

#: Seconds for which nothing is kept open after there were too many open files.
_PAUSE = 60.0

#: File systems that the kernel makes up: /proc, /sys, and cgroups of both versions (statfs(2), f_type).
_KERNEL_TYPES = frozenset((0x9FA0, 0x62656572, 0x27E0EB, 0x63677270))
#: `struct statfs` is smaller on each architecture.
_STATFS_SIZE = 256

#: Descriptors that stay open, by the key of their file. A reader takes its own out and puts it back, which
#: is atomic for a dictionary: a descriptor in here is never one that another thread reads from.
idle: dict[int, int] = {}

_paused_until = 0.0


def open_file(path: str) -> int:
    """Return a descriptor of `path`; OSError where it cannot be opened."""
    return with_room(os.open, path, os.O_RDONLY)


def close_file(descriptor: int) -> None:
    """Close a descriptor that nothing refers to any more.

    The number is free whatever close(2) says, such as that the server behind a FUSE file has ended.
    A second attempt would close a file that another thread has just opened.
    """
    with suppress(OSError):
        os.close(descriptor)


def with_room(
    action: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Return the result of an action that opens something.

    Where there are too many open files, those that are kept are closed and the action is tried again.
    """
    try:
        return action(*args, **kwargs)
    except OSError as error:
        if error.errno not in TOO_MANY:
            raise
    _close_idle()
    return action(*args, **kwargs)


def room() -> int:
    """Return how many further files may stay open, by the soft limit at this moment (RLIMIT_NOFILE)."""
    import resource  # noqa: PLC0415  # not on every platform

    if monotonic() < _paused_until:
        return 0
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(limit - _RESERVED - len(idle), 0)


def is_kernel_made(descriptor: int) -> bool:
    """Return whether an open file is one of /proc, /sys or a cgroup, rather than of a file system over it.

    lxcfs, for one, mounts its own files over some of /proc; they must not stay open.
    """
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if _fstatfs()(descriptor, buffer) != 0:
        return False
    # The type comes first: 4 bytes, or 8 of which the upper ones are 0 and on some machines in front.
    first, second = (int.from_bytes(buffer.raw[at : at + 4], sys.byteorder) for at in (0, 4))
    return (first or second) in _KERNEL_TYPES


@cache
def _fstatfs() -> Callable[[int, object], int]:
    # Not PyDLL, which keeps Python's lock: a FUSE server may never answer.
    function: Callable[[int, object], int] = ctypes.CDLL(None).fstatfs
    return function


def _close_idle() -> None:
    """Close the files that are kept and not being read, and keep none for a while."""
    global _paused_until  # noqa: PLW0603  # one limit for the whole process
    _paused_until = monotonic() + _PAUSE
    while idle:
        with suppress(KeyError):  # another thread has taken the last one
            close_file(idle.popitem()[1])
