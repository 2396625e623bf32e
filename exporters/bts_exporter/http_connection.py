"""One kept HTTP connection, and what its errors mean."""

from __future__ import annotations

import http.client
import socket
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from time import monotonic

from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from bts_exporter.address_watch import AddressWatch
from bts_exporter.connection_errors import Product, connection_error
from bts_exporter.errors import TargetError
from bts_exporter.http_limits import MAX_FRAMING_BYTES, LimitedResponse, check_time, read_body
from bts_exporter.http_response import ByteBudget, HttpResponse
from bts_exporter.settings.tls import TLSConfig
from bts_exporter.settings.value_types import Url

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

    def __init__(self, product: Product, url: Url, tls: TLSConfig) -> None:
        self._product = product
        self._url = url
        self._tls = tls
        self._watch = AddressWatch(url.host)
        self._peer = ""
        self._connection: HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self.closed = False

    def get(
        self, path: str, headers: Mapping[str, str], budget: ByteBudget, deadline: float
    ) -> HttpResponse:
        """Return the response to a GET of `path`; one of ERRORS if there is none."""
        connection = self._connection
        if connection is not None and self._watch.has_moved(self._peer):
            self.disconnect()
        elif connection is not None and connection.is_connected:
            # The server may close an idle connection at this moment: that deserves a second attempt.
            with suppress(ConnectionError):
                return self._exchange(connection, path, headers, budget, deadline)
        return self._exchange(self._connect(deadline), path, headers, budget, deadline)

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
        self,
        connection: HTTPConnection,
        path: str,
        headers: Mapping[str, str],
        budget: ByteBudget,
        deadline: float,
    ) -> HttpResponse:
        limit = budget.remaining + MAX_FRAMING_BYTES
        connection.response_class = partial(LimitedResponse, limit=limit)  # type: ignore[assignment]
        connection.timeout = _left(deadline)
        target = self._url.path.rstrip("/") + path
        connection.request("GET", target, headers=headers, preload_content=False)
        connection.timeout = _left(deadline)
        response = connection.getresponse()
        body = read_body(response, budget, deadline)
        # The query of a proxy's login page may contain a token.
        location = response.headers.get("Location", "").partition("?")[0]
        return HttpResponse(self.address(path), response.status, body, location)

    def _connect(self, deadline: float) -> HTTPConnection:
        self.disconnect()
        self._check_open()
        connection = self._connection = self._build()
        # A name may have an IPv6 and an IPv4 address, and each attempt may take this long.
        connection.timeout = _left(deadline) / 2
        connection.connect()
        self._socket = connection.sock
        self._check_open()  # before there was a socket, `close` had nothing to interrupt
        if self._socket is not None:
            self._peer = str(self._socket.getpeername()[0])
            self._watch.has_moved(self._peer)  # notes that the name was resolved just now
        return connection

    def _check_open(self) -> None:
        if self.closed:
            msg = "the collector is stopped"
            raise ConnectionAbortedError(msg)

    def _build(self) -> HTTPConnection:
        host, port = self._url.host, self._url.port
        if self._url.scheme == "https":
            context, name = self._tls.context(), self._tls.server_name
            return HTTPSConnection(host, port, ssl_context=context, server_hostname=name)
        return HTTPConnection(host, port)


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
