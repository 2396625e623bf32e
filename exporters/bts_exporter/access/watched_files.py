"""Files that are read with limits, and watched for changes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: Bytes of a file: a bundle of all public authorities has a quarter of it.
_MAX_BYTES = 1024 * 1024

_Signature = tuple[int, int, int, int, int]


class WatchedFiles:
    """Reads files, and notices later that one of them was changed or replaced."""

    def __init__(self) -> None:
        self._seen: dict[Path, _Signature | None] = {}

    def read(self, path: Path) -> bytes:
        """Return the content; OSError or ValueError with the reason if it cannot be read."""
        self.watch(path)
        # A pipe without a writer would block here.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                msg = "not a regular file"
                raise ValueError(msg)
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            msg = f"larger than {_MAX_BYTES} bytes"
            raise ValueError(msg)
        return content

    def watch(self, path: Path) -> None:
        """Remember a file that is about to be read, so that a change in the meantime is noticed, too."""
        self._seen[path] = _signature(path)

    def changed(self) -> bool:
        """Return whether a file that was read, or could not be, is not the same now."""
        return any(_signature(path) != seen for path, seen in self._seen.items())


def _signature(path: Path) -> _Signature | None:
    """Return what changes with a file's content, or with a link on the way to it."""
    try:
        found = os.stat(path)  # noqa: PTH116  # for every request
    except (OSError, ValueError):  # ValueError: a path with a null character
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
