"""The connection to the management API: one, kept open, and never longer in use than agreed."""

from __future__ import annotations

import http.client
import socket
import ssl
from base64 import b64encode
from contextlib import suppress
from threading import Lock, Timer
from time import monotonic
from typing import NamedTuple

from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

from bts_exporter import Reason, Secret, TargetError, TLSConfig, Url

#: What RabbitMQ creates when it is installed, and lets in from its own machine.
DEFAULT_USER = "guest"
DEFAULT_PASSWORD = "guest"  # noqa: S105  # not secret
#: An answer above this many bytes, unpacked, is given up: about 40,000 queues in full.
MAX_BYTES = 64 * 1024 * 1024
#: Read at a time.
CHUNK_BYTES = 256 * 1024
#: Seconds that `close` waits for an exchange that it has just cut off.
PATIENCE = 1.0


class Server(NamedTuple):
    """What a client asks: its name, the plug-in that it is part of, the port that it has there."""

    what: str
    plugin: str
    port: int


_NO_TLS_SETTINGS = TLSConfig()

MANAGEMENT = Server("the management API", "rabbitmq_management", 15672)


class Answer(NamedTuple):
    """An answer in full: where it came from (without credentials), HTTP status, unpacked body."""

    place: str
    status: int
    body: bytes


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
        self._tls = tls
        self._server = server
        self._headers = {
            "Accept": "*/*",
            "Accept-Encoding": "gzip",
            "Authorization": _authorization(url, password),
            "User-Agent": "bts-exporter",
        }
        self._connection: HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._closed = False
        self._lock = Lock()

    def get(self, path: str, seconds: float) -> Answer:
        """Return the answer to a GET of `path`, whatever its status, within `seconds`.

        TargetError where there is none.
        """
        place = str(self._url).rstrip("/") + path.partition("?")[0]
        deadline = monotonic() + seconds
        # A time-out of a socket begins anew with every byte: this one does not.
        cutter = Timer(seconds, self._cut)
        cutter.daemon = True
        with self._lock:
            cutter.start()
            try:
                status, body = self._exchange(path, deadline)
            except (exceptions.HTTPError, http.client.HTTPException, OSError) as error:
                self._disconnect()
                # What is cut off at the deadline breaks in many ways.
                late = monotonic() >= deadline
                reason, what = _explain(TimeoutError() if late else error, self._server)
                if reason == "timeout":
                    what = (
                        f"{what} within {seconds:.1f} s (with the setting interval it has longer)"
                    )
                raise TargetError(reason, f"{place}: {what}") from error
            finally:
                cutter.cancel()
                cutter.join()  # or it might cut the next exchange
                if self._closed:
                    self._disconnect()
        return Answer(place, status, body)

    def close(self) -> None:
        """Break off an exchange under way and close the connection for good."""
        self._closed = True
        self._cut()
        if self._lock.acquire(timeout=PATIENCE):
            self._disconnect()
            self._lock.release()

    def _exchange(self, path: str, deadline: float) -> tuple[int, bytes]:
        connection = self._connection
        if connection is not None and connection.is_connected:
            # The server may be closing it at this very moment: then it is worth a second try.
            with suppress(ConnectionError):
                return self._ask(connection, path, deadline)
        return self._ask(self._connect(deadline), path, deadline)

    def _ask(self, connection: HTTPConnection, path: str, deadline: float) -> tuple[int, bytes]:
        connection.timeout = _left(deadline)
        path = self._url.path.rstrip("/") + path
        connection.request("GET", path, headers=self._headers, preload_content=False)
        connection.timeout = _left(deadline)
        response = connection.getresponse()
        return response.status, _read(response, deadline)

    def _connect(self, deadline: float) -> HTTPConnection:
        self._disconnect()
        self._check_open()
        connection = self._connection = self._build()
        # A name may have an address of each family, and each is given this long.
        connection.timeout = _left(deadline) / 2
        connection.connect()
        self._socket = connection.sock
        self._check_open()  # without a socket, `close` had nothing to cut
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


def _authorization(url: Url, password: Secret | None) -> str:
    password = password or url.password
    if password is None and url.username is None:
        password = Secret(DEFAULT_PASSWORD)
    secret = password.reveal() if password else ""
    credentials = f"{url.username or DEFAULT_USER}:{secret}"
    return "Basic " + b64encode(credentials.encode()).decode()


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _read(response: HTTPResponse, deadline: float) -> bytes:
    chunks = []
    size = 0
    while chunk := response.read(CHUNK_BYTES):
        _left(deadline)
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            msg = f"an answer of more than {MAX_BYTES} bytes"
            raise exceptions.HTTPError(msg)
    _left(deadline)  # cut off, an answer of unknown length looks complete
    return b"".join(chunks)


def _explain(error: Exception, server: Server) -> tuple[Reason, str]:
    """Return why there is no answer, and how to say it."""
    cause = error.__cause__ if isinstance(error, exceptions.NewConnectionError) else error
    match cause:
        case socket.gaierror():
            return "dns", "the name of the host does not resolve"
        case ConnectionRefusedError():
            return "refused", (
                "nothing listens there: does RabbitMQ run, with its plug-in"
                f" (rabbitmq-plugins enable {server.plugin})?"
            )
        case TimeoutError() | exceptions.TimeoutError():
            return "timeout", "no answer"
        case ssl.SSLError() | exceptions.SSLError():
            return (
                "tls",
                f"no TLS connection: {cause} (tls.ca_file: whom we trust; tls.cert_file: who we are)",
            )
        case OSError() | exceptions.ProtocolError():
            return "unreachable", f"the connection failed: {cause}"
        case http.client.HTTPException():
            return (
                "protocol",
                f"not HTTP ({cause!r}): is this the port of {server.what} ({server.port})?",
            )
        case _:
            return "protocol", f"unusable: {cause}"
