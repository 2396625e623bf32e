"""One round of questions: what one of them gets no answer to, the others are still asked."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from bts_collectors.rabbitmq.api.responses import PartlyReadError
from bts_collectors.rabbitmq.failures import Failures
from bts_exporter import ByteBudget, HttpClient, HttpResponse, TargetError

T = TypeVar("T")

#: Unpacked bytes of all responses of one collection: about 40,000 queues with details, or 250,000 by depth.
MAX_BYTES = 64 * 1024 * 1024
_ADVICE = "select fewer queues (queues_include, vhosts_include), or lower max_detailed_queues"


class Round:
    """The questions of one collection, which has `seconds` and an allowance for all of them."""

    def __init__(self, client: HttpClient, seconds: float) -> None:
        self._client = client
        self._deadline = monotonic() + seconds
        self._budget = ByteBudget(MAX_BYTES, _ADVICE)
        #: What went wrong, in the order of the questions.
        self.failures = Failures()

    def ask(self, path: str, read: Callable[[HttpResponse], T], share: float = 1.0) -> T | None:
        """Return what `read` makes of the answer, or None after noting why there is none.

        At most `share` of the time and of the bytes left is spent on it, so that some remains for
        the others.
        """
        self._budget.limit_share(share)
        seconds = max(share * (self._deadline - monotonic()), 0.0)
        try:
            return read(self._client.get(path, seconds, self._budget))
        except PartlyReadError as partly:
            self.failures.add(partly)
            return partly.content  # type: ignore[no-any-return]
        except TargetError as error:
            self.failures.add(error)
            return None

    def end(self) -> None:
        """Raise what went wrong, if anything did, with the first reason and all messages."""
        self.failures.raise_all()
