"""How kernel files are read: whole, with few system calls, and with errors that name the file."""

from __future__ import annotations

import os
from types import TracebackType

from bts_collectors.host.kernel.open_files import TOO_MANY, close_file, open_file
from bts_exporter import NothingToRead, TargetError

#: Bytes asked for at once: more than most files of /proc have.
CHUNK = 16384

#: What the kernel makes as one record (single_open, /proc/sys, /sys) comes whole in one read.
AT_ONCE = CHUNK

#: Of a table whose records, usually lines, have less than 1 KB each, a read gives more than this (a page,
#: less what does not fit): fewer bytes are all of it. /proc/diskstats is not one of these, since a disk with
#: all of its partitions is one record.
TABLE = 3072

#: Digits that a 64-bit number can have; a longer one is not a value of the kernel.
DIGITS = 20

#: Numbers that mean "unknown": -1, which is all bits set, also without its sign, and the ends of
#: the range, of 32 and 64 bits. No sensor measures -1 thousandth of something.
_UNKNOWN = frozenset((-1, 2**32 - 1, 2**64 - 1, 2**31 - 1, 2**63 - 1, -(2**31), -(2**63)))

#: What the kernel counts is less: from here on it is a number below 0 that lost its sign.
MOST = 2**63

#: Characters of a line that an error shows.
_SHOWN = 60


def read(path: str) -> bytes:
    """Return the content of `path`; NothingToRead when it is absent, OSError naming it otherwise."""
    descriptor = open_there(path)
    try:
        return read_whole(descriptor)
    except OSError as error:
        error.filename = path
        raise
    finally:
        close_file(descriptor)


def open_there(path: str) -> int:
    """Return a descriptor of `path`; NothingToRead when it is absent, OSError naming it otherwise."""
    try:
        return open_file(path)
    except (FileNotFoundError, NotADirectoryError):
        msg = f"{path} is absent"
        raise NothingToRead(msg) from None


def read_whole(descriptor: int, short: int = 0) -> bytes:
    """Return the content of an open file from its beginning; OSError when it cannot be read.

    What comes in fewer than `short` bytes is all there is.
    """
    content = os.pread(descriptor, CHUNK, 0)
    if len(content) < short:
        return content
    # A short read is not the end: the kernel hands out as many whole records as fit a page.
    while more := os.pread(descriptor, CHUNK, len(content)):
        content += more
    return content


def read_value(path: str) -> bytes | None:
    """Return the one value in `path`, a file of /sys; None where it cannot be read.

    For what may be missing without anything being wrong: devices come and go, drivers differ.
    """
    try:
        descriptor = open_file(path)
        try:
            # Not of /sys, such as below a FUSE mount, a value may come in pieces: its end is a line's.
            value = os.pread(descriptor, CHUNK, 0)
            return (value if value.endswith(b"\n") else read_whole(descriptor)).strip()
        finally:
            close_file(descriptor)
    except OSError as error:
        if error.errno in TOO_MANY:
            raise
        return None


def read_optional(path: str) -> bytes | None:
    """Return the content of `path`, a file on any file system; None where it cannot be read."""
    try:
        return read(path)
    except NothingToRead:
        return None
    except OSError as error:
        if error.errno in TOO_MANY:
            raise
        return None


def read_number(path: str) -> int | None:
    """Return the number in `path`, a file of /sys; None where there is none, or it is unknown."""
    value = read_value(path)
    return known(int(value)) if value and is_number(value) else None


def is_number(word: bytes) -> bool:
    """Return whether `word` is a number that is not negative and not longer than any of the kernel's."""
    return word.isdigit() and len(word) <= DIGITS


def known(number: int) -> int | None:
    """Return a number of a driver; None for the largest and smallest ones, which mean "unknown"."""
    return None if number in _UNKNOWN else number


def lines(content: bytes) -> list[bytes]:
    """Return the whole lines of `content`: one without its end was cut off, and so may its number be."""
    found = content.split(b"\n")
    del found[-1]
    return found


def text(raw: bytes) -> str:
    """Return a name that the kernel gave; bytes that are no UTF-8 stay distinct as surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def unreadable(line: bytes) -> ValueError:
    """Return the error for a line that is not what the file's format says, or is not there at all."""
    if not line:
        return ValueError("is empty")
    shown = line[:_SHOWN]
    return ValueError(f"cannot be read: {text(shown)!r}{'...' if len(line) > _SHOWN else ''}")


class naming:  # noqa: N801  # reads as a word of the with statement
    """Context in which content that makes no sense becomes an error that names its file."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Turn a ValueError into a TargetError."""
        if isinstance(error, ValueError):
            raise TargetError(reason="protocol", message=f"{self._path}: {error}") from error
