"""An HTTP server that receives what is pushed, and responds as a test wants it to.

It stands for an OpenTelemetry collector, which no registry of packages has: its messages are those of OpenTelemetry's
official protobuf definitions (opentelemetry-proto).
"""

from __future__ import annotations

import gzip
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import cramjam
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from bts_exporter.push.remote_write_messages import WriteRequest


class Received(NamedTuple):
    """A request that was received whole."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def otlp(self) -> ExportMetricsServiceRequest:
        """Return the message of an OTLP request."""
        assert self.headers["content-encoding"] == "gzip"
        return ExportMetricsServiceRequest.FromString(gzip.decompress(self.body))

    def remote_write(self) -> Any:
        """Return the message of a remote write request."""
        assert self.headers["content-encoding"] == "snappy"
        return WriteRequest.FromString(bytes(cramjam.snappy.decompress_raw(self.body)))


class Response(NamedTuple):
    """What the server responds."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""


class PushReceiver:
    """The server; it responds with `responses` one after the other, then with 200."""

    def __init__(self) -> None:
        self.responses: deque[Response] = deque()
        self.received: list[Received] = []
        #: Requests that are received while this is cleared are not answered until it is set.
        self.answers = threading.Event()
        self.answers.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.received.append(Received(self.command, self.path, headers, body))
                outer.answers.wait()
                response = outer.responses.popleft() if outer.responses else Response()
                self.send_response(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                missing = "X-Cut" in response.headers  # a byte that does not come
                self.send_header("Content-Length", str(len(response.body) + missing))
                self.end_headers()
                self.wfile.write(response.body)

            def do_PUT(self) -> None:
                self.do_POST()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """End the server."""
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def push_receiver() -> Iterator[PushReceiver]:
    """Return a server that receives what is pushed."""
    server = PushReceiver()
    yield server
    server.close()
