"""Errors kept as a reason and a text.

An exception keeps the frames that it passed through, and with them every response that was being read.
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from bts_exporter import Reason, TargetError

#: Characters of one error text: it may quote a long response.
MAX_TEXT = 400


class Failure(NamedTuple):
    """Reason and text of a TargetError, without its frames."""

    reason: Reason
    text: str

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, error: TargetError) -> Failure:
        """Return reason and text of `error`."""
        return cls(error.reason, str(error)[:MAX_TEXT])

    def error(self) -> TargetError:
        """Return a new exception: one that is raised twice keeps the frames of both times."""
        return TargetError(self.reason, self.text)


class Failures:
    """The failures of one collection, in order."""

    def __init__(self) -> None:
        self._failures: list[Failure] = []

    def __len__(self) -> int:
        return len(self._failures)

    def __getitem__(self, index: int) -> Failure:
        return self._failures[index]

    def add(self, error: TargetError) -> None:
        """Add a failure."""
        self._failures.append(Failure.of(error))

    def raise_all(self) -> None:
        """Raise one TargetError with all texts and the reason of the first failure, if there is any."""
        if self._failures:
            _raise(self._failures[0].reason, "; ".join(dict.fromkeys(map(str, self._failures))))


def _raise(reason: Reason, text: str) -> NoReturn:
    raise TargetError(reason, text)
