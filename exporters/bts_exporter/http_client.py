"""An HTTP client for APIs: one deadline for a whole request, and no response larger than agreed."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from threading import Lock, Timer
from time import monotonic
from typing import TYPE_CHECKING

from bts_exporter.connection_errors import Product
from bts_exporter.errors import TargetError
from bts_exporter.http_response import ByteBudget, HttpResponse
from bts_exporter.settings.tls import TLSConfig
from bts_exporter.settings.value_types import Secret, Url

if TYPE_CHECKING:
    from bts_exporter.http_connection import KeptConnection

_UNAUTHORIZED = 401
#: Seconds that `close` waits for a request that it has interrupted.
_CLOSE_TIMEOUT_SECONDS = 1.0
_NO_TLS_SETTINGS = TLSConfig()


class HttpClient:
    """A client of one HTTP API, for one thread; any thread may call `close`.

    The connection is kept between requests. It is replaced when the server closed it, and when the
    host name resolves to another address.
    """

    def __init__(
        self,
        product: Product,
        url: Url,
        *,
        password: Secret | None = None,
        tls: TLSConfig = _NO_TLS_SETTINGS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare requests to paths below `url`; no I/O.

        User and password of `url` are sent as basic authentication; `password` replaces that of `url`.
        `headers` are sent with each request. `product` is named in errors.
        """
        # Only collectors that create a client load urllib3.
        from bts_exporter import http_connection  # noqa: PLC0415

        self._errors = http_connection.ERRORS
        self._connection: KeptConnection = http_connection.KeptConnection(product, url, tls)
        self._username = url.username
        self._password = password or url.password
        self._headers = {
            "Accept": "*/*",
            "Accept-Encoding": "gzip",
            "User-Agent": "bts-exporter",
            **(headers or {}),
        }
        self._authorize()
        self._lock = Lock()

    def get(
        self, path: str, timeout_seconds: float, budget: ByteBudget | None = None
    ) -> HttpResponse:
        """Return the response to a GET of `path`, whatever its status, within `timeout_seconds`.

        Without `budget`, the response may have 64 MiB. TargetError if there is no complete response:
        it holds nothing of what was received. After status 401, a password that comes from a file or
        variable is read again, and the request is repeated if it has changed.
        """
        deadline = monotonic() + timeout_seconds
        # A socket's own time-out starts again with every byte.
        timer = Timer(timeout_seconds, self._connection.cut)
        timer.daemon = True
        with self._lock:
            timer.start()
            try:
                return self._request(path, budget or ByteBudget(), deadline)
            except self._errors as error:
                self._connection.disconnect()
                # A connection that was cut at the deadline fails in many ways.
                late = monotonic() >= deadline
                failure = self._connection.explain(
                    path, TimeoutError() if late else error, timeout_seconds
                )
            finally:
                timer.cancel()
                timer.join()  # it must not cut the next request
                if self._connection.closed:
                    self._connection.disconnect()
        # No variable may refer to `error`, whose frames hold what was received.
        raise TargetError(failure.reason, str(failure))

    def close(self) -> None:
        """Interrupt a running request and close the connection; later requests fail."""
        self._connection.close()
        if self._lock.acquire(timeout=_CLOSE_TIMEOUT_SECONDS):
            self._connection.disconnect()
            self._lock.release()

    def _request(self, path: str, budget: ByteBudget, deadline: float) -> HttpResponse:
        response = self._connection.get(path, self._headers, budget, deadline)
        if response.status == _UNAUTHORIZED and self._password is not None:
            password = self._password.reread()
            if password != self._password:
                self._password = password
                self._authorize()
                return self._connection.get(path, self._headers, budget, deadline)
        return response

    def _authorize(self) -> None:
        """Set the header for basic authentication, if there is a user or a password."""
        if self._username is None and self._password is None:
            return
        password = self._password.reveal() if self._password else ""
        credentials = f"{self._username or ''}:{password}".encode()
        self._headers["Authorization"] = "Basic " + b64encode(credentials).decode()
