"""Error handling for collections of several parts, such as files or devices: an error loses only its part."""

from __future__ import annotations

from types import TracebackType

from bts_exporter import NothingToRead, TargetError


class Parts:
    """A context for each part, which keeps its error; `check` raises the first error at the end.

    Errors that are kept are those of sources: OSError, TargetError and NothingToRead. All others pass.
    """

    __slots__ = ("_absent", "_error", "_found")

    def __init__(self) -> None:
        self._found = False
        self._absent: NothingToRead | None = None
        self._error: OSError | TargetError | None = None

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Keep the first error of a source, and let the next part be collected."""
        if error is None:
            self._found = True
        elif isinstance(error, NothingToRead):
            self._absent = self._absent or error
        elif isinstance(error, OSError | TargetError):
            self._error = self._error or error.with_traceback(None)
        else:
            return False
        return True

    def check(self) -> None:
        """Raise the first error of a part; NothingToRead where every part had nothing to read."""
        if self._error is not None:
            raise self._error
        if self._absent is not None and not self._found:
            raise self._absent
