"""Finds out that the configuration file has changed, for --config.auto-reload."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

#: How often the file is looked at, in seconds.
_INTERVAL = 1.0
#: How long after a failed reload it is repeated, in seconds: a Secret that new settings name may arrive later.
_RETRY = 60.0

#: What changes whenever a file, or a link to it, is written or replaced. None: there is no file.
_Version = tuple[int, int, int, int] | None


class SettingsWatch:
    """Decides when the configuration file has to be loaded again."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Watch `path`, which is loaded after this."""
        self._path = path
        self._clock = clock
        self._loaded = self._last = self._version()
        self._next_look = clock() + _INTERVAL
        self._next_retry = 0.0

    def due(self, *, failed: bool) -> bool:
        """Return whether to reload now; `failed` is whether the last reload failed.

        A file that is being written changes from one look to the next, and is not loaded before it rests.
        """
        now = self._clock()
        if now < self._next_look:
            return False
        self._next_look = now + _INTERVAL
        version = self._version()
        rests, self._last = version == self._last, version
        if not rests or version is None:
            return False
        if version == self._loaded and not (failed and now >= self._next_retry):
            return False
        self._loaded, self._next_retry = version, now + _RETRY
        return True

    def _version(self) -> _Version:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
