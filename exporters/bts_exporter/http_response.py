"""Requests to an HTTP API, its responses, and the limit on how large responses may be."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

#: Bytes, unpacked, that a budget has by default.
DEFAULT_MAX_BYTES = 64 * 1024 * 1024


class HttpRequest(NamedTuple):
    """A request for `HttpClient.send`."""

    #: Below the path of the client's address; it may have a query.
    path: str
    method: str = "GET"
    #: In addition to those of the client, whose headers of the same name they replace.
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes | None = None


class HttpResponse(NamedTuple):
    """A complete response, whatever its status."""

    #: The address without credentials and without query, as errors show it.
    address: str
    status: int
    #: The body, unpacked. It is not copied, so a large one is held in memory once.
    body: bytes | bytearray
    #: Target of a redirect without its query; redirects are not followed.
    location: str = ""
    #: The header Content-Type; empty if there is none.
    content_type: str = ""
    #: The header Retry-After, as it was sent; empty if there is none.
    retry_after: str = ""


class ResponseTooLargeError(ValueError):
    """Raised when a server sends more than the budget allows."""


class ByteBudget:
    """The number of unpacked bytes that a series of responses may have in total."""

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES, advice: str = "") -> None:
        """Start with `max_bytes`; `advice` tells users which setting makes responses smaller."""
        self._max_bytes = max_bytes
        self._advice = advice
        self._total_left = max_bytes
        self._reserved = 0

    @property
    def remaining(self) -> int:
        """Return how many bytes the next response may have."""
        return self._total_left - self._reserved

    def limit_share(self, share: float) -> None:
        """Limit the next response to a share (0 to 1) of the bytes left; the rest is reserved."""
        self._reserved = int(self._total_left * (1 - share))

    def spend(self, size: int) -> None:
        """Subtract `size` bytes; ResponseTooLargeError if fewer are left."""
        remaining = self.remaining
        self._total_left -= min(size, remaining)
        if size > remaining:
            raise self.exceeded()

    def exceeded(self) -> ResponseTooLargeError:
        """Return the error for a response that is too large."""
        message = f"the response exceeds its share of the limit of {self._max_bytes} bytes"
        return ResponseTooLargeError(f"{message}; {self._advice}" if self._advice else message)
