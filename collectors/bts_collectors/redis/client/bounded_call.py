"""Calls that cannot be interrupted, such as a name lookup, with a deadline for their result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from time import monotonic
from types import TracebackType
from typing import Any


class BoundedCall:
    """Runs one call at a time in a thread; a late one goes on, and its result is used next time."""

    def __init__(self, thread_name: str) -> None:
        """Take the name of the threads."""
        self._thread_name = thread_name
        self._current: _Call | None = None

    def outcome(
        self, key: Hashable, function: Callable[[], Any], deadline: float
    ) -> tuple[Any, BaseException | None]:
        """Return what `function` returned, and what it raised; TimeoutError at the deadline.

        Calls with the same `key` are the same call. RuntimeError if no thread can be started.
        """
        current = self._current
        if current is None or not current.is_alive() or current.key != key:
            current = self._current = _Call(self._thread_name, key, function)
            current.start()
        current.join(max(deadline - monotonic(), 0))
        if current.is_alive():
            raise TimeoutError
        self._current = None
        return current.value, current.error


class _Call(threading.Thread):
    def __init__(self, name: str, key: Hashable, function: Callable[[], Any]) -> None:
        super().__init__(name=name, daemon=True)
        self.key = key
        self._function = function
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        with ExitStack() as stack:
            stack.push(self._keep_error)
            self.value = self._function()

    def _keep_error(
        self,
        _: type[BaseException] | None,
        error: BaseException | None,
        __: TracebackType | None,
    ) -> bool:
        """Keep the error for the thread that waits, without the frames and the data in them."""
        self.error = error and error.with_traceback(None)
        return True
