"""Error handling for collections of several parts, such as files or devices: an error loses only its part."""

from __future__ import annotations

from types import TracebackType

from bts_exporter import NotPresent, Reason, TargetError

#: Errors whose text is in the message; a host may have hundreds of devices.
_SHOWN = 5


class Parts:
    """A context manager for each part, which keeps its error; `check` raises the errors at the end.

    It keeps errors of sources: OSError, TargetError and NotPresent. All others propagate.
    """

    __slots__ = ("_absent", "_errors", "_succeeded")

    def __init__(self) -> None:
        self._succeeded = False
        self._absent: NotPresent | None = None
        self._errors: list[OSError | TargetError] = []

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Keep the error of a source, so that the next part is collected."""
        if error is None:
            self._succeeded = True
        elif isinstance(error, NotPresent):
            self._absent = self._absent or error
        elif isinstance(error, OSError | TargetError):
            self._errors.append(error.with_traceback(None))
        else:
            return False
        return True

    def check(self) -> None:
        """Raise the error of the parts; NotPresent if no part had anything to read.

        Several errors become one TargetError with all of their texts and the reason of the first.
        """
        if len(self._errors) > 1:
            raise _combined(self._errors) from self._errors[0]
        if self._errors:
            raise self._errors[0]
        if self._absent is not None and not self._succeeded:
            raise self._absent


def _combined(errors: list[OSError | TargetError]) -> TargetError:
    texts = list(dict.fromkeys(map(str, errors)))
    rest = len(texts) - _SHOWN
    message = "; ".join(texts[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
    return TargetError(_reason_of(errors[0]), message)


def _reason_of(error: OSError | TargetError) -> Reason:
    if isinstance(error, TargetError):
        return error.reason
    return "noperm" if isinstance(error, PermissionError) else "os"
