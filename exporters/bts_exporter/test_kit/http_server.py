"""An HTTP server on the loopback address that replies, hangs or fails as a test says."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self


class Request(NamedTuple):
    """A request that the server received."""

    method: str
    #: With the query.
    path: str
    headers: Mapping[str, str]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    """One connection to the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: HttpServer

    def setup(self) -> None:
        """Count the connection."""
        super().setup()
        self.fake.connections.append(self.connection)

    def handle_request(self) -> None:
        """Reply as the test has set."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.fake.note(Request(self.command, self.path, dict(self.headers), body))
        self.fake.routes.get(self.path.partition("?")[0], self.fake.otherwise)(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = handle_request  # noqa: N815  # the library's names

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the library's word
        """Say nothing."""


#: What is done with a request.
Reply = Callable[[Handler], None]


class HttpServer:
    """An HTTP server with a reply for each path, until the end of the `with` block."""

    def __init__(self, certificate: Path | None = None, port: int = 0) -> None:
        """Listen on a free port; with `certificate`, a PEM file with its key, over TLS."""
        #: What is replied by path, without the query.
        self.routes: dict[str, Reply] = {}
        #: What is replied to other paths.
        self.otherwise: Reply = reply({"error": "not found"}, 404)
        self.received: list[Request] = []
        self.connections: list[socket.socket] = []
        #: Set when the server ends, so that what hangs ends with it.
        self.over = threading.Event()
        handler = type("BoundHandler", (Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server and its connections."""
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def note(self, request: Request) -> None:
        """Keep a request for the test."""
        self.received.append(request)


def reply(
    content: Any,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    packed: bool = False,
) -> Reply:
    """Reply with text or bytes as they are, and with anything else as JSON; `packed` as gzip."""
    kind = "text/plain; charset=utf-8"
    if isinstance(content, str):
        content = content.encode()
    elif not isinstance(content, bytes):
        content, kind = json.dumps(content).encode(), "application/json"
    body = gzip.compress(content) if packed else content
    fields = {"Content-Type": kind, "Content-Length": str(len(body))}
    fields |= {"Content-Encoding": "gzip"} if packed else {}

    def replying(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {**fields, **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return replying


def raw(content: bytes) -> Reply:
    """Reply with these bytes instead of HTTP, or with a part of it, and close the connection."""

    def replying(handler: Handler) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return replying


def in_turn(*replies: Reply) -> Reply:
    """Reply to the first request with the first of `replies`, and to the next with the next."""
    left: Iterator[Reply] = iter(replies)

    def replying(handler: Handler) -> None:
        next(left)(handler)

    return replying


def hang(handler: Handler) -> None:
    """Never reply."""
    handler.fake.over.wait()
    handler.close_connection = True


def drop(handler: Handler) -> None:
    """Close the connection without a reply."""
    handler.close_connection = True
