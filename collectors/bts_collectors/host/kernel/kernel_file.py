"""Files of /proc and /sys that stay open between reads, which saves two of three system calls."""

from __future__ import annotations

import errno
import os
from itertools import count
from types import TracebackType

from bts_collectors.host.kernel.files import CHUNK, SINGLE_RECORD, open_there, read_whole
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
    """A file that every scrape reads; for use by one thread at a time, like a collector.

    As a context manager it returns the content, and turns a ValueError into a TargetError with its path.
    """

    __slots__ = ("_complete_below", "_key", "path")

    def __init__(self, path: str, complete_below: int = 0) -> None:
        """Keep the path; no I/O here.

        A first read of fewer than `complete_below` bytes is known to be the whole file, if the kernel generates it.
        """
        self.path = path
        self._complete_below = complete_below
        self._key = next(_keys)

    def __del__(self) -> None:
        """Close the file: nothing can read it any more."""
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
        """Turn a ValueError into a TargetError that names the file."""
        if isinstance(error, ValueError):
            raise TargetError(reason="protocol", message=f"{self.path}: {error}") from error

    def read(self) -> bytes:
        """Return the content; NotPresent if the file is absent, else OSError that names it."""
        descriptor = idle.pop(self._key, None)
        if descriptor is not None:
            try:
                content = read_whole(descriptor, self._complete_below)
            except OSError:
                # Its device or process is gone; another may have its path now.
                close_file(descriptor)
            else:
                idle[self._key] = descriptor
                return content
        try:
            return self._read_new(open_there(self.path), self._complete_below)
        except OSError as error:
            error.filename = self.path
            raise

    def head(self) -> bytes:
        """Return the content of a file that is complete after one read; OSError if it cannot be read."""
        descriptor = idle.pop(self._key, None)
        if descriptor is not None:
            try:
                # A single call, since there are hundreds of these files.
                content = os.pread(descriptor, CHUNK, 0)
                if len(content) == CHUNK:
                    content = read_whole(descriptor)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    idle[self._key] = descriptor
                    raise  # the driver has no value, such as the speed of a link that is down
                close_file(descriptor)  # as above
            else:
                idle[self._key] = descriptor
                return content
        return self._read_new(open_file(self.path), SINGLE_RECORD)

    def value(self) -> bytes | None:
        """Return the value in a file of /sys with one value; None if it cannot be read.

        For files that may be missing without an error: devices come and go, drivers differ.
        """
        try:
            return self.head().strip()
        except OSError as error:
            if error.errno in TOO_MANY:
                raise
            return None

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        descriptor = idle.pop(self._key, None)
        if descriptor is not None:
            close_file(descriptor)

    def _read_new(self, descriptor: int, complete_below: int) -> bytes:
        """Return the content of a file that was just opened, and keep the file open if that is allowed."""
        keep = room() > 0 and is_kernel_made(descriptor)
        try:
            # Only files that the kernel generates are known to be complete after one read.
            return read_whole(descriptor, complete_below if keep else 0)
        except OSError as error:
            keep = keep and error.errno == errno.EINVAL
            raise
        finally:
            if keep:
                idle[self._key] = descriptor
            else:
                close_file(descriptor)
