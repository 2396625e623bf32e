"""Opening and closing of files, with a limit on those that stay open: the rest of the process needs files, too."""

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

#: The process, or the system, has too many open files.
TOO_MANY = frozenset((errno.EMFILE, errno.ENFILE))

#: Descriptors reserved for the listener, connections, targets, and files that are closed after each read.
_RESERVED = 64

#: Seconds for which no file is kept open after there were too many open files.
_PAUSE = 60.0

#: File systems that the kernel generates: /proc, /sys, cgroup v1 and v2 (statfs(2), f_type).
_KERNEL_TYPES = frozenset((0x9FA0, 0x62656572, 0x27E0EB, 0x63677270))
#: Bytes; `struct statfs` is smaller on every architecture.
_STATFS_SIZE = 256

#: Descriptors that stay open and are not being read, by the key of their file. A reader takes its own out and
#: puts it back; both are atomic for a dictionary.
idle: dict[int, int] = {}

_paused_until = 0.0


def open_file(path: str) -> int:
    """Return a descriptor of `path`; OSError if it cannot be opened."""
    return with_room(os.open, path, os.O_RDONLY)


def close_file(descriptor: int) -> None:
    """Close a descriptor; errors are ignored.

    The number is free even if close(2) fails, such as when the server of a FUSE file has ended. A second
    close(2) could close a file that another thread has just opened.
    """
    with suppress(OSError):
        os.close(descriptor)


def with_room(
    action: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Return the result of `action`, which opens a file, a directory or a socket.

    If there are too many open files, close those that are kept open, and try again once.
    """
    try:
        return action(*args, **kwargs)
    except OSError as error:
        if error.errno not in TOO_MANY:
            raise
    _close_idle()
    return action(*args, **kwargs)


def room() -> int:
    """Return how many more files may stay open, by the current soft limit (RLIMIT_NOFILE)."""
    import resource  # noqa: PLC0415  # not on every platform

    if monotonic() < _paused_until:
        return 0
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(limit - _RESERVED - len(idle), 0)


def is_kernel_made(descriptor: int) -> bool:
    """Return whether an open file is on /proc, /sys or a cgroup file system.

    lxcfs, for example, mounts its own files over some of /proc; they must not stay open.
    """
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if _fstatfs()(descriptor, buffer) != 0:
        return False
    # The type is the first field: 4 bytes, or 8 of which the upper 4 are 0 (first on big-endian machines).
    first, second = (int.from_bytes(buffer.raw[at : at + 4], sys.byteorder) for at in (0, 4))
    return (first or second) in _KERNEL_TYPES


@cache
def _fstatfs() -> Callable[[int, object], int]:
    # Not PyDLL, which holds the GIL: a FUSE server may never reply.
    function: Callable[[int, object], int] = ctypes.CDLL(None).fstatfs
    return function


def _close_idle() -> None:
    """Close all files that are kept open and not being read, and keep none open for a while."""
    global _paused_until  # noqa: PLW0603  # one limit for the whole process
    _paused_until = monotonic() + _PAUSE
    while idle:
        with suppress(KeyError):  # another thread took the last one
            close_file(idle.popitem()[1])
