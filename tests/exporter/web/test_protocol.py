from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from bts_exporter.web import refusals as refusals_module
from bts_exporter.web.incoming import MAX_HEAD_BYTES
from bts_exporter.web.protocol import MAX_BODY_BYTES, MAX_QUERY_FIELDS, Request, Response
from servers import wait_until
from servers.listener import GET, Listener, Wire, listening, quiet

__all__ = ["quiet"]  # a fixture


class Echo:
    """Records every request, and responds with its method and path."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        self.requests.append(request)
        return Response(200, f"{request.method} {request.path}\n".encode())


@pytest.fixture
def echo() -> Echo:
    """Return the handler of the server."""
    return Echo()


@pytest.fixture
def listener(echo: Echo) -> Iterator[Listener]:
    """Return a server that echoes."""
    with listening(echo) as running:
        yield running


@pytest.fixture
def wire(listener: Listener) -> Iterator[Wire]:
    """Return a connection to the server that echoes."""
    with listener.wire() as client:
        yield client


def request(line: str, *fields: str, body: bytes = b"") -> bytes:
    """Return a request with a Host."""
    return "\r\n".join((line, "Host: test", *fields, "", "")).encode("latin-1") + body


def test_answers_with_the_bytes_of_the_response(listener: Listener) -> None:
    """A client gets status, headers and body of the handler's response."""
    host, port = listener.places[0]
    client = http.client.HTTPConnection(host, port, timeout=20)
    client.request("GET", "/metrics")
    answer = client.getresponse()

    assert (answer.status, answer.read()) == (200, b"GET /metrics\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Server"] == "bts-exporter"
    assert answer.headers["Date"]
    client.close()


def test_headers_of_the_response_are_sent() -> None:
    """Status, content type and further headers come from the response."""
    response = Response(404, b"<p>", "text/html", (("Vary", "Accept"), ("X-One", "1")))
    with listening(lambda _: response) as listener, listener.wire() as wire:
        status, headers, body = wire.ask()

    assert (status, body) == (404, b"<p>")
    assert (headers["Content-Type"], headers["Vary"], headers["X-One"]) == (
        "text/html",
        "Accept",
        "1",
    )


def test_several_requests_use_one_connection(listener: Listener, wire: Wire) -> None:
    """HTTP/1.1 connections are kept for the next request."""
    bodies = [wire.ask(request(f"GET /{n} HTTP/1.1")).body for n in range(3)]

    assert bodies == [b"GET /0\n", b"GET /1\n", b"GET /2\n"]
    assert listener.traffic.accepted == 1


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    """Requests sent without waiting for answers get them in the order of the requests."""
    wire.send(b"".join(request(f"GET /{n} HTTP/1.1") for n in range(20)))

    assert [wire.answer().body for _ in range(20)] == [b"GET /%d\n" % n for n in range(20)]


def test_connection_close_is_kept(wire: Wire) -> None:
    """With `Connection: close` the connection ends after the response."""
    answer = wire.ask(request("GET / HTTP/1.1", "Connection: close"))

    assert answer.headers["Connection"] == "close"
    assert wire.ended()


def test_http_1_0_ends_the_connection(wire: Wire) -> None:
    """HTTP/1.0 needs no Host, and its connections are closed by default."""
    assert wire.ask(b"GET /old HTTP/1.0\r\n\r\n").body == b"GET /old\n"
    assert wire.ended()


def test_http_1_0_keeps_the_connection_when_asked_to(wire: Wire) -> None:
    """An HTTP/1.0 client that requests keep-alive gets it, with the header."""
    answer = wire.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    assert answer.headers["Connection"] == "keep-alive"
    assert wire.ask().status == 200


def test_client_that_closes_its_half_gets_its_answer(wire: Wire) -> None:
    """A client that has closed its sending side still gets its response."""
    wire.send(GET)
    wire.sock.shutdown(1)

    assert wire.answer().body == b"GET /\n"
    assert wire.ended()


def test_head_gets_the_headers_of_get_and_no_body(echo: Echo, wire: Wire) -> None:
    """HEAD is handled as GET without the body, and the connection stays usable."""
    wire.send(request("HEAD /metrics HTTP/1.1"))
    head = wire.answer(head_only=True)
    get = wire.ask(request("GET /metrics HTTP/1.1"))

    assert head.status == 200
    assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.body))
    assert [seen.method for seen in echo.requests] == ["GET", "GET"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "X-Y"])
def test_every_method_reaches_the_function(method: str, wire: Wire) -> None:
    """The handler decides which methods are allowed."""
    assert wire.ask(request(f"{method} /x HTTP/1.1")).body == f"{method} /x\n".encode()


def test_target_is_decoded(echo: Echo, wire: Wire) -> None:
    """Path and query come percent-decoded; repeated and blank fields are kept."""
    wire.ask(
        request("GET /a%20b%C3%A4?collect[]=cpu&collect%5B%5D=mem+info&x=&target=%2F HTTP/1.1")
    )

    assert echo.requests[0].path == "/a bä"
    assert echo.requests[0].query == {
        "collect[]": ["cpu", "mem info"],
        "x": [""],
        "target": ["/"],
    }


def test_absolute_target_is_understood(echo: Echo, wire: Wire) -> None:
    """A request line with a whole URL, as for proxies, is accepted."""
    wire.ask(request("GET http://host:1/metrics?a=1 HTTP/1.1"))

    assert (echo.requests[0].path, echo.requests[0].query) == ("/metrics", {"a": ["1"]})


def test_header_names_are_the_same_in_any_case(echo: Echo, wire: Wire) -> None:
    """Header names are case-insensitive."""
    wire.ask(request("GET / HTTP/1.1", "aCCept: text/plain"))

    assert echo.requests[0].headers.get("Accept") == "text/plain"
    assert echo.requests[0].headers.get("Absent") is None


@pytest.mark.parametrize("size", [0, 5, MAX_BODY_BYTES])
def test_body_is_read_past(size: int, wire: Wire) -> None:
    """The body of a request is skipped."""
    body = (b"GET /smuggled HTTP/1.1\r\n\r\n" * MAX_BODY_BYTES)[:size]
    wire.send(request("POST /one HTTP/1.1", f"Content-Length: {size}", body=body))
    wire.send(request("GET /two HTTP/1.1"))

    assert [wire.answer().body, wire.answer().body] == [b"POST /one\n", b"GET /two\n"]


def test_blank_lines_between_requests_are_let_pass(wire: Wire) -> None:
    """An extra line break after a body is ignored."""
    wire.send(request("POST /one HTTP/1.1", "Content-Length: 1", body=b"x"))
    wire.send(b"\r\n" + request("GET /two HTTP/1.1"))

    assert [wire.answer().body, wire.answer().body] == [b"POST /one\n", b"GET /two\n"]


def test_expectation_is_answered_before_the_body(wire: Wire) -> None:
    """`Expect: 100-continue` gets its interim response."""
    wire.send(request("POST / HTTP/1.1", "Content-Length: 2", "Expect: 100-continue"))
    assert wire.answer(head_only=True).status == 100

    wire.send(b"{}")
    assert wire.answer().body == b"POST /\n"


LONG = "x" * (MAX_HEAD_BYTES + 1)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"hello\r\n\r\n", 400, id="no-http"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, id="tls-to-a-plain-port"),
        pytest.param(b"GET /\r\n\r\n", 400, id="http-0.9"),
        pytest.param(request("GET / HTTP/0.9"), 400, id="http-0.9-spelled-out"),
        pytest.param(request("GET  / HTTP/1.1"), 400, id="two-spaces"),
        pytest.param(request("GET /\x1b[31m HTTP/1.1"), 400, id="control-character-in-target"),
        pytest.param(request("G=T / HTTP/1.1"), 400, id="method-that-is-no-token"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\n", 505, id="http-2"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no-host"),
        pytest.param(request("GET / HTTP/1.1", "Host: other"), 400, id="two-hosts"),
        pytest.param(request("GET / HTTP/1.1", "no colon"), 400, id="field-without-colon"),
        pytest.param(request("GET / HTTP/1.1", "A : b"), 400, id="space-before-colon"),
        pytest.param(request("GET / HTTP/1.1", "A: b", " folded"), 400, id="folded-field"),
        pytest.param(request("GET / HTTP/1.1", "A: b\rC: d"), 400, id="bare-carriage-return"),
        pytest.param(request("GET / HTTP/1.1", "A: b\0"), 400, id="nul"),
        pytest.param(request("GET http://[ HTTP/1.1"), 400, id="broken-url"),
        pytest.param(
            request(f"GET /?{'a&' * MAX_QUERY_FIELDS}a HTTP/1.1"), 400, id="too-many-query-fields"
        ),
        pytest.param(request(f"GET /{LONG} HTTP/1.1"), 414, id="long-target"),
        pytest.param(request("GET / HTTP/1.1", f"A: {LONG}"), 431, id="long-field"),
        pytest.param(request("GET / HTTP/1.1", *["A: bcdef"] * 99999), 431, id="many-bytes"),
        pytest.param(request("GET / HTTP/1.1", *["A: b"] * 101), 431, id="many-fields"),
        pytest.param(b"\r\n" * MAX_HEAD_BYTES, 414, id="nothing-but-blank-lines"),
        pytest.param(request("POST / HTTP/1.1", "Content-Length: -1"), 400, id="negative-length"),
        pytest.param(request("POST / HTTP/1.1", "Content-Length: 1e3"), 400, id="no-length"),
        pytest.param(
            request("POST / HTTP/1.1", f"Content-Length: {'9' * 5000}"), 400, id="absurd-length"
        ),
        pytest.param(
            request("POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 2"),
            400,
            id="two-lengths",
        ),
        pytest.param(
            request("POST / HTTP/1.1", f"Content-Length: {MAX_BODY_BYTES + 1}"), 413, id="long-body"
        ),
        pytest.param(
            request("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n\r\n"),
            411,
            id="chunked",
        ),
        pytest.param(
            request("POST / HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: x", body=b"x"),
            411,
            id="length-and-encoding",
        ),
    ],
)
@pytest.mark.usefixtures("quiet")
def test_bad_request_is_turned_away(
    sent: bytes, status: int, echo: Echo, listener: Listener
) -> None:
    """Invalid or oversized requests get an error and the end of the connection, without handler and log."""
    with listener.wire() as wire:
        answer = wire.ask(sent)

        assert (answer.status, answer.headers["Connection"]) == (status, "close")
        assert answer.body.decode().startswith(HTTPStatus(status).phrase)
        assert wire.ended()
    assert echo.requests == []
    assert listener.traffic.refused["request"] == 1


def test_error_after_a_head_request_has_a_body(wire: Wire) -> None:
    """A response does not depend on the previous request."""
    wire.send(request("HEAD / HTTP/1.1"))
    wire.answer(head_only=True)

    assert wire.ask(b"garbage\r\n\r\n").body != b""


def test_refusal_survives_a_body_that_is_not_read(wire: Wire) -> None:
    """The response about an oversized body arrives, although the body is not read."""
    wire.send(request("POST / HTTP/1.1", "Content-Length: 1000000", body=bytes(1_000_000)))

    assert wire.answer().status == 413
    assert wire.incoming.read() == b""  # an end, not a reset


def test_refused_client_may_go_on_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends a whole oversized request before it reads gets the response."""
    monkeypatch.setattr(refusals_module, "LINGER_SECONDS", 3600)
    with listening() as listener, listener.wire() as wire:
        assert wire.ask(request("POST / HTTP/1.1", "Content-Length: 1000000")).status == 413

        wire.send(bytes(1_000_000))
        assert wire.incoming.read() == b""


@pytest.mark.parametrize("sent", [GET, b"garbage\r\n\r\n", request("GET / HTTP/1.1", "A b")])
def test_browsers_are_told_to_trust_nothing(sent: bytes, wire: Wire) -> None:
    """Every response has the security headers."""
    headers = wire.ask(sent).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_function_that_raises_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the handler is logged and becomes status 500; the connection stays usable."""

    def broken(request: Request) -> Response:
        if request.path == "/broken":
            message = "a defect"
            raise ValueError(message)
        return Response(200, b"fine\n")

    with listening(broken) as listener, listener.wire() as wire:
        answer = wire.ask(request("GET /broken HTTP/1.1"))

        assert (answer.status, b"a defect" in answer.body) == (500, False)
        assert wire.ask().body == b"fine\n"
    [record] = caplog.records
    assert (record.name, record.levelno) == ("bts_exporter.web.server", logging.ERROR)
    assert "a defect" in caplog.text


def test_response_that_cannot_be_sent_ends_the_connection(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """An invalid header of the handler is logged, and the connection is closed."""
    unsendable = Response(200, headers=(("X-Snowman", "☃"),))
    with listening(lambda _: unsendable) as listener:
        with listener.wire() as wire:
            wire.send(GET)
            assert wire.ended()
        wait_until(lambda: listener.traffic.open == 0, "the connection is closed")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert capfd.readouterr().err == ""
