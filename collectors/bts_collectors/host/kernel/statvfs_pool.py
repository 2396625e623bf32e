"""Asking mounts that may never answer, so that one which hangs delays no other's answer.

A mount whose server is gone blocks statvfs(2) for as long as the server is: no time-out reaches it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from time import monotonic

#: Seconds after which the mounts behind a silent one are asked by another thread.
_PATIENCE = 0.05

#: Mounts that may hang at once, each with its thread; those beyond are not asked.
_MOST_STUCK = 100

Answer = os.statvfs_result | OSError | ValueError


class StatvfsPool:
    """One thread that asks mounts for their figures; left to a mount that hangs, and replaced.

    It idles between two calls of `ask`, so that a scrape starts no thread as long as all is well.
    A mount that hangs is not asked again before its thread is back.
    """

    def __init__(self, statvfs: Callable[[bytes], os.statvfs_result]) -> None:
        self._statvfs = statvfs
        self._changed = threading.Condition()
        self._pending: deque[tuple[Hashable, bytes]] = deque()
        self._answers: dict[Hashable, Answer] = {}
        #: Since when each mount is being asked, those that hang among them.
        self._asked: dict[Hashable, float] = {}
        #: The thread whose turn it is; those that hang have lost theirs.
        self._worker: threading.Thread | None = None
        #: What that thread is asking; None while it idles.
        self._current: Hashable | None = None

    def ask(
        self, paths: Mapping[Hashable, bytes], timeout: float, deadline: float
    ) -> dict[Hashable, Answer]:
        """Return an answer for each key of `paths`, the errors of statvfs among them.

        What has no answer after `timeout` seconds of its own or by `deadline`, on the clock of
        `time.monotonic`, is missing; what hangs since an earlier call is missing without waiting.
        """
        with self._changed:
            answers = self._answers = {}
            self._pending = deque(item for item in paths.items() if item[0] not in self._asked)
            awaited = {key for key, _ in self._pending}
            if self._pending:
                self._give_turn()
            while (left := self._end(awaited, timeout, deadline) - monotonic()) > 0:
                self._changed.wait(min(left, _PATIENCE) if self._pending else left)
                if self._pending and self._is_silent():
                    self._give_turn()
            self._pending.clear()
            return dict(answers)

    def stop(self) -> None:
        """Let the thread end; one that hangs ends when it is back."""
        with self._changed:
            self._worker = self._current = None
            self._pending.clear()
            self._changed.notify_all()

    def _end(self, awaited: set[Hashable], timeout: float, deadline: float) -> float:
        """Return until when there is something to wait for; 0 when there is nothing."""
        if self._pending:
            return deadline
        asked = [since for key, since in self._asked.items() if key in awaited]
        return min(max(asked) + timeout, deadline) if asked else 0

    def _is_silent(self) -> bool:
        return self._current is not None and monotonic() - self._asked[self._current] >= _PATIENCE

    def _give_turn(self) -> None:
        """Have what is pending asked by the thread that idles, else by a new one."""
        if self._worker is not None and self._current is None:
            self._changed.notify_all()
        elif len(self._asked) < _MOST_STUCK:
            worker = threading.Thread(target=self._work, name="bts-statvfs", daemon=True)
            worker.start()
            self._worker, self._current = worker, None
        else:
            self._pending.clear()

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            key, path, answers = taken
            answer: Answer
            try:
                answer = self._statvfs(path)
            except (OSError, ValueError) as error:
                answer = error
            self._note(key, answer, answers)

    def _take(self) -> tuple[Hashable, bytes, dict[Hashable, Answer]] | None:
        """Return the next mount, as soon as there is one; None when it is no longer our turn."""
        with self._changed:
            while self._worker is threading.current_thread():
                if self._pending:
                    key, path = self._pending.popleft()
                    self._asked[key], self._current = monotonic(), key
                    return key, path, self._answers
                self._changed.wait()
            return None

    def _note(self, key: Hashable, answer: Answer, answers: dict[Hashable, Answer]) -> None:
        with self._changed:
            del self._asked[key]
            answers[key] = answer
            if self._worker is threading.current_thread():
                self._current = None
            if not self._pending:
                self._changed.notify_all()
