"""One kept HTTP connection, and what its errors mean."""

from __future__ import annotations

import http.client
import socket
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from bts_exporter.address_watch import AddressWatch
from bts_exporter.certificate import expiry_of
from bts_exporter.connection_errors import Product, connection_error
from bts_exporter.errors import TargetError
from bts_exporter.http_dialing import PhaseClock, dial
from bts_exporter.http_limits import MAX_FRAMING_BYTES, LimitedResponse, check_time, read_body
from bts_exporter.http_proxy import authorization, open_tunnel, target_for
from bts_exporter.http_response import ByteBudget, HttpRequest, HttpResponse
from bts_exporter.settings.tls import TLSConfig
from bts_exporter.settings.value_types import Url

if TYPE_CHECKING:
    import ssl

#: What a request can raise: errors of the library, of the network, and for an unusable response.
ERRORS = (exceptions.HTTPError, http.client.HTTPException, OSError, ValueError, zlib.error)

#: Characters of an error text: it may quote what the server sent.
MAX_ERROR_TEXT = 400
#: Start of the replies of other protocols, as `http.client` quotes them.
_AMQP, _TLS_ALERT = "AMQP", "\x15\x03"
#: Characters of an invalid status line that an error quotes.
_MAX_QUOTED_LINE = 40


class KeptConnection:
    """A connection that stays open between requests; for one thread, except `close` and `cut`."""

    def __init__(
        self, product: Product, url: Url, tls: TLSConfig, proxy: Url | None = None
    ) -> None:
        self._product = product
        self._url = url
        self._tls = tls
        self._proxy = proxy
        self._watch = AddressWatch((proxy or url).host)
        self._peer = ""
        self._connection: HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self.closed = False
        #: The phases of the last request.
        self.clock = PhaseClock()
        #: The status of the last response, even if its body did not arrive; None if there was none.
        self.status: int | None = None
        #: When the certificate of the last TLS handshake expires, in Unix time.
        self.certificate_expiry: float | None = None

    def send(self, request: HttpRequest, budget: ByteBudget, deadline: float) -> HttpResponse:
        """Return the response to `request`, sent once on a new connection; one of ERRORS if there is none."""
        try:
            return self._exchange(self._connect(deadline), request, budget, deadline)
        finally:
            self.disconnect()

    def get(
        self, path: str, headers: Mapping[str, str], budget: ByteBudget, deadline: float
    ) -> HttpResponse:
        """Return the response to a GET of `path`; one of ERRORS if there is none."""
        request = HttpRequest(path, headers=headers)
        self.clock = PhaseClock()
        connection = self._connection
        if connection is not None and self._watch.has_moved(self._peer):
            self.disconnect()
        elif connection is not None and connection.is_connected:
            # The server may close an idle connection at this moment: that deserves a second attempt.
            with suppress(ConnectionError):
                return self._exchange(connection, request, budget, deadline)
        return self._exchange(self._connect(deadline), request, budget, deadline)

    def disconnect(self) -> None:
        """Close the connection; the next request opens another one."""
        self._socket = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def cut(self) -> None:
        """Interrupt the thread that is waiting for the socket; called from other threads."""
        if (used := self._socket) is not None:
            with suppress(OSError):
                # Not the method of TLS sockets, which discards what the other thread is using.
                socket.socket.shutdown(used, socket.SHUT_RDWR)

    def close(self) -> None:
        """Interrupt a request that is running, and refuse later ones; called from other threads."""
        self.closed = True
        self.cut()

    def address(self, path: str) -> str:
        """Return the address of `path` without credentials and query."""
        return str(self._url).rstrip("/") + path.partition("?")[0]

    def explain(self, path: str, error: BaseException, timeout_seconds: float) -> TargetError:
        """Return what `error` means, one of ERRORS."""
        address = self.address(path)
        if self.closed:
            return TargetError("unreachable", f"{address}: the collector is stopped")
        while isinstance(error, exceptions.HTTPError) and error.__cause__ is not None:
            error = error.__cause__
        if what := _unusable(error, self._product):
            text = f"{self._product.name} at {address}: {what[:MAX_ERROR_TEXT]}"
            return TargetError("protocol", text)
        if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
            error = EOFError()
        failure = connection_error(self._product, address, error)
        if failure.reason == "timeout":
            text = f"{failure} ({timeout_seconds:.1f} s; the setting interval allows more time)"
            return TargetError("timeout", text)
        return failure

    def _exchange(
        self, connection: HTTPConnection, request: HttpRequest, budget: ByteBudget, deadline: float
    ) -> HttpResponse:
        self.status = None
        limit = budget.remaining + MAX_FRAMING_BYTES
        connection.response_class = partial(LimitedResponse, limit=limit)  # type: ignore[assignment]
        connection.timeout = _left(deadline)
        target = self._url.path.rstrip("/") + request.path or "/"
        headers = request.headers
        if self._proxy is not None and self._url.scheme == "http":
            target = target_for(self._url, target)
            headers = {**headers, **authorization(self._proxy)}
        # A server that refuses a large body may answer and close before it has read all of it.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(request.method, target, request.body, headers, preload_content=False)
        connection.timeout = _left(deadline)
        response = connection.getresponse()
        self.status = response.status
        self.clock.end("processing")
        body = read_body(response, budget, deadline)
        self.clock.end("receive")
        # The query of a proxy's login page may contain a token.
        location = response.headers.get("Location", "").partition("?")[0]
        content_type = response.headers.get("Content-Type", "")
        address = self.address(request.path)
        retry_after = response.headers.get("Retry-After", "")
        return HttpResponse(address, response.status, body, location, content_type, retry_after)

    def _connect(self, deadline: float) -> HTTPConnection:
        self.disconnect()
        self.clock, self.certificate_expiry, self.status = PhaseClock(), None, None
        self._check_open()
        # Before there is a connection, which must not be kept without TLS if a file is missing.
        context = self._tls.context() if self._url.scheme == "https" else None
        connection = self._connection = self._build()
        self.clock = PhaseClock()  # reading the authorities is not the server's time
        place = self._proxy or self._url
        plain = connection.sock = self._socket = dial(place, deadline, self.clock)
        self._check_open()  # before there was a socket, `close` had nothing to interrupt
        self._peer = str(plain.getpeername()[0])
        self._watch.has_moved(self._peer)  # notes that the name was resolved just now
        if context is not None and self._proxy is not None:
            plain.settimeout(_left(deadline))
            open_tunnel(plain, self._url, self._proxy)
        if context is not None:
            self._start_tls(connection, plain, context, deadline)
        return connection

    def _start_tls(
        self,
        connection: HTTPConnection,
        plain: socket.socket,
        context: ssl.SSLContext,
        deadline: float,
    ) -> None:
        context.set_alpn_protocols(["http/1.1"])
        name = self._tls.server_name or self._url.host.rstrip(".")
        secure = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
        connection.sock = self._socket = secure
        self._check_open()  # `close` may have interrupted the socket that is replaced
        secure.settimeout(_left(deadline))
        secure.do_handshake()
        self.clock.end("tls")
        self.certificate_expiry = expiry_of(secure.getpeercert(binary_form=True) or b"")

    def _check_open(self) -> None:
        if self.closed:
            msg = "the collector is stopped"
            raise ConnectionAbortedError(msg)

    def _build(self) -> HTTPConnection:
        kind = HTTPSConnection if self._url.scheme == "https" else HTTPConnection
        return kind(self._url.host, self._url.port)


def _unusable(error: BaseException, product: Product) -> str:
    """Return the defect of a response that arrived; empty if none arrived."""
    match error:
        case UnicodeError() | http.client.RemoteDisconnected() | http.client.IncompleteRead():
            return ""
        case http.client.BadStatusLine():
            return _not_http(str(error.args[0]), product)
        case http.client.HTTPException():
            return f"unexpected reply (expected HTTP): {error}"
        case zlib.error():
            return f"the response is not valid gzip: {error}"
        case exceptions.HTTPError() | ValueError() if not isinstance(error, OSError):
            return f"unexpected reply: {error}"
        case _:
            return ""


def _not_http(line: str, product: Product) -> str:
    if _TLS_ALERT in line[:10]:
        return "this port speaks TLS: write https:// in the address"
    what = f"not HTTP (the reply begins with {line[:_MAX_QUOTED_LINE]!r})"
    if _AMQP in line[:10]:
        what = "this is a port of AMQP, not of HTTP"
    return f"{what}; {product.if_closed or 'is this the right port?'}"


def _left(deadline: float) -> float:
    check_time(deadline)
    return max(deadline - monotonic(), 0.001)
