"""Files of /proc and /sys that stay open between reads, which saves two of three system calls."""

from __future__ import annotations

import errno
import os
from itertools import count
from types import TracebackType

from bts_collectors.host.kernel.files import AT_ONCE, CHUNK, open_there, read_whole
from bts_collectors.host.kernel.open_files import (
    TOO_MANY,
    close_file,
    idle,
    is_kernel_made,
    open_file,
    room,
)
from bts_exporter import TargetError

_keys = count()


class KernelFile:
    """One file that every scrape reads; for one thread at a time, as a collector is.

    As a context it gives the content, and turns a ValueError into a TargetError that names the file.
    """

    __slots__ = ("_key", "_short", "path")

    def __init__(self, path: str, short: int = 0) -> None:
        """Keep the path; no I/O here.

        `short` is for files of the kernel: a read of fewer bytes is known to be all.
        """
        self.path = path
        self._short = short
        self._key = next(_keys)

    def __del__(self) -> None:
        """Close it: nothing can read it any more."""
        self.close()

    def __enter__(self) -> bytes:
        """Return the content, as `read` does."""
        return self.read()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Name the file in the error for content that makes no sense."""
        if isinstance(error, ValueError):
            raise TargetError(reason="protocol", message=f"{self.path}: {error}") from error

    def read(self) -> bytes:
        """Return the content; NothingToRead when the file is absent, OSError naming it otherwise."""
        descriptor = idle.pop(self._key, None)
        if descriptor is not None:
            try:
                content = read_whole(descriptor, self._short)
            except OSError:
                close_file(descriptor)  # its device or process is gone; another may have its path
            else:
                idle[self._key] = descriptor
                return content
        try:
            return self._read_new(open_there(self.path), self._short)
        except OSError as error:
            error.filename = self.path
            raise

    def head(self) -> bytes:
        """Return the content of a file that the kernel gives at once; OSError when it cannot be read."""
        descriptor = idle.pop(self._key, None)
        if descriptor is not None:
            try:
                content = os.pread(descriptor, CHUNK, 0)  # not a call more: there are hundreds
                if len(content) == CHUNK:
                    content = read_whole(descriptor)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    idle[self._key] = descriptor
                    raise  # an answer, too: such as the speed of a link that is down
                close_file(descriptor)  # as above
            else:
                idle[self._key] = descriptor
                return content
        return self._read_new(open_file(self.path), AT_ONCE)

    def value(self) -> bytes | None:
        """Return the one value in a file of /sys; None where it cannot be read.

        For what may be missing without anything being wrong: devices come and go, drivers differ.
        """
        try:
            return self.head().strip()
        except OSError as error:
            if error.errno in TOO_MANY:
                raise
            return None

    def close(self) -> None:
        """Close it; the next read opens it again."""
        descriptor = idle.pop(self._key, None)
        if descriptor is not None:
            close_file(descriptor)

    def _read_new(self, descriptor: int, short: int) -> bytes:
        """Return the content of a file that was just opened, and keep that open if it may stay so."""
        keep = room() > 0 and is_kernel_made(descriptor)
        try:
            # Only the kernel's own files are known to come in one piece.
            return read_whole(descriptor, short if keep else 0)
        except OSError as error:
            keep = keep and error.errno == errno.EINVAL
            raise
        finally:
            if keep:
                idle[self._key] = descriptor
            else:
                close_file(descriptor)
