"""Calls statvfs(2) for mounts that may hang, so that a hanging mount does not delay the others.

If the server of a mount is gone, statvfs(2) blocks until it is back; it has no timeout.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from time import monotonic

#: Seconds without a result after which another thread takes over the remaining mounts.
_TAKEOVER_SECONDS = 0.05

#: Mounts that may hang at the same time, each with its thread; further mounts are skipped.
_MAX_STUCK = 100

#: What statvfs(2) returned or raised.
Result = os.statvfs_result | OSError | ValueError


class StatvfsPool:
    """One thread that calls statvfs(2) for each mount; another replaces it if a mount hangs.

    The thread idles between two calls of `query`, so that a scrape starts no thread if no mount hangs. A mount
    that hangs is skipped until its thread returns.
    """

    def __init__(self, statvfs: Callable[[bytes], os.statvfs_result]) -> None:
        self._statvfs = statvfs
        self._changed = threading.Condition()
        self._pending: deque[tuple[Hashable, bytes]] = deque()
        self._results: dict[Hashable, Result] = {}
        #: When each running call began (`time.monotonic`), including those that hang.
        self._began: dict[Hashable, float] = {}
        #: The thread that takes the next mount; threads that hang were replaced.
        self._worker: threading.Thread | None = None
        #: The mount that this thread is busy with; None while it idles.
        self._current: Hashable | None = None

    def query(
        self, paths: Mapping[Hashable, bytes], timeout: float, deadline: float
    ) -> dict[Hashable, Result]:
        """Return the result of statvfs(2), or its error, for each key of `paths`.

        A mount without a result after `timeout` seconds, or by `deadline` (`time.monotonic`), is left out, and
        so is, without waiting, a mount that still hangs since an earlier call.
        """
        with self._changed:
            results = self._results = {}
            self._pending = deque(item for item in paths.items() if item[0] not in self._began)
            awaited = {key for key, _ in self._pending}
            if self._pending:
                self._wake_worker()
            while (left := self._end(awaited, timeout, deadline) - monotonic()) > 0:
                self._changed.wait(min(left, _TAKEOVER_SECONDS) if self._pending else left)
                if self._pending and self._is_stuck():
                    self._wake_worker()
            self._pending.clear()
            return dict(results)

    def stop(self) -> None:
        """Let the thread end; a thread that hangs ends when its call returns."""
        with self._changed:
            self._worker = self._current = None
            self._pending.clear()
            self._changed.notify_all()

    def _end(self, awaited: set[Hashable], timeout: float, deadline: float) -> float:
        """Return until when to wait (`time.monotonic`); 0 if there is nothing to wait for."""
        if self._pending:
            return deadline
        began = [since for key, since in self._began.items() if key in awaited]
        return min(max(began) + timeout, deadline) if began else 0

    def _is_stuck(self) -> bool:
        if self._current is None:
            return False
        return monotonic() - self._began[self._current] >= _TAKEOVER_SECONDS

    def _wake_worker(self) -> None:
        """Let the idle thread handle the pending mounts, or a new thread if there is no idle one."""
        if self._worker is not None and self._current is None:
            self._changed.notify_all()
        elif len(self._began) < _MAX_STUCK:
            worker = threading.Thread(target=self._work, name="bts-statvfs", daemon=True)
            worker.start()
            self._worker, self._current = worker, None
        else:
            self._pending.clear()

    def _work(self) -> None:
        while (mount := self._take()) is not None:
            key, path, results = mount
            result: Result
            try:
                result = self._statvfs(path)
            except (OSError, ValueError) as error:
                result = error
            self._store(key, result, results)

    def _take(self) -> tuple[Hashable, bytes, dict[Hashable, Result]] | None:
        """Wait for the next mount and return it; None if another thread has replaced this one."""
        with self._changed:
            while self._worker is threading.current_thread():
                if self._pending:
                    key, path = self._pending.popleft()
                    self._began[key], self._current = monotonic(), key
                    return key, path, self._results
                self._changed.wait()
            return None

    def _store(self, key: Hashable, result: Result, results: dict[Hashable, Result]) -> None:
        with self._changed:
            del self._began[key]
            results[key] = result
            if self._worker is threading.current_thread():
                self._current = None
            if not self._pending:
                self._changed.notify_all()
