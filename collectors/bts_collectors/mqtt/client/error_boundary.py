"""The one place where an unforeseen error of the network thread ends.

The engine isolates what it calls; a thread of the collector's own has nobody above it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class ErrorBoundary:
    """Hands an error to `report` and lets the thread go on behind the `with` block."""

    def __init__(self, report: Callable[[Exception], None]) -> None:
        """Give what counts and logs the error; it must not raise."""
        self._report = report

    def __enter__(self) -> None:
        """Begin the guarded block."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Return whether there was an error that is dealt with herewith."""
        if not isinstance(error, Exception):
            return False
        self._report(error)
        return True
