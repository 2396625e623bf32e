"""The connection to the management API: one, kept open, and never longer in use than agreed."""

from __future__ import annotations

import http.client
import socket
import zlib
from base64 import b64encode
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from threading import Lock, Timer
from time import monotonic
from typing import NamedTuple

from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from bts_collectors.rabbitmq.api.http_limits import (
    MAX_FRAMING,
    Allowance,
    LimitedResponse,
    check_time,
    read_body,
)
from bts_collectors.rabbitmq.failures import MAX_TEXT, Failure
from bts_exporter import (
    AddressWatch,
    Product,
    Secret,
    TargetError,
    TLSConfig,
    Url,
    connection_error,
)

#: What RabbitMQ creates when it is installed, and lets in from its own machine.
DEFAULT_USER = "guest"
DEFAULT_PASSWORD = "guest"  # noqa: S105  # not secret
#: Seconds that `close` waits for an exchange that it has just cut off.
PATIENCE = 1.0
#: What a request can end in: errors of the library, of the network, and of what the server sent.
ERRORS = (exceptions.HTTPError, http.client.HTTPException, OSError, ValueError, zlib.error)

#: How the replies of other protocols begin, as `http.client` quotes them.
_AMQP, _TLS_ALERT = "AMQP", "\x15\x03"
#: Characters of an unreadable status line that show what it is.
_MAX_LINE = 40


class Server(NamedTuple):
    """What a client asks: what its users call it, and the port that it has as it is installed."""

    product: Product
    port: int


MANAGEMENT = Server(
    Product(
        "RabbitMQ management API",
        if_refused="is RabbitMQ running, with its plugin"
        " (rabbitmq-plugins enable rabbitmq_management)?",
        if_closed="is this the port of the management API (15672, over TLS 15671)?"
        " 5672 is AMQP's, 15692 that of RabbitMQ's own exporter, 5552 that of streams",
    ),
    15672,
)

_NO_TLS_SETTINGS = TLSConfig()


class Answer(NamedTuple):
    """An answer in full: where it came from (without credentials), HTTP status, unpacked body."""

    place: str
    status: int
    body: bytes | bytearray
    #: Where a redirect leads to.
    location: str = ""


class Client:
    """A client of one HTTP API; for one thread, but `close`, which any may call."""

    def __init__(
        self,
        url: Url,
        password: Secret | None = None,
        tls: TLSConfig = _NO_TLS_SETTINGS,
        server: Server = MANAGEMENT,
    ) -> None:
        """Prepare requests to `url`, as its user or guest; no I/O."""
        self._url = url
        self._password = password or url.password
        self._tls = tls
        self._server = server
        self._headers = {
            "Accept": "*/*",
            "Accept-Encoding": "gzip",
            "Authorization": _authorization(url, self._password),
            "User-Agent": "bts-exporter",
        }
        self._watch = AddressWatch(url.host)
        self._peer = ""
        self._connection: HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._closed = False
        self._lock = Lock()

    def get(self, path: str, seconds: float, allowance: Allowance | None = None) -> Answer:
        """Return the answer to a GET of `path`, whatever its status, within `seconds`.

        TargetError where there is none, or where it is longer than `allowance` permits; it keeps
        nothing of what was received.
        """
        place = str(self._url).rstrip("/") + path.partition("?")[0]
        deadline = monotonic() + seconds
        # A time-out of a socket begins anew with every byte: this one does not.
        cutter = Timer(seconds, self._cut)
        cutter.daemon = True
        with self._lock:
            cutter.start()
            try:
                return self._answer(place, path, deadline, allowance or Allowance())
            except ERRORS as error:
                self._disconnect()
                # What is cut off at the deadline breaks in many ways.
                late = monotonic() >= deadline
                failure = self._explain(place, TimeoutError() if late else error, seconds)
            finally:
                cutter.cancel()
                cutter.join()  # or it might cut the next exchange
                if self._closed:
                    self._disconnect()
        raise TargetError(*failure)

    def close(self) -> None:
        """Break off an exchange under way and close the connection for good."""
        self._closed = True
        self._cut()
        if self._lock.acquire(timeout=PATIENCE):
            self._disconnect()
            self._lock.release()

    def _answer(self, place: str, path: str, deadline: float, allowance: Allowance) -> Answer:
        answer = self._exchange(place, path, deadline, allowance)
        if answer.status == HTTPStatus.UNAUTHORIZED and self._renew_password():
            answer = self._exchange(place, path, deadline, allowance)
        return answer

    def _renew_password(self) -> bool:
        """Read the password again; return whether it is another one."""
        password = self._password.reread() if self._password else None
        if password == self._password:
            return False
        self._password = password
        self._headers["Authorization"] = _authorization(self._url, password)
        return True

    def _exchange(self, place: str, path: str, deadline: float, allowance: Allowance) -> Answer:
        connection = self._connection
        if connection is not None and self._watch.has_moved(self._peer):
            self._disconnect()
        elif connection is not None and connection.is_connected:
            # The server may be closing it at this very moment: then it is worth a second try.
            with suppress(ConnectionError):
                return self._ask(connection, place, path, deadline, allowance)
        return self._ask(self._connect(deadline), place, path, deadline, allowance)

    def _ask(
        self,
        connection: HTTPConnection,
        place: str,
        path: str,
        deadline: float,
        allowance: Allowance,
    ) -> Answer:
        limit = allowance.left + MAX_FRAMING
        connection.response_class = partial(LimitedResponse, limit=limit)  # type: ignore[assignment]
        connection.timeout = _left(deadline)
        path = self._url.path.rstrip("/") + path
        connection.request("GET", path, headers=self._headers, preload_content=False)
        connection.timeout = _left(deadline)
        response = connection.getresponse()
        body = read_body(response, allowance, deadline)
        # Behind the question mark, a proxy's login page may get a token.
        location = response.headers.get("Location", "").partition("?")[0]
        return Answer(place, response.status, body, location)

    def _connect(self, deadline: float) -> HTTPConnection:
        self._disconnect()
        self._check_open()
        connection = self._connection = self._build()
        # A name may have an address of each family, and each is given this long.
        connection.timeout = _left(deadline) / 2
        connection.connect()
        self._socket = connection.sock
        self._check_open()  # without a socket, `close` had nothing to cut
        if self._socket is not None:
            self._peer = str(self._socket.getpeername()[0])
            self._watch.has_moved(self._peer)  # tells it when the name was resolved
        return connection

    def _check_open(self) -> None:
        if self._closed:
            msg = "the collector is stopped"
            raise ConnectionAbortedError(msg)

    def _build(self) -> HTTPConnection:
        host, port = self._url.host, self._url.port
        if self._url.scheme == "https":
            context, name = self._tls.context(), self._tls.server_name
            return HTTPSConnection(host, port, ssl_context=context, server_hostname=name)
        return HTTPConnection(host, port)

    def _disconnect(self) -> None:
        self._socket = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _cut(self) -> None:
        """Wake whoever waits for the socket; called from other threads."""
        if (used := self._socket) is not None:
            with suppress(OSError):
                # Not the method of TLS sockets, which pulls away what the other thread works with.
                socket.socket.shutdown(used, socket.SHUT_RDWR)

    def _explain(self, place: str, error: BaseException, seconds: float) -> Failure:
        """Return why there is no answer."""
        if self._closed:
            return Failure("unreachable", f"{place}: the collector is stopped")
        while isinstance(error, exceptions.HTTPError) and error.__cause__ is not None:
            error = error.__cause__
        if what := _unusable(error):
            text = f"{self._server.product.name} at {place}: {what[:MAX_TEXT]}"
            return Failure("protocol", text)
        if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
            error = EOFError()
        failure = Failure.of(connection_error(self._server.product, place, error))
        if failure.reason == "timeout":
            wait = f"{failure} ({seconds:.1f} s; the setting interval gives it longer)"
            return Failure("timeout", wait)
        return failure


def _unusable(error: BaseException) -> str:
    """Return what is wrong with a reply that came, empty where none did."""
    match error:
        case UnicodeError() | http.client.RemoteDisconnected() | http.client.IncompleteRead():
            return ""
        case http.client.BadStatusLine():
            return _not_http(str(error.args[0]))
        case http.client.HTTPException():
            return f"unexpected reply, not HTTP as expected: {error}"
        case zlib.error():
            return f"the reply is not packed as it says: {error}"
        case exceptions.HTTPError() | ValueError() if not isinstance(error, OSError):
            return f"unexpected reply: {error}"
        case _:
            return ""


def _not_http(line: str) -> str:
    if _AMQP in line[:10]:
        return (
            "this is a port of AMQP, not of HTTP; the management API usually listens on 15672,"
            " RabbitMQ's own exporter on 15692, and AMQP itself is read with amqp:// and declare"
        )
    if _TLS_ALERT in line[:10]:
        return "this port speaks TLS: write https:// in the address"
    return f"not HTTP (the reply begins with {line[:_MAX_LINE]!r}); is this the right port?"


def _authorization(url: Url, password: Secret | None) -> str:
    if password is None and url.username is None:
        password = Secret(DEFAULT_PASSWORD)
    secret = password.reveal() if password else ""
    credentials = f"{url.username or DEFAULT_USER}:{secret}"
    return "Basic " + b64encode(credentials.encode()).decode()


def _left(deadline: float) -> float:
    check_time(deadline)
    return max(deadline - monotonic(), 0.001)
