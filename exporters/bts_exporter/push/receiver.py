"""Sends one batch to the receiver, and decides what its response means."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple

from bts_exporter.connection_errors import Product
from bts_exporter.errors import TargetError
from bts_exporter.http_client import HttpClient
from bts_exporter.http_proxy import proxy_of_environment
from bts_exporter.http_response import ByteBudget, HttpRequest, HttpResponse
from bts_exporter.push.http_config import HttpSettings
from bts_exporter.push.series import Encoder
from bts_exporter.settings.value_types import Url

#: How long a request may take, in seconds.
TIMEOUT = 30.0
#: Bytes of a response that are read.
_LONGEST_RESPONSE = 2**20
#: Characters of a response that a message quotes.
_QUOTED = 300
#: Statuses of a server that does not know the path, or not for this method: it may be another product.
_NOT_KNOWN = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
#: Statuses that say nothing about the batch, and the reason that failures are counted by: the batch is kept. Those
#: of a credential or address that is wrong are among them, so that an expired token loses nothing.
_REASONS = {
    HTTPStatus.UNAUTHORIZED: "auth",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "auth",
    HTTPStatus.FORBIDDEN: "noperm",
    HTTPStatus.NOT_FOUND: "protocol",
    HTTPStatus.METHOD_NOT_ALLOWED: "protocol",
    HTTPStatus.REQUEST_TIMEOUT: "timeout",
    HTTPStatus.TOO_MANY_REQUESTS: "busy",
    HTTPStatus.SERVICE_UNAVAILABLE: "busy",
}


class Verdict(Enum):
    """What happens to a batch."""

    TAKEN = "taken"
    #: The receiver will never take it.
    REFUSED = "refused"
    #: It is sent again later.
    FAILED = "failed"


class Reply(NamedTuple):
    """The result of sending a batch."""

    verdict: Verdict
    message: str = ""
    #: Why it failed, as the value of the label `reason`.
    reason: str = ""
    #: Seconds that the receiver asks for; None if it does not.
    retry_after: float | None = None
    #: Samples that were refused in a batch that was taken.
    rejected: int = 0


class Receiver:
    """The receiver of batches."""

    def __init__(
        self, product: Product, url: Url, settings: HttpSettings, encoder: Encoder
    ) -> None:
        """Take the address and how to authenticate; nothing is opened yet."""
        self._product = product
        self._url = url
        self._settings = settings
        self._encoder = encoder
        self._client: HttpClient | None = None

    def send(self, body: bytes) -> Reply:
        """Send a batch once, and return what came of it; never raises for a failure outside of this process."""
        path = f"?{self._url.query}" if self._url.query else ""
        request = HttpRequest(path, self._encoder.method, self._encoder.headers, body)
        try:
            self._client = self._connected()
            response = self._client.send(request, TIMEOUT, ByteBudget(_LONGEST_RESPONSE))
        except TargetError as error:
            if (decided := self._decided_by_status()) is not None:
                return decided
            message = str(error)
            if error.reason == "timeout":
                message = f"{self._product.name} at {self._url}: no response within {TIMEOUT:g} s"
            return Reply(Verdict.FAILED, message, error.reason)
        except OSError as error:  # a file with a secret
            return Reply(Verdict.FAILED, f"{error.filename}: {error.strerror}", "os")
        except ValueError as error:
            return Reply(Verdict.FAILED, str(error), "os")
        return self._reply(response)

    def _decided_by_status(self) -> Reply | None:
        """Return what the status means of a response whose body cannot be read; None if the batch is to be sent again."""
        status = self._client.status if self._client is not None else None
        if status is None:
            return None
        reply = self._reply(HttpResponse(str(self._url), status, b""))
        return None if reply.verdict is Verdict.FAILED else reply

    def close(self) -> None:
        """Interrupt a request that is under way; called from other threads."""
        if self._client is not None:
            self._client.close()

    def _connected(self) -> HttpClient:
        # A new one for each request, since secrets and certificates may have been replaced.
        found = self._settings.credentials()
        url = self._url
        username = found.username if found.username is not None else url.username
        proxy = self._settings.proxy or proxy_of_environment(url)
        return HttpClient(
            self._product,
            Url(url.scheme, url.host, url.port, url.path, username, url.password),
            password=found.password,
            tls=self._settings.tls,
            headers=found.headers,
            proxy=proxy,
        )

    def _reply(self, response: HttpResponse) -> Reply:
        status = response.status
        if HTTPStatus(200) <= status < HTTPStatus(300):
            rejected, why = self._encoder.rejected(bytes(response.body))
            return Reply(Verdict.TAKEN, why, rejected=rejected)
        text = bytes(response.body[: 4 * _QUOTED]).decode(errors="replace").strip()[:_QUOTED]
        message = f"{self._product.name} at {response.address}: status {_phrase(status)}"
        if HTTPStatus(300) <= status < HTTPStatus(400):
            message += f": redirects are not followed; use the address {response.location}"
        elif text:
            message += f": {text}"
        if status in _NOT_KNOWN and self._product.if_closed:
            message += f"; {self._product.if_closed}"
        if HTTPStatus(400) <= status < HTTPStatus(500) and status not in _REASONS:
            return Reply(Verdict.REFUSED, message, "protocol")
        reason = _REASONS.get(HTTPStatus(status), "protocol") if _is_known(status) else "protocol"
        return Reply(Verdict.FAILED, message, reason, _seconds(response.retry_after))


def _is_known(status: int) -> bool:
    return status in {known.value for known in HTTPStatus}


def _phrase(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}" if _is_known(status) else str(status)


def _seconds(retry_after: str) -> float | None:
    """Return the seconds that a header Retry-After means; None if it means none."""
    if retry_after.isdecimal() and retry_after.isascii():
        return float(retry_after[:9])
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None
