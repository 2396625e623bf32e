from __future__ import annotations

import gzip
from collections.abc import Iterator
from email.message import Message

import pytest

from bts_exporter import Scrape, TargetError
from bts_exporter.errors import ConfigError, Problem
from bts_exporter.exposition.formats import Format
from bts_exporter.page_service import Exporter, TooManyScrapes
from bts_exporter.web.routes import Routes
from bts_exporter.web.server import Request, Response
from servers.listener import listening
from stubs import Hang, LocalStub, Stub, collectors


class Part(Stub):
    """One of several collectors of a type."""

    name = "part"


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """Return an exporter of four collectors: two of one type, and two targets of another."""
    exporter = Exporter(own_metrics=False)
    members = [
        ("host", LocalStub()),
        ("host", Part(lambda s: s.emit(Stub.series, 1, "part"))),
        ("broker", Stub(), {"name": "a"}),
        ("broker", Stub(), {"name": "b"}),
    ]
    with collectors(*members) as (together, _):
        exporter.collectors = together
        yield exporter


def request(path: str = "/metrics", method: str = "GET", **headers: str) -> Request:
    """Return a request; the names of header fields with underscores."""
    path, _, query = path.partition("?")
    fields: dict[str, list[str]] = {}
    for pair in filter(None, query.split("&")):
        key, _, value = pair.partition("=")
        fields.setdefault(key, []).append(value)
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return Request(method, path, fields, message)


def series(response: Response) -> set[str]:
    """Return the series on the page, those of the exporter itself left out."""
    assert response.status == 200, response.body
    lines = response.body.decode().splitlines()
    return {
        line.rpartition(" ")[0] for line in lines if not line.startswith(("#", "bts_exporter_"))
    }


PART, HOST, A, B = (
    'stub_series{key="part"}',
    "stub_value",
    'stub_value{target="a"}',
    'stub_value{target="b"}',
)


# Pages


@pytest.mark.parametrize("path", ["/metrics", "/probe?target=a"])
def test_relay_gets_no_page(path: str, exporter: Exporter) -> None:
    """A page that contains itself would wait for itself."""
    response = Routes(exporter)(request(path, X_Bts_Exporter_Relay="1"))

    assert (response.status, exporter.scrapes) == (508, 0)


@pytest.mark.parametrize(
    ("path", "content_type", "words"),
    [
        ("/", "text/html; charset=utf-8", b"<!doctype html>"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", b"# HELP bts_exporter"),
        ("/probe?target=a", "text/plain; version=0.0.4; charset=utf-8", b"# HELP bts_exporter"),
        ("/-/healthy", "text/plain; charset=utf-8", b"bts-exporter is healthy.\n"),
        ("/-/ready", "text/plain; charset=utf-8", b"bts-exporter is ready.\n"),
    ],
)
def test_pages(exporter: Exporter, path: str, content_type: str, words: bytes) -> None:
    """Each path has its page."""
    response = Routes(exporter)(request(path))

    assert (response.status, response.content_type) == (200, content_type)
    assert response.body.startswith(words)


@pytest.mark.parametrize(
    "path",
    ["/metric", "/metrics/", "/probe/", "/-/", "", "/favicon.ico", "/-/quit", "/../etc/passwd"],
)
def test_no_such_page(exporter: Exporter, path: str) -> None:
    """An unknown path is a 404 that names the path of the metrics."""
    response = Routes(exporter)(request(path))

    assert (response.status, response.body) == (404, b"not found; metrics are at /metrics\n")


def test_other_telemetry_path(exporter: Exporter) -> None:
    """The metrics are only at the path of the flag."""
    routes = Routes(exporter, telemetry_path="/here")

    assert routes(request("/here")).status == 200
    assert routes(request("/metrics")).body == b"not found; metrics are at /here\n"
    assert b'href="here"' in routes(request("/")).body


@pytest.mark.parametrize("path", ["/", "/metrics", "/probe?target=a", "/-/healthy", "/-/ready"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods(exporter: Exporter, path: str, method: str) -> None:
    """Other methods than GET and HEAD are a 405."""
    response = Routes(exporter)(request(path, method))

    assert (response.status, response.headers) == (405, (("Allow", "GET, HEAD"),))
    assert response.body == b"method not allowed; allowed: GET, HEAD\n"


def test_not_ready(exporter: Exporter) -> None:
    """During start and stop the exporter is healthy and not ready."""
    routes = Routes(exporter, ready=lambda: False)

    response = routes(request("/-/ready"))
    assert (response.status, response.body) == (503, b"bts-exporter is starting or stopping.\n")
    assert routes(request("/-/healthy")).status == 200


# Selecting


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {HOST, PART, A, B}),
        ("?collect[]=host", {HOST, PART}),
        ("?collect[]=part", {PART}),
        ("?collect[]=part&collect[]=broker", {PART, A, B}),
        ("?exclude[]=host", {A, B}),
        ("?exclude[]=part&exclude[]=broker", {HOST}),
        ("?unknown=x", {HOST, PART, A, B}),
    ],
)
def test_selection(exporter: Exporter, query: str, expected: set[str]) -> None:
    """Collectors are selected by their names or their types', as in node_exporter."""
    assert series(Routes(exporter)(request(f"/metrics{query}"))) == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?collect[]=zfs", "no such collector: zfs; there are: broker, host, part"),
        ("?exclude[]=a", "no such collector: a; there are: broker, host, part"),
        ("?collect[]=", "no such collector: ; there are: broker, host, part"),
        ("?collect[]=host&exclude[]=part", "collect[] and exclude[] cannot be combined"),
    ],
)
def test_selection_of_what_is_not_there(exporter: Exporter, query: str, message: str) -> None:
    """An invalid selection is a 400 that lists the valid names."""
    response = Routes(exporter)(request(f"/metrics{query}"))

    assert (response.status, response.body.decode()) == (400, f"{message}\n")


def test_only_the_selected_are_collected(exporter: Exporter) -> None:
    """A target that is not selected is not asked."""
    Routes(exporter)(request("/metrics?collect[]=part"))

    assert [
        getattr(runner.collector, "collections", 0) for runner in exporter.collectors.runners
    ] == [0, 1, 0, 0]


def test_probe(exporter: Exporter) -> None:
    """A probe of one target has its series and its state, and no metrics of the exporter."""
    response = Routes(exporter)(request("/probe?target=b"))

    assert series(response) == {B}
    assert b'bts_exporter_collector_success{collector="broker",target="b"} 1\n' in response.body
    assert b"bts_exporter_build_info" not in response.body


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "expected exactly one target: /probe?target=NAME, with a name from the configuration"),
        (
            "?target=a&target=b",
            "expected exactly one target: /probe?target=NAME, with a name from the configuration",
        ),
        ("?target=", "no target named ''; there are: a, b"),
        ("?target=127.0.0.1:22", "no target named '127.0.0.1:22'; there are: a, b"),
        (
            "?target=http://169.254.169.254/",
            "no target named 'http://169.254.169.254/'; there are: a, b",
        ),
    ],
)
def test_probe_of_what_is_not_there(exporter: Exporter, query: str, message: str) -> None:
    """Only targets in the settings can be probed; a request cannot contain an address."""
    response = Routes(exporter)(request(f"/probe{query}"))

    assert (response.status, response.body.decode()) == (400, f"{message}\n")


def test_name_that_is_no_unicode(exporter: Exporter) -> None:
    """A target name with invalid characters is a 400."""
    assert Routes(exporter)(request("/probe?target=\udcff")).status == 400


# Negotiating


def test_openmetrics(exporter: Exporter) -> None:
    """A client that prefers OpenMetrics gets it, with a `Vary` header."""
    response = Routes(exporter)(request(Accept="application/openmetrics-text;version=1.0.0"))

    assert response.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert response.body.endswith(b"# EOF\n")
    assert ("Vary", "Accept, Accept-Encoding") in response.headers


@pytest.mark.parametrize(
    ("header", "packed"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("gzip, deflate", True),
        ("deflate, gzip;q=0.5", True),
        ("*", True),
        ("gzip;q=1.0", True),
        ("", False),
        ("identity", False),
        ("zstd", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("gzip ;q=0.000", False),
        ("*;q=0", False),
        ("*;q=0, gzip", True),
        ("gzip;q=0, *", False),
        ("xgzip", False),
    ],
)
def test_compression(exporter: Exporter, header: str, packed: bool) -> None:
    """A page is compressed for clients that accept gzip."""
    response = Routes(exporter)(request(Accept_Encoding=header))

    assert dict(response.headers).get("Content-Encoding") == ("gzip" if packed else None)
    body = gzip.decompress(response.body) if packed else response.body
    assert body.startswith(b"# HELP")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("10", 9.5),
        ("10.000000", 9.5),
        ("1", 0.5),
        ("0.4", 0.2),
        ("0.001", 0.0005),
        ("1e1", 9.5),
        ("", None),
        ("0", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("soon", None),
        ("10s", None),
    ],
)
def test_timeout_of_the_client(
    exporter: Exporter, header: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a second of Prometheus' timeout is reserved for sending; an invalid header is ignored."""
    given: list[object] = []
    page = exporter.page

    def spy(*arguments: object, **options: object) -> bytes:
        given.append(options["timeout"])
        return page(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(exporter, "page", spy)

    assert Routes(exporter)(request(X_Prometheus_Scrape_Timeout_Seconds=header)).status == 200
    assert given == [seconds]


def test_collector_that_fails_is_no_error_of_the_page(exporter: Exporter) -> None:
    """A target that is down changes a sample, not the HTTP status."""

    def fail(_: Scrape) -> None:
        reason = "auth"
        raise TargetError(reason, "denied")

    runner = exporter.collectors.runners[2]
    assert isinstance(runner.collector, Stub)
    runner.collector.behave = fail

    response = Routes(exporter)(request("/probe?target=a"))

    assert response.status == 200
    assert b'bts_exporter_collector_success{collector="broker",target="a"} 0\n' in response.body
    assert b"denied" not in response.body


def test_too_many_scrapes(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of scrapes the response is a 503 with `Retry-After`."""

    def refuse(*_: object, **__: object) -> bytes:
        message = "too many concurrent scrapes: 40 (--web.max-requests)"
        raise TooManyScrapes(message)

    monkeypatch.setattr(exporter, "page", refuse)
    response = Routes(exporter)(request())

    assert (response.status, response.headers) == (503, (("Retry-After", "1"),))
    assert response.body == b"too many concurrent scrapes: 40 (--web.max-requests)\n"


# Reloading


def failing() -> None:
    """Fail to reload."""
    problems = [
        Problem("c.yaml", 3, "collectors.redis", "url is missing"),
        Problem("c.yaml", 5, "x", "unknown key"),
    ]
    raise ConfigError(problems)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_reload_without_the_flag(exporter: Exporter, method: str) -> None:
    """Without the flag a reload over HTTP is refused."""
    response = Routes(exporter)(request("/-/reload", method))

    assert (response.status, response.body) == (
        403,
        b"reload over HTTP is disabled; start with --web.enable-lifecycle to enable it\n",
    )


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_reload(exporter: Exporter, method: str) -> None:
    """With the flag, a POST reloads."""
    reloads: list[bool] = []
    response = Routes(exporter, reload=lambda: reloads.append(True))(request("/-/reload", method))

    assert (response.status, response.body, reloads) == (200, b"reloaded.\n", [True])


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_reload_by_another_method(exporter: Exporter, method: str) -> None:
    """A GET reloads nothing."""
    reloads: list[bool] = []
    response = Routes(exporter, reload=lambda: reloads.append(True))(request("/-/reload", method))

    assert (response.status, response.headers, reloads) == (405, (("Allow", "POST, PUT"),), [])


def test_reload_that_fails(exporter: Exporter) -> None:
    """The response to a failed reload lists every problem."""
    response = Routes(exporter, reload=failing)(request("/-/reload", "POST"))

    assert response.status == 500
    assert response.body.decode() == (
        "reload failed, the previous settings remain active:\n"
        "c.yaml:3: collectors.redis: url is missing\n"
        "c.yaml:5: x: unknown key\n"
    )


# Through the server


def test_head(exporter: Exporter) -> None:
    """HEAD has the headers of GET and no body, on every page, and the connection goes on."""
    with listening(Routes(exporter)) as listener, listener.wire() as wire:
        for path in ("/", "/metrics", "/-/healthy", "/nothing"):
            wire.send(f"HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            head = wire.answer(head_only=True)
            got = wire.ask(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())

            assert (head.status, head.headers["Content-Type"], head.body) == (
                got.status,
                got.headers["Content-Type"],
                b"",
            )
            assert int(head.headers["Content-Length"]) > 0


def test_packed_page_over_the_wire(exporter: Exporter) -> None:
    """The page is valid for the headers that Prometheus sends."""
    with listening(Routes(exporter)) as listener, listener.wire() as wire:
        answer = wire.ask(
            b"GET /metrics?collect%5B%5D=part HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n"
            b"Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n"
            b"X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
        )

    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Content-Type"] == Format.OPENMETRICS.value
    body = gzip.decompress(answer.body)
    assert (PART.encode() in body, HOST.encode() in body) == (True, False)


def test_patience_of_the_client_is_kept(exporter: Exporter) -> None:
    """A scrape with a short timeout gets the samples that exist by then."""
    hang = Hang()
    runner = exporter.collectors.runners[2]
    assert isinstance(runner.collector, Stub)
    runner.collector.behave = hang
    exporter.scrape_timeout = 3600
    with listening(Routes(exporter)) as listener, listener.wire() as wire:
        answer = wire.ask(
            b"GET /metrics HTTP/1.1\r\nHost: test\r\nX-Prometheus-Scrape-Timeout-Seconds: 2\r\n\r\n"
        )

        assert not hang.go_on.is_set()
        assert (A.encode() in answer.body, B.encode() in answer.body) == (False, True)
        hang.end()
