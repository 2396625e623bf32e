"""Reading of kernel files: complete, with few system calls, and with errors that name the file."""

from __future__ import annotations

import os
from types import TracebackType

from bts_collectors.host.kernel.open_files import TOO_MANY, close_file, open_file
from bts_exporter import NotPresent, TargetError

#: Bytes per read(2): more than most files of /proc have.
CHUNK = 16384

#: A file that the kernel generates as one record (single_open, /proc/sys, /sys) is complete after one read.
SINGLE_RECORD = CHUNK

#: A read of a table returns as many records as fit into a page. If each record, usually a line, is shorter
#: than 1 KB, a read of fewer bytes than this is the whole table. /proc/diskstats is not such a table: a disk
#: with all of its partitions is one record.
SHORT_RECORDS = 3072

#: Digits of the longest 64-bit number; the kernel prints no longer one.
DIGITS = 20

#: Numbers that drivers use for "unknown": -1, also as an unsigned number (all bits set), and the smallest and
#: largest numbers of 32 and 64 bits. No sensor measures -1 thousandth of a unit.
_UNKNOWN = frozenset((-1, 2**32 - 1, 2**64 - 1, 2**31 - 1, 2**63 - 1, -(2**31), -(2**63)))

#: Every counter of the kernel is smaller: from here on it is a negative number printed as unsigned.
MAX_COUNT = 2**63

#: Characters of a line that an error shows.
_SHOWN = 60


def read(path: str) -> bytes:
    """Return the content of `path`; NotPresent if it is absent, else OSError that names it."""
    descriptor = open_there(path)
    try:
        return read_whole(descriptor)
    except OSError as error:
        error.filename = path
        raise
    finally:
        close_file(descriptor)


def open_there(path: str) -> int:
    """Return a descriptor of `path`; NotPresent if it is absent, else OSError that names it."""
    try:
        return open_file(path)
    except (FileNotFoundError, NotADirectoryError):
        msg = f"{path} is absent"
        raise NotPresent(msg) from None


def read_whole(descriptor: int, complete_below: int = 0) -> bytes:
    """Return the content of an open file from its beginning; OSError if it cannot be read.

    A first read of fewer than `complete_below` bytes is known to be the whole file.
    """
    content = os.pread(descriptor, CHUNK, 0)
    if len(content) < complete_below:
        return content
    # A short read is not the end: the kernel returns as many whole records as fit into a page.
    while more := os.pread(descriptor, CHUNK, len(content)):
        content += more
    return content


def read_value(path: str) -> bytes | None:
    """Return the value in `path`, a file of /sys with one value; None if it cannot be read.

    For files that may be missing without an error: devices come and go, drivers differ.
    """
    try:
        descriptor = open_file(path)
        try:
            # On other file systems, such as FUSE, a read may return a part; the value ends with the line.
            value = os.pread(descriptor, CHUNK, 0)
            return (value if value.endswith(b"\n") else read_whole(descriptor)).strip()
        finally:
            close_file(descriptor)
    except OSError as error:
        if error.errno in TOO_MANY:
            raise
        return None


def read_optional(path: str) -> bytes | None:
    """Return the content of `path`, a file on any file system; None if it cannot be read."""
    try:
        return read(path)
    except NotPresent:
        return None
    except OSError as error:
        if error.errno in TOO_MANY:
            raise
        return None


def read_number(path: str) -> int | None:
    """Return the number in `path`, a file of /sys; None if it has none, or one that means "unknown"."""
    value = read_value(path)
    return known(int(value)) if value and is_number(value) else None


def is_number(word: bytes) -> bool:
    """Return whether `word` is a number: not negative, and not longer than 64-bit numbers are."""
    return word.isdigit() and len(word) <= DIGITS


def known(number: int) -> int | None:
    """Return a number of a driver; None if it is one that means "unknown"."""
    return None if number in _UNKNOWN else number


def lines(content: bytes) -> list[bytes]:
    """Return the complete lines of `content`; a last line without its end may have a truncated number."""
    found = content.split(b"\n")
    del found[-1]
    return found


def text(raw: bytes) -> str:
    """Return a name of the kernel as text; bytes that are not UTF-8 become distinct surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def unexpected_content(line: bytes) -> ValueError:
    """Return the error for a line that does not have the file's format, or for an empty file."""
    if not line:
        return ValueError("is empty")
    shown = line[:_SHOWN]
    return ValueError(f"unexpected content: {text(shown)!r}{'...' if len(line) > _SHOWN else ''}")


class errors_in:  # noqa: N801  # reads as a word of the with statement
    """Context that turns a ValueError about the content of a file into a TargetError with its path."""

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
