"""One round of questions: what one of them gets no answer to, the others are still asked."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from bts_collectors.rabbitmq.api.client import Answer, Client
from bts_collectors.rabbitmq.api.http_limits import Allowance
from bts_collectors.rabbitmq.api.responses import PartlyReadError
from bts_collectors.rabbitmq.failures import Failures
from bts_exporter import TargetError

T = TypeVar("T")


class Round:
    """The questions of one collection, which has `seconds` and an allowance for all of them."""

    def __init__(self, client: Client, seconds: float) -> None:
        self._client = client
        self._deadline = monotonic() + seconds
        self._allowance = Allowance()
        #: What went wrong, in the order of the questions.
        self.failures = Failures()

    def ask(self, path: str, read: Callable[[Answer], T], share: float = 1.0) -> T | None:
        """Return what `read` makes of the answer, or None after noting why there is none.

        At most `share` of the time and of the bytes left is spent on it, so that some remains for
        the others.
        """
        self._allowance.begin(share)
        seconds = max(share * (self._deadline - monotonic()), 0.0)
        try:
            return read(self._client.get(path, seconds, self._allowance))
        except PartlyReadError as partly:
            self.failures.add(partly)
            return partly.content  # type: ignore[no-any-return]
        except TargetError as error:
            self.failures.add(error)
            return None

    def end(self) -> None:
        """Raise what went wrong, if anything did, with the first reason and all messages."""
        self.failures.raise_all()
