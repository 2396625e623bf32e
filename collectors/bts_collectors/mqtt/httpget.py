"""One GET over a connection of its own, never longer than agreed, whatever the server does."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from threading import Timer
from time import monotonic

from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from bts_exporter import Reason, TargetError, TLSConfig, Url

#: An answer above this many bytes, unpacked, is given up.
MAX_BYTES = 8 * 1024 * 1024


def place(url: Url, path: str) -> str:
    """Return the address of `path` as errors name it: without credentials and query."""
    return str(url).rstrip("/") + path.partition("?")[0]


def get(
    url: Url, tls: TLSConfig, path: str, headers: Mapping[str, str], seconds: float
) -> tuple[int, bytes]:
    """Return status and unpacked body of the answer; TargetError where there is none in `seconds`."""
    deadline = monotonic() + seconds
    connection = _connection(url, tls)
    try:
        if seconds <= 0:
            raise TimeoutError
        # A name may have an address of each family, and each is given this long.
        connection.timeout = seconds / 2
        connection.connect()
        # A time-out of a socket begins anew with every byte: this one does not.
        cutter = Timer(max(deadline - monotonic(), 0), _cut, [connection.sock])
        cutter.daemon = True
        cutter.start()
        try:
            return _exchange(connection, url.path.rstrip("/") + path, headers, deadline)
        finally:
            cutter.cancel()
            cutter.join()
    except (exceptions.HTTPError, http.client.HTTPException, OSError) as error:
        # What is cut off at the deadline breaks in many ways.
        reason, what = _explain(TimeoutError() if monotonic() >= deadline else error)
        raise TargetError(reason, f"{place(url, path)}: {what}") from error
    finally:
        connection.close()


def _connection(url: Url, tls: TLSConfig) -> HTTPConnection:
    if url.scheme == "https":
        context, name = tls.context(), tls.server_name
        return HTTPSConnection(url.host, url.port, ssl_context=context, server_hostname=name)
    return HTTPConnection(url.host, url.port)


def _exchange(
    connection: HTTPConnection, path: str, headers: Mapping[str, str], deadline: float
) -> tuple[int, bytes]:
    connection.request("GET", path, headers=headers, preload_content=False)
    response = connection.getresponse()
    with response:
        body = response.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        msg = f"an answer of more than {MAX_BYTES} bytes"
        raise exceptions.HTTPError(msg)
    if monotonic() >= deadline:  # cut off, an answer of unknown length looks complete
        raise TimeoutError
    return response.status, body


def _cut(used: socket.socket) -> None:
    with suppress(OSError):
        # Not the method of TLS sockets, which pulls away what the other thread works with.
        socket.socket.shutdown(used, socket.SHUT_RDWR)


def _explain(error: Exception) -> tuple[Reason, str]:
    """Return why there is no answer, and how to say it."""
    cause = error.__cause__ if isinstance(error, exceptions.NewConnectionError) else error
    match cause:
        case socket.gaierror():
            return "dns", "the name of the host does not resolve"
        case ConnectionRefusedError():
            return "refused", "nothing listens there: start it, or correct the url"
        case TimeoutError() | exceptions.TimeoutError():
            return "timeout", "no answer in time"
        case ssl.SSLError() | exceptions.SSLError():
            return (
                "tls",
                f"no TLS connection: {cause} (tls.ca_file: whom we trust; tls.cert_file: who we are)",
            )
        case OSError() | exceptions.ProtocolError():
            return "unreachable", f"the connection failed: {cause}"
        case http.client.HTTPException():
            return "protocol", f"not HTTP ({cause!r}): is this the port of the REST API?"
        case _:
            return "protocol", f"unusable: {cause}"
