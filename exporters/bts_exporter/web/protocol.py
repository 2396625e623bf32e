"""The HTTP exchanges of one connection: requests in, answers out, and nothing of metrics.

Not http.server: it brings http.client and OpenSSL, 6 MB for an exporter that serves no TLS, and would
need a stricter parser in front of it all the same.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

from bts_exporter.web.connections import Connection, Phase

log = logging.getLogger("bts_exporter.web.server")

#: Limits of a request besides the size of its head: header fields, bytes of the body, query fields.
MAX_FIELDS = 100
MAX_BODY_BYTES = 64 * 1024
MAX_QUERY_FIELDS = 256
#: Answers in a row to requests that the client sent before it had the answer before.
MAX_PIPELINED = 100

#: Headers for browsers on every response: do not guess the content type, load and run only what
#: comes from here, as the live page does, nothing that is written into a page, and show it in no other page.
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}


def security_fields(configured: Mapping[str, str]) -> str:
    """Return header fields for every response, with those that are `configured` instead of ours."""
    headers = {**_SECURITY_HEADERS, **configured}
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


SECURITY_FIELDS = security_fields({})

#: A body up to this many bytes is sent together with the header, so that the client is woken once;
#: a longer one is not copied for that.
_SENT_TOGETHER = 256 * 1024

#: What a request's head may look like (RFC 9112): what two readers understand differently is how a
#: second request hides in the first.
_HEAD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([1-9])\.([0-9])\r?\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r?\n)*)"
)
#: Requests refused before a page was made, by status.
_REFUSED = {401: "unauthorized", 429: "rate_limit"}
_LENGTH = re.compile(r"[0-9]{1,18}")


class Headers:
    """Header fields of a request, whose names are the same in any case."""

    def __init__(self, fields: bytes = b"") -> None:
        """Take lines of the form `name: value`."""
        self._values: dict[str, list[str]] = {}
        for line in fields.decode("latin-1").split("\n")[:-1]:
            name, _, value = line.partition(":")
            self._values.setdefault(name.lower(), []).append(value.strip(" \t\r"))

    def __len__(self) -> int:
        return sum(map(len, self._values.values()))

    def get(self, name: str) -> str | None:
        """Return the value of the first field `name`; None if there is none."""
        found = self._values.get(name.lower())
        return found[0] if found else None

    def get_all(self, name: str, default: list[str]) -> list[str]:
        """Return the values of all fields `name`; `default` if there is none."""
        return self._values.get(name.lower(), default)


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


class Exchanges:
    """All exchanges of one connection, in the thread that makes it."""

    def __init__(self, connection: Connection, handle: Handle, fields: Callable[[], str]) -> None:
        """Prepare to have the requests of `connection` answered by `handle`, with `fields` in every response."""
        self._connection = connection
        self._handle = handle
        self._fields = fields
        self._pipelined = 0
        # Of the request at hand.
        self._method = ""
        self._headers = Headers()
        self._keep = False
        self._announced = False

    def run(self) -> None:
        """Answer requests until the connection ends; OSError if the client is gone."""
        connection = self._connection
        connection.set_up()
        self._exchange()
        while self._keep and not connection.last:
            if connection.incoming:
                # Unread answers would fill the kernel's memory.
                connection.wait_until_taken()
            connection.enter(Phase.IDLE)
            if not connection.incoming and not connection.receive():
                return
            self._exchange()

    def _exchange(self) -> None:
        """Read a request whole, have it answered, write the answer."""
        # What answers are shaped by; that of the request before must not shape a refusal.
        self._method, self._keep, self._announced = "", False, False
        head = self._read_head()
        request = self._parse(head) if head else None
        if request is not None and self._skip_body():
            self._write(self._ask(request))

    def _refuse(self, code: HTTPStatus) -> None:
        """Turn a request away and end the connection, which may be out of step."""
        traffic = self._connection.traffic
        traffic.count(traffic.refused, "request")
        self._keep = False
        self._write(Response(code, f"{code.phrase}: {code.description}\n".encode()))

    def _read_head(self) -> bytes:
        """Return the request line and header fields; empty if the client is gone or too much came."""
        incoming = self._connection.incoming
        while not incoming.has_head():
            if not self._receive():
                return b""
        head = incoming.take_head()
        if head is None:
            long_line = HTTPStatus.REQUEST_URI_TOO_LONG
            long_fields = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._refuse(long_fields if incoming.has_line() else long_line)
        return head or b""

    def _parse(self, head: bytes) -> Request | None:
        """Return the request; None if it was turned away."""
        match = _HEAD.fullmatch(head)
        if match is None:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return None
        method, target, major, minor, fields = match.groups()
        self._method = method.decode()
        self._headers = Headers(fields)
        if major != b"1":
            self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        elif len(self._headers) > MAX_FIELDS:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            hosts = len(self._headers.get_all("Host", []))
            self._set_keep(old=minor == b"0")
            if hosts == 1 or (minor == b"0" and not hosts):
                return self._request(target.decode())
            self._refuse(HTTPStatus.BAD_REQUEST)
        return None

    def _set_keep(self, *, old: bool) -> None:
        """Decide whether the connection is kept: HTTP/1.0 says so, HTTP/1.1 says if not."""
        options = {
            option.strip().lower()
            for value in self._headers.get_all("Connection", [])
            for option in value.split(",")
        }
        self._announced = old and "keep-alive" in options
        self._keep = "close" not in options and (self._announced or not old)

    def _request(self, target: str) -> Request | None:
        """Return the request for `target`; None if it was turned away."""
        try:
            # Two slashes in front would make the path a host's name.
            parts = urlsplit("/" + target.lstrip("/") if target.startswith("//") else target)
            query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return None
        method = "GET" if self._method == "HEAD" else self._method
        return Request(method, unquote(parts.path, errors="replace"), query, self._headers)

    def _skip_body(self) -> bool:
        """Read past the request's body, to where the next request begins; False if that is not to be."""
        lengths = self._headers.get_all("Content-Length", ["0"])
        if self._headers.get_all("Transfer-Encoding", []):
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
        elif len(set(lengths)) > 1 or not _LENGTH.fullmatch(lengths[0]):
            self._refuse(HTTPStatus.BAD_REQUEST)
        elif int(lengths[0]) > MAX_BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            length = int(lengths[0])
            if (
                len(self._connection.incoming) < length
                and (self._headers.get("Expect") or "").lower() == "100-continue"
            ):
                self._connection.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            return self._skip(length)
        return False

    def _skip(self, length: int) -> bool:
        length -= self._connection.incoming.skip(length)
        while length:
            if not self._receive():
                return False
            length -= self._connection.incoming.skip(length)
        return True

    def _receive(self) -> bool:
        """Receive more of a request, within the deadline that began with its first wait."""
        if self._connection.phase is not Phase.READING:
            self._connection.enter(Phase.READING)
        return self._connection.receive()

    def _ask(self, request: Request) -> Response:
        self._connection.enter(Phase.HANDLING)
        try:
            response = self._handle(request)
        except Exception:
            log.exception("no answer to %s %r", request.method, request.path)
            return Response(500, b"internal error: the log of bts-exporter has the details\n")
        if response.status in _REFUSED:
            traffic = self._connection.traffic
            traffic.count(traffic.refused, _REFUSED[response.status])
        return response

    def _write(self, response: Response) -> None:
        self._connection.enter(Phase.WRITING)
        self._connection.answered += 1
        self._keep = self._keep and self._may_go_on()
        status = HTTPStatus(response.status)
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            "Server: bts-exporter",  # without the version of Python
            f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime())}",
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            self._fields().removesuffix("\r\n"),
            *(f"{name}: {value}" for name, value in response.headers),
        ]
        if not self._keep or self._connection.last:
            lines.append("Connection: close")
        elif self._announced:
            lines.append("Connection: keep-alive")
        self._send("\r\n".join((*lines, "", "")).encode("latin-1"), response.body)

    def _may_go_on(self) -> bool:
        """Return whether another request may follow: others go before one that has come already."""
        if not self._connection.incoming:
            self._pipelined = 0
            return True
        self._pipelined += 1
        return self._pipelined < MAX_PIPELINED and not self._connection.others_wait()

    def _send(self, head: bytes, body: bytes) -> None:
        sock = self._connection.socket
        if self._method == "HEAD":
            sock.sendall(head)
        elif len(body) <= _SENT_TOGETHER:
            sock.sendall(head + body)
        else:
            sock.sendall(head)
            sock.sendall(body)
