"""Catches unexpected errors in the network thread.

The engine isolates the calls that it makes, but this thread is the collector's: an error that it
does not catch would end the thread.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class ErrorBoundary:
    """Context manager: reports an error, and continues after the `with` block."""

    def __init__(self, report: Callable[[Exception], None]) -> None:
        """Take the function that counts and logs an error; it must not raise."""
        self._report = report

    def __enter__(self) -> None:
        """Do nothing: only the end matters."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Report the error; return whether there was one, so that it is suppressed."""
        if not isinstance(error, Exception):
            return False
        self._report(error)
        return True
