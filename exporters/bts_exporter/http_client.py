"""An HTTP client for APIs: one deadline for a whole request, and no response larger than agreed."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from threading import RLock, Timer
from time import monotonic
from typing import TYPE_CHECKING

from bts_exporter.connection_errors import Product
from bts_exporter.errors import TargetError
from bts_exporter.http_dialing import Phase
from bts_exporter.http_response import ByteBudget, HttpRequest, HttpResponse
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

    def __init__(  # noqa: PLR0913  # all but two by name
        self,
        product: Product,
        url: Url,
        *,
        password: Secret | None = None,
        token: Secret | None = None,
        tls: TLSConfig = _NO_TLS_SETTINGS,
        headers: Mapping[str, str] | None = None,
        proxy: Url | None = None,
    ) -> None:
        """Prepare requests to paths below `url`; no I/O.

        User and password of `url` are sent as basic authentication; `password` replaces that of `url`.
        A `token` is sent instead, as bearer authentication; ValueError if no header can have it.
        `headers` are sent with each request, through the HTTP proxy `proxy` if there is one. `product` is
        named in errors.
        """
        # Only collectors that create a client load urllib3.
        from bts_exporter import http_connection  # noqa: PLC0415

        self._errors = http_connection.ERRORS
        self._connection: KeptConnection = http_connection.KeptConnection(product, url, tls, proxy)
        self._username = url.username
        self._password = password or url.password
        self._token = token
        if token and not _is_header_value(token):
            msg = "token: it has line ends or characters that no header has"
            raise ValueError(msg)
        self._headers = {
            "Accept": "*/*",
            "Accept-Encoding": "gzip",
            "User-Agent": "bts-exporter",
            **(headers or {}),
        }
        self._authorize()
        self._lock = RLock()

    def get(
        self, path: str, timeout_seconds: float, budget: ByteBudget | None = None
    ) -> HttpResponse:
        """Return the response to a GET of `path`, whatever its status, within `timeout_seconds`.

        Without `budget`, the response may have 64 MiB. TargetError if there is no complete response:
        it holds nothing of what was received. After status 401, a password that comes from a file or
        variable is read again, and the request is repeated if it has changed.
        """
        budget = budget or ByteBudget()
        return self._limited(
            path, timeout_seconds, lambda deadline: self._get(path, budget, deadline)
        )

    def send(
        self, request: HttpRequest, timeout_seconds: float, budget: ByteBudget | None = None
    ) -> HttpResponse:
        """Return the response to `request`, whatever its status, within `timeout_seconds`.

        It is sent once, on a connection of its own: for requests that must not be repeated, and to
        measure all `phases`. Otherwise as `get`; after status 401, the secret that is read again is
        used for the next request.
        """
        budget = budget or ByteBudget()
        return self._limited(
            request.path, timeout_seconds, lambda deadline: self._send(request, budget, deadline)
        )

    @property
    def phases(self) -> Mapping[Phase, float]:
        """Return the seconds that the phases of the last request took, as far as they ended.

        An address needs no `dns`, and a kept connection neither `dns`, `connect` nor `tls`.
        """
        return self._connection.clock.seconds

    @property
    def status(self) -> int | None:
        """Return the status of the last response, also if its body could not be read; None if there was none."""
        return self._connection.status

    @property
    def certificate_expiry(self) -> float | None:
        """Return when the certificate of the last TLS handshake expires, in Unix time; None without TLS."""
        return self._connection.certificate_expiry

    def close(self) -> None:
        """Interrupt a running request and close the connection; later requests fail."""
        self._connection.close()
        # Until the result is known: an exception from another thread may be raised right after the call.
        held = True
        try:
            held = self._lock.acquire(timeout=_CLOSE_TIMEOUT_SECONDS)
            if held:
                self._connection.disconnect()
        finally:
            if held:
                self._lock.release()

    def _limited(
        self, path: str, timeout_seconds: float, exchange: Callable[[float], HttpResponse]
    ) -> HttpResponse:
        """Return what `exchange` returns for a deadline; TargetError if that is no complete response."""
        deadline = monotonic() + timeout_seconds
        # A socket's own time-out starts again with every byte.
        timer = Timer(timeout_seconds, self._connection.cut)
        timer.daemon = True
        with self._lock:
            timer.start()
            try:
                return exchange(deadline)
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

    def _get(self, path: str, budget: ByteBudget, deadline: float) -> HttpResponse:
        response = self._connection.get(path, self._headers, budget, deadline)
        if response.status == _UNAUTHORIZED and self._has_new_secret():
            return self._connection.get(path, self._headers, budget, deadline)
        return response

    def _send(self, request: HttpRequest, budget: ByteBudget, deadline: float) -> HttpResponse:
        headers = {**self._headers, "Connection": "close", **request.headers}
        response = self._connection.send(request._replace(headers=headers), budget, deadline)
        if response.status == _UNAUTHORIZED:
            self._has_new_secret()
        return response

    def _has_new_secret(self) -> bool:
        """Read password and token again; return whether one has changed, and use it."""
        before = self._password, self._token
        self._password = self._password and self._password.reread()
        token = self._token and self._token.reread()
        if token and _is_header_value(token):
            self._token = token
        self._authorize()
        return before != (self._password, self._token)

    def _authorize(self) -> None:
        """Set the header Authorization, if there is a token, user or password."""
        if self._token is not None:
            self._headers["Authorization"] = f"Bearer {self._token.reveal()}"
            return
        if self._username is None and self._password is None:
            return
        password = self._password.reveal() if self._password else ""
        credentials = f"{self._username or ''}:{password}".encode()
        self._headers["Authorization"] = "Basic " + b64encode(credentials).decode()


def _is_header_value(token: Secret) -> bool:
    # http.client would refuse it, too, and quote it.
    return token.reveal().isascii() and token.reveal().isprintable()
