"""Files of /proc and /sys that stay open between reads, which saves two of three system calls."""

from __future__ import annotations

import errno
import os
from types import TracebackType

from bts_collectors.host._files import CHUNK, open_there, read_whole
from bts_exporter import TargetError


class KernelFile:
    """One file that every scrape reads; for one thread at a time, as a collector is.

    As a context it gives the content, and turns a ValueError into a TargetError that names the file.
    """

    __slots__ = ("_descriptor", "_short", "path")

    def __init__(self, path: str, short: int = 0) -> None:
        """Keep the path; no I/O here. A read of fewer than `short` bytes is known to be all."""
        self.path = path
        self._short = short
        self._descriptor: int | None = None

    def __del__(self) -> None:
        """Close it, now that nobody can be reading it any more."""
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
        if self._descriptor is not None:
            try:
                return read_whole(self._descriptor, self._short)
            except OSError:
                self.close()  # what it was is gone; another may have come in its place
        descriptor = open_there(self.path)
        try:
            return read_whole(descriptor, self._short)
        except OSError as error:
            error.filename = self.path
            raise
        finally:
            self._keep(descriptor)

    def head(self) -> bytes:
        """Return what a single read gives; OSError when the file cannot be read."""
        if self._descriptor is not None:
            try:
                return os.pread(self._descriptor, CHUNK, 0)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise  # an answer, too: such as the speed of a link that is down
                self.close()  # as above
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(descriptor, CHUNK, 0)
        finally:
            self._keep(descriptor)

    def value(self) -> bytes | None:
        """Return the one value in a file of /sys; None where it cannot be read.

        For what may be missing without anything being wrong: devices come and go, drivers differ.
        """
        try:
            return self.head().strip()
        except OSError:
            return None

    def close(self) -> None:
        """Close it; the next read opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _keep(self, descriptor: int) -> None:
        # What the kernel makes up has no size. A file on a disk may be replaced, which nobody would see.
        if os.fstatvfs(descriptor).f_blocks:
            os.close(descriptor)
        else:
            self._descriptor = descriptor
