"""One GET over a connection of its own, never longer than agreed, whatever the server does."""

from __future__ import annotations

import http.client
import socket
import zlib
from collections.abc import Mapping
from contextlib import suppress
from threading import Timer
from time import monotonic

from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from bts_exporter import Product, TargetError, TLSConfig, Url, connection_error

_READ_BYTES = 256 * 1024
#: zlib's word for gzip's format.
_GZIP = 31
#: An answer above this many bytes, unpacked, is given up.
MAX_BYTES = 8 * 1024 * 1024

_PRODUCT = Product(
    "EMQX REST API",
    if_refused="is EMQX running, with its dashboard's listener (usually 18083)?",
    if_closed="is this the dashboard's port (usually 18083), and does it speak TLS (https://)?",
)


def place(url: Url, path: str) -> str:
    """Return the address of `path` as errors name it: without credentials and query."""
    return str(url).rstrip("/") + path.partition("?")[0]


def get(
    url: Url, tls: TLSConfig, path: str, headers: Mapping[str, str], seconds: float
) -> tuple[int, bytes]:
    """Return status and body of the answer; TargetError where there is none in `seconds`."""
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
        failure = _explain(place(url, path), TimeoutError() if monotonic() >= deadline else error)
    finally:
        connection.close()
    # Without the error before it, whose frames hold what was read.
    raise failure


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
        body = bytearray()
        while len(body) <= MAX_BYTES and (part := response.read(_READ_BYTES, decode_content=False)):
            body += part
        if packed := response.headers.get("Content-Encoding"):
            body[:] = _unpack(body, packed)
    if len(body) > MAX_BYTES:
        msg = f"an answer of more than {MAX_BYTES} bytes"
        raise exceptions.HTTPError(msg)
    if monotonic() >= deadline:  # cut off, an answer of unknown length looks complete
        raise TimeoutError
    return response.status, bytes(body)


def _unpack(body: bytes | bytearray, encoding: str) -> bytes:
    """Return the unpacked body, of which there may be a thousand times as much, up to the limit."""
    if encoding != "gzip":
        msg = f"an answer packed as {encoding[:20]}, which was not asked for"
        raise exceptions.HTTPError(msg)
    try:
        return zlib.decompressobj(_GZIP).decompress(body, MAX_BYTES + 1)
    except zlib.error as error:
        raise exceptions.HTTPError(str(error)) from None


def _cut(used: socket.socket) -> None:
    with suppress(OSError):
        # Not the method of TLS sockets, which pulls away what the other thread works with.
        socket.socket.shutdown(used, socket.SHUT_RDWR)


def _explain(address: str, error: Exception) -> TargetError:
    """Return why there is no answer."""
    cause = error.__cause__ if isinstance(error, exceptions.NewConnectionError) else error
    match cause:
        case exceptions.TimeoutError():
            return connection_error(_PRODUCT, address, TimeoutError())
        case exceptions.SSLError() | exceptions.ProtocolError():
            inner = next((one for one in cause.args if isinstance(one, OSError)), None)
            return connection_error(_PRODUCT, address, inner or EOFError())
        case OSError():
            return connection_error(_PRODUCT, address, cause)
        case http.client.HTTPException():
            what = f"not HTTP ({cause!r:.200}): is this the port of the REST API?"
        case _:
            what = f"unusable: {cause!s:.200}"
    return TargetError("protocol", f"{_PRODUCT.name} at {address}: {what}")
