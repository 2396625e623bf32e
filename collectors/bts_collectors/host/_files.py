"""How kernel files are read: whole, with few system calls, and with errors that name the file."""

from __future__ import annotations

import os
from types import TracebackType

from bts_exporter import NothingToRead, TargetError

#: Bytes asked for at once: more than most files of /proc have.
CHUNK = 16384

#: What the kernel makes at one stroke (single_open, /proc/sys) comes whole in one read.
AT_ONCE = CHUNK

#: Of a table with no line above 1 KB a page holds more than this: less is all of it.
TABLE = 3072

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
        os.close(descriptor)


def open_there(path: str) -> int:
    """Return a descriptor of `path`; NothingToRead when it is absent, OSError naming it otherwise."""
    try:
        return os.open(path, os.O_RDONLY)
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


def read_value(path: str, folder: int | None = None) -> bytes | None:
    """Return the one value in `path`, a file of /sys; None where it cannot be read.

    For what may be missing without anything being wrong: devices come and go, drivers differ.
    `folder` is a descriptor that a relative path begins at, which saves the way there.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY, dir_fd=folder)
        try:
            return os.read(descriptor, CHUNK).strip()
        finally:
            os.close(descriptor)
    except OSError:
        return None


def read_number(path: str) -> int | None:
    """Return the number in `path`, a file of /sys; None where there is none."""
    value = read_value(path)
    return int(value) if value and value.isdigit() else None


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
