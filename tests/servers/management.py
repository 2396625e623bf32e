"""A fake of RabbitMQ's management API that answers as badly as a test wants it to."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

#: What is done with a request: answer it, or not.
Reply = Callable[["Handler"], None]

#: A small and healthy broker.
HEALTHY: dict[str, object] = {
    "/api/overview": {"rabbitmq_version": "3.10.8", "node": "rabbit@one", "cluster_name": "shop"},
    "/api/health/checks/alarms": {"status": "ok"},
    "/api/nodes": [{"name": "rabbit@one", "running": True}],
    "/api/queues": [{"name": "orders", "vhost": "/", "type": "classic", "messages_ready": 7}],
    "/api/consumers": [],
    "/api/exchanges": [],
}


class Handler(BaseHTTPRequestHandler):
    """One connection to the fake."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeManagement

    def setup(self) -> None:
        """Count the connection."""
        super().setup()
        self.fake.connections.append(self.connection)

    def do_GET(self) -> None:
        """Answer as the test has set."""
        self.fake.requests.append(self.path)
        self.fake.headers.append(dict(self.headers))
        path = self.path.partition("?")[0]
        self.fake.routes.get(path, answer({"error": "Object Not Found"}, 404))(self)

    def do_POST(self) -> None:
        """Keep the body, and answer as to a GET."""
        self.fake.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the library's word
        """Say nothing."""


class FakeManagement:
    """An HTTP server with a reply for each path; healthy until a test changes that."""

    def __init__(self, certificate: Path | None = None, port: int = 0) -> None:
        self.routes: dict[str, Reply] = {path: answer(found) for path, found in HEALTHY.items()}
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        #: Of requests that have one.
        self.bodies: list[bytes] = []
        self.connections: list[socket.socket] = []
        #: Whether somebody waited for the end of an answer that drips.
        self.dripped_out = False
        #: Set when the fake ends, so that what hangs for a test's sake ends with it.
        self.over = threading.Event()
        handler = type("BoundHandler", (Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def serve(self, folder: Path) -> None:
        """Answer with the files of `folder`, each named as the last part of its path."""
        for file in folder.glob("*.json"):
            self.routes[f"/api/{file.stem}"] = answer(json.loads(file.read_text()))


def answer(content: object, status: int = 200) -> Reply:
    """Reply with JSON, packed as RabbitMQ does for those who ask."""
    return send(json.dumps(content).encode(), status, {"Content-Type": "application/json"})


def send(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """Reply with `body`."""

    def reply(handler: Handler) -> None:
        packed = gzip.compress(body)
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(packed)))
        handler.end_headers()
        handler.wfile.write(packed)

    return reply


def raw(content: bytes) -> Reply:
    """Reply with these bytes instead of HTTP, or some of it, and close the connection."""

    def reply(handler: Handler) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return reply


def then_close(reply: Reply) -> Reply:
    """Reply and close the connection without a word about it."""

    def closing(handler: Handler) -> None:
        reply(handler)
        handler.close_connection = True

    return closing


def in_turn(*replies: Reply) -> Reply:
    """Reply to the first request with the first of `replies`, to the next with the next."""
    left = iter(replies)

    def reply(handler: Handler) -> None:
        next(left)(handler)

    return reply


def hang(handler: Handler) -> None:
    """Never reply."""
    handler.fake.over.wait()
    handler.close_connection = True


def drip(first: bytes, drop: bytes, drops: int, last: bytes) -> Reply:
    """Reply with `first`, then `drops` times `drop` with a pause before each, then `last`."""

    def reply(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(first)
        for _ in range(drops):
            if handler.fake.over.wait(0.1):
                return
            handler.wfile.write(drop)
        handler.fake.dripped_out = True
        handler.wfile.write(last)

    return reply
