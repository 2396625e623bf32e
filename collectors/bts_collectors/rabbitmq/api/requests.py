"""The requests of one collection: a request that fails does not prevent the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TypeVar

import msgspec

from bts_collectors.rabbitmq.api.responses import PartlyReadError, content
from bts_collectors.rabbitmq.errors import Failures
from bts_exporter import ByteBudget, HttpClient, HttpResponse, TargetError

T = TypeVar("T")

#: Unpacked bytes of all responses of one collection: about 40,000 queues with details, 250,000 by depth.
MAX_BYTES = 64 * 1024 * 1024
_ADVICE = "select fewer queues (queues_include, vhosts_include), or lower max_detailed_queues"


class RequestBatch:
    """Requests that share a time-out, a limit on bytes and a list of failures."""

    def __init__(self, client: HttpClient, timeout_seconds: float) -> None:
        self._client = client
        self._deadline = monotonic() + timeout_seconds
        self._budget = ByteBudget(MAX_BYTES, _ADVICE)
        #: Failures in the order of the requests.
        self.failures = Failures()

    def get(self, path: str, decoder: msgspec.json.Decoder[T], max_share: float = 1.0) -> T | None:
        """Return the decoded JSON at `path`; None after adding a failure."""
        return self.get_with(path, partial(content, decoder=decoder), max_share)

    def get_with(
        self, path: str, read: Callable[[HttpResponse], T], max_share: float = 1.0
    ) -> T | None:
        """Return what `read` makes of the response; None after adding a failure.

        The request may take `max_share` (0 to 1) of the time and bytes that are left; the rest is
        reserved for later requests.
        """
        self._budget.limit_share(max_share)
        timeout_seconds = max(max_share * (self._deadline - monotonic()), 0.0)
        try:
            return read(self._client.get(path, timeout_seconds, self._budget))
        except PartlyReadError as partly:
            self.failures.add(partly)
            return partly.content  # type: ignore[no-any-return]
        except TargetError as error:
            self.failures.add(error)
            return None
