"""The HTTP exchanges of one connection: requests in, answers out, and nothing of metrics.

http.server parses and writes; what it leaves open (sizes, bodies, strictness) is closed here.
"""

from __future__ import annotations

import io
import logging
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol, cast
from urllib.parse import parse_qs, unquote, urlsplit

from bts_exporter.connections import Connection, Phase

log = logging.getLogger("bts_exporter.server")

#: Bounds of a request: bytes of its line and header fields, bytes of its body, fields of its query.
MAX_HEAD_BYTES = 32 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_QUERY_FIELDS = 256

#: What a request's head may look like (RFC 9112); the parser behind it reads less strictly, and
#: what two readers understand differently is how a second request hides in the first.
_HEAD = re.compile(
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/[1-9]\.[0-9]\r?\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r?\n)*"
)
_LENGTH = re.compile(r"[0-9]{1,18}")


class Headers(Protocol):
    """Header fields of a request, whose names are the same in any case."""

    def get(self, name: str, /) -> str | None:
        """Return the value of the first field `name`; None if there is none."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request; HEAD comes as the GET whose headers it asks for."""

    method: str  # any token, such as GET
    path: str  # percent-decoded, without the query
    query: dict[str, list[str]]  # decoded; blank values are kept
    headers: Headers


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; the server adds the length, the date and what keep-alive needs."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handle = Callable[[Request], Response]


class Exchanges(BaseHTTPRequestHandler):
    """All exchanges of one connection, in the thread that makes it; OSError if the client is gone."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # who sends what cannot be parsed gets a status line too
    rbufsize = 8192

    def __init__(self, connection: Connection, handle: Handle) -> None:
        """Answer requests until the connection ends, one after another."""
        self._connection = connection
        self._handle = handle
        super().__init__(connection.socket, ("", 0), None)  # type: ignore[arg-type]  # no use for a BaseServer

    def setup(self) -> None:
        """Open the files of the socket; answers are written whole, so that waiting gains nothing."""
        if self.request.family != socket.AF_UNIX:  # systemd may hand over such a socket
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()
        # http.server reads header fields from `rfile`; it is given those of one request at a time.
        self._incoming = cast("io.BufferedReader", self.rfile)

    def finish(self) -> None:
        """Close the files: the socket stays open as long as they are."""
        self._incoming.close()
        super().finish()

    def handle(self) -> None:
        """Answer requests; only between them is the connection idle."""
        self._connection.enter(Phase.READING)
        self.handle_one_request()
        while not self.close_connection:
            self._connection.enter(Phase.IDLE)
            if not self._incoming.peek(1):
                return
            self._connection.enter(Phase.READING)
            self.handle_one_request()

    def handle_one_request(self) -> None:
        """Read a request whole, have it answered, write the answer."""
        self.close_connection = True
        # What answers are shaped by; that of the request before must not shape a refusal.
        self.command, self.requestline, self.request_version = "", "", self.protocol_version
        head = self._read_head()
        if not head or not self._parse(head):
            return
        request = self._request()
        if request is not None and self._skip_body():
            self._write(self._ask(request))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002  # they quote the client
        """Turn a request away and end the connection, which may be out of step."""
        traffic = self._connection.traffic
        traffic.count(traffic.refused, "request")
        status = HTTPStatus(code)
        self.close_connection = True
        self._write(Response(code, f"{status.phrase}: {status.description}\n".encode()))

    def version_string(self) -> str:
        """Return the Server header: nobody is told which Python this is."""
        return "bts-exporter"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's name
        """Keep http.server from writing to stderr."""
        log.debug(format, *args)

    def _read_head(self) -> bytes:
        """Return the request line and header fields; empty if the client is gone or too much came."""
        head = bytearray()
        read = 0
        while read <= MAX_HEAD_BYTES:
            line = self._incoming.readline(MAX_HEAD_BYTES + 1)
            read += len(line)
            if not line:
                return b""
            if line not in {b"\n", b"\r\n"}:
                head += line
            elif head:  # blank lines before a request are let pass, as RFC 9112 has it
                return bytes(head)
        self.send_error(431 if b"\n" in head else 414)
        return b""

    def _parse(self, head: bytes) -> bool:
        """Have http.server parse the head; return False if the request was turned away."""
        if not _HEAD.fullmatch(head):
            self.send_error(400)
            return False
        self.raw_requestline, _, fields = head.partition(b"\n")
        self.rfile = io.BytesIO(fields + b"\r\n")
        if not self.parse_request():
            return False
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1 or (not hosts and self.request_version != "HTTP/1.0"):
            self.send_error(400)
            return False
        return True

    def _request(self) -> Request | None:
        """Return the request; None if it was turned away."""
        try:
            target = urlsplit(self.path)
            query = parse_qs(target.query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
        except ValueError:
            self.send_error(400)
            return None
        method = "GET" if self.command == "HEAD" else self.command
        return Request(method, unquote(target.path, errors="replace"), query, self.headers)

    def _skip_body(self) -> bool:
        """Read past the request's body, to where the next request begins; False if that is not to be."""
        lengths = self.headers.get_all("Content-Length", ["0"])
        if "Transfer-Encoding" in self.headers:
            self.send_error(411)
        elif len(set(lengths)) > 1 or not _LENGTH.fullmatch(lengths[0]):
            self.send_error(400)
        elif int(lengths[0]) > MAX_BODY_BYTES:
            self.send_error(413)
        else:
            return len(self._incoming.read(int(lengths[0]))) == int(lengths[0])
        return False

    def _ask(self, request: Request) -> Response:
        self._connection.enter(Phase.HANDLING)
        try:
            return self._handle(request)
        except Exception:
            log.exception("no answer to %s %r", request.method, request.path)
            return Response(500, b"internal error: the log of bts-exporter has the details\n")

    def _write(self, response: Response) -> None:
        self._connection.enter(Phase.WRITING)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in response.headers:
            self.send_header(name, value)
        if self.close_connection or self._connection.last:
            self.send_header("Connection", "close")
        elif self.request_version == "HTTP/1.0":
            self.send_header("Connection", "keep-alive")
        self.end_headers()
        if self.command != "HEAD":
            # Not joined with the headers: clients that share one body would each get a copy.
            self.wfile.write(response.body)
