from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bts_collectors.relay.collector import Relay
from bts_collectors.relay.config import RelayConfig
from bts_collectors.relay.families import Relayed
from bts_exporter import Kind, Scrape, Secret, Url, prometheus_text
from bts_exporter.exposition.formats import Format
from bts_exporter.exposition.page import Source, render
from bts_exporter.testing import collect, look
from servers import free_port
from servers.management import FakeManagement, Handler, Reply, answer, drip, hang, raw, send

TEXT = {"Content-Type": "text/plain; version=0.0.4"}
PAGE = b"""\
# HELP jobs_total Jobs, by result.
# TYPE jobs_total counter
jobs_total{result="ok"} 3 1764000000000
jobs_total{result="failed"} 1
# TYPE size histogram
size_bucket{le="1"} 2
size_bucket{le="+Inf"} 5
size_sum 7.5
size_count 5
# TYPE wait summary
wait{quantile="0.5"} 0.25
wait_sum 2
wait_count 4
plain 8
"""


@pytest.fixture
def application() -> Iterator[FakeManagement]:
    """Return an application with a page of metrics."""
    with FakeManagement() as fake:
        fake.routes = {"/metrics": send(PAGE, headers=TEXT)}
        yield fake


#: Makes a collector of the application at an address.
MakeRelay = Callable[..., Relay]


@pytest.fixture
def relay() -> Iterator[MakeRelay]:
    """Return a function that makes a collector, which is stopped after the test."""
    made: list[Relay] = []

    def make(url: str, **options: object) -> Relay:
        made.append(Relay(RelayConfig(url=Url.from_setting(url), **options)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for collector in made:
        collector.stop()


def test_samples_are_those_of_the_page(application: FakeManagement, relay: MakeRelay) -> None:
    """Names, labels and values are kept; times are dropped."""
    assert collect(relay(application.url)) == {
        "relay_up": {(): 1},
        "jobs_total": {("ok",): 3, ("failed",): 1},
        "size": {("_bucket", "1.0"): 2, ("_bucket", "+Inf"): 5, ("_sum",): 7.5, ("_count",): 5},
        "wait": {("", "0.5"): 0.25, ("_sum",): 2, ("_count",): 4},
        "plain": {(): 8},
    }


@pytest.mark.parametrize(
    "content_type",
    [None, "text/html; charset=utf-8", "text/plain; version=1.0.0", "application/octet-stream"],
)
def test_content_type_does_not_matter(
    application: FakeManagement, content_type: str | None, relay: MakeRelay
) -> None:
    """Old libraries and programs without one have none, or send text/html."""
    headers = {"Content-Type": content_type} if content_type else {}
    application.routes["/metrics"] = send(PAGE, headers=headers)

    assert collect(relay(application.url))["plain"] == {(): 8}


@pytest.mark.parametrize(
    "content_type", ["application/openmetrics-text; version=1.0.0", "text/plain"]
)
def test_openmetrics_is_recognized(
    application: FakeManagement, content_type: str, relay: MakeRelay
) -> None:
    """By its content type, or by its last line; a counter keeps its type."""
    page = b'# TYPE jobs counter\njobs_total 3 # {id="1"} 1\njobs_created 1764000000.5\n# EOF\n'
    application.routes["/metrics"] = send(page, headers={"Content-Type": content_type})
    scrape = Scrape(time.monotonic() + 10)
    relay(application.url).collect(scrape)

    [(metric, samples)] = [item for item in scrape.samples.items() if item[0].name != "relay_up"]
    assert (metric.name, metric.kind, samples) == ("jobs_total", Kind.COUNTER, {(): 3})


def test_prefix(application: FakeManagement, relay: MakeRelay) -> None:
    """It is part of every name of the application, and of no other."""
    samples = collect(relay(application.url, prefix="shop_"))

    assert set(samples) == {"relay_up", "shop_jobs_total", "shop_size", "shop_wait", "shop_plain"}


def test_line_that_cannot_be_read_is_reported(
    application: FakeManagement, relay: MakeRelay
) -> None:
    """Everything else is served, and the application is up."""
    application.routes["/metrics"] = send(b"a 1\nb{x=1} 2\nc \xff\nd 4\na 5\n")
    samples, error = look(relay(application.url))

    assert samples == {"relay_up": {(): 1}, "a": {(): 1}, "d": {(): 4}}
    assert error is not None
    assert error.reason == "protocol"
    assert f"application at {application.url}/metrics: left out: line 2: " in str(error)
    assert "line 3: not valid UTF-8: 'c \\udcff'; line 5: duplicate sample" in str(error)


def test_many_lines_that_cannot_be_read_are_counted(
    application: FakeManagement, relay: MakeRelay
) -> None:
    """The error does not grow with the page."""
    application.routes["/metrics"] = send(b"a 1\n" + b"?\n" * 1000)
    _, error = look(relay(application.url))

    assert str(error).endswith("and 995 more")
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    ("page", "left", "problem"),
    [
        (b'size_bucket{le="1"} 5\nsize_bucket{le="+Inf"} 3\nsize_count 3\n', [], "smaller count"),
        (b'size_bucket{le="1"} 1\n', [], "needs the bucket +Inf, or a count"),
        (b'size_bucket{le="+Inf"} 1.5\n', [], "not a whole number"),
        (b'size_bucket{le="1"} 1\nsize_bucket{le="1.0"} 1\nsize_count 1\n', [], "repeated"),
        (b'size_bucket{le="nan"} 1\nsize_count 1\n', [], "not a number"),
        (
            b'size_bucket{a="1",le="+Inf"} -1\nsize_bucket{a="2",le="+Inf"} 4\n',
            [("_bucket", "2", "+Inf"), ("_count", "2")],
            "cannot be negative",
        ),
    ],
)
def test_histogram_that_is_wrong_is_left_out_as_a_whole(
    application: FakeManagement,
    page: bytes,
    left: list[tuple[str, ...]],
    problem: str,
    relay: MakeRelay,
) -> None:
    """A half of a histogram would give wrong quantiles; others of the family are served."""
    application.routes["/metrics"] = send(b"# TYPE size histogram\n" + page + b"a 1\n")
    samples, error = look(relay(application.url))

    assert list(samples.get("size", {})) == left
    assert samples["a"] == {(): 1}
    assert problem in str(error)


def test_histogram_in_another_order(application: FakeManagement, relay: MakeRelay) -> None:
    """Buckets are sorted, and the count is that of the bucket +Inf if it has moved on in between."""
    page = (
        b"# TYPE size histogram\nsize_count 4\n"
        b'size_bucket{le="+Inf"} 5\nsize_sum 9\nsize_bucket{le="10"} 2\nsize_bucket{le="9"} 1\n'
    )
    application.routes["/metrics"] = send(page)

    assert list(collect(relay(application.url))["size"].items()) == [
        (("_bucket", "9.0"), 1),
        (("_bucket", "10.0"), 2),
        (("_bucket", "+Inf"), 5),
        (("_count",), 5),
        (("_sum",), 9),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"# TYPE w summary\nw{quantile='1'} 3\n", "invalid or repeated label"),
        (b'# TYPE w summary\nw{quantile="2"} 3\n', "not between 0 and 1"),
        (b"# TYPE w_total counter\nw_total NaN\n", "a counter cannot be NaN"),
        (b"# TYPE w_total counter\nw_total -1\n", "a counter cannot be negative"),
        (b"w{" + b",".join(b'l%d="1"' % n for n in range(61)) + b"} 1\n", "w has 61 labels"),
    ],
)
def test_metric_that_no_page_may_have(
    application: FakeManagement, line: bytes, problem: str, relay: MakeRelay
) -> None:
    """It is left out and reported: the page must stay valid."""
    application.routes["/metrics"] = send(line + b"a 1\n")
    samples, error = look(relay(application.url))

    assert samples == {"relay_up": {(): 1}, "a": {(): 1}}
    assert problem in str(error)


def test_labels_of_prometheus_are_renamed(application: FakeManagement, relay: MakeRelay) -> None:
    """As Prometheus renames them when it scrapes the application itself."""
    page = b'a{instance="1",job="2",target="3",exported_job="4"} 1\n'
    application.routes["/metrics"] = send(page)
    collector = relay(application.url)
    scrape = Scrape(time.monotonic() + 10)
    collector.collect(scrape)

    [metric] = [metric for metric in scrape.samples if metric.name == "a"]
    assert metric.labels == (
        "exported_instance",
        "exported_exported_job",
        "exported_target",
        "exported_job",
    )
    assert scrape.samples[metric] == {("1", "2", "3", "4"): 1}


def test_names_of_the_exporter_are_left_out(application: FakeManagement, relay: MakeRelay) -> None:
    """An application may serve our collectors on its own page; what they say of themselves is not relayed."""
    page = b'bts_exporter_collector_success{collector="redis"} 1\nrelay_up 0\nredis_up 1\n'
    application.routes["/metrics"] = send(page)

    assert collect(relay(application.url)) == {"relay_up": {(): 1}, "redis_up": {(): 1}}


def test_metrics_are_the_same_objects_at_each_scrape(
    application: FakeManagement, relay: MakeRelay
) -> None:
    """So the engine renders their series once; those that are gone are forgotten."""
    collector = relay(application.url)
    found = []
    for page in (PAGE, PAGE, b"other 1\n"):
        application.routes["/metrics"] = send(page)
        scrape = Scrape(time.monotonic() + 10)
        collector.collect(scrape)
        found.append(list(scrape.samples))

    assert found[0] == found[1]
    assert len(collector._relayed._metrics) == 1


def endless(handler: Handler) -> None:
    """Send samples without end, and without a length."""
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    with suppress(OSError):
        while not handler.fake.over.is_set():
            handler.wfile.write(b"a 1\n" * 10_000)


def long_line(handler: Handler) -> None:
    """Send a line of 100 MB."""
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    with suppress(OSError):
        for _ in range(100):
            handler.wfile.write(b"a" * 1_000_000)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "reason", "message"),
    [
        (endless, "protocol", "limit of 10000000 bytes; raise max_body_bytes"),
        (long_line, "protocol", "limit of 10000000 bytes; raise max_body_bytes"),
        (send(b"a 1\n" * 50_000_000), "protocol", "limit of 10000000 bytes"),
        (hang, "timeout", "no reply in time"),
        (drip(HEAD, b"a", 100, b""), "timeout", "no reply in time"),
        (raw(HEAD + b"a 1\n"), "unreachable", "connection closed"),
        (raw(b"SSH-2.0-OpenSSH\r\n"), "protocol", "not HTTP"),
        (send(b"<!DOCTYPE html>\n<p>Log in</p>\n"), "protocol", "not a page of metrics"),
        (send(b'{"status": "ok"}'), "protocol", "not a page of metrics"),
        (send(b"\x0a\x05\x12\xff\x00"), "protocol", "not a page of metrics"),
        (answer({}, 404), "protocol", "HTTP 404; is the path of url right?"),
        (answer({}, 401), "auth", "set a user in url and password, or token"),
        (answer({}, 403), "noperm", "HTTP 403"),
        (answer({}, 508), "protocol", "a bts-exporter is not relayed"),
        (send(b"", 302, {"Location": "/login?token=x"}), "protocol", "it redirects to /login: write"),
    ],
    ids=[
        "endless", "long line", "gzip bomb", "hangs", "drips", "cut off", "not HTTP", "HTML", "JSON", "binary",
        "404", "401", "403", "508", "redirect",
    ],
)  # fmt: skip
def test_application_without_a_page(
    application: FakeManagement, reply: Reply, reason: str, message: str, relay: MakeRelay
) -> None:
    """The application is not up, nothing else is served, and the error says why."""
    application.routes["/metrics"] = reply
    samples, error = look(relay(application.url), seconds=3.0 if reason != "timeout" else 0.3)

    assert samples == {"relay_up": {(): 0}}
    assert error is not None
    assert (error.reason, message in str(error)) == (reason, True), error


def test_application_that_is_down(relay: MakeRelay) -> None:
    """The error has the address."""
    port = free_port()
    samples, error = look(relay(f"http://127.0.0.1:{port}"))

    assert samples == {"relay_up": {(): 0}}
    assert f"http://127.0.0.1:{port}/metrics: connection refused; is it running" in str(error)


def test_application_without_metrics(application: FakeManagement, relay: MakeRelay) -> None:
    """An empty page is a page: the application may have nothing to report yet."""
    application.routes["/metrics"] = send(b"")

    assert collect(relay(application.url)) == {"relay_up": {(): 1}}


@pytest.mark.parametrize(
    ("page", "limit"),
    [
        (b"".join(b"m%d 1\n" % n for n in range(200)), "more than 100 metrics"),
        (b"".join(b"# HELP m%d x\n" % n for n in range(200)), "more than 100 metrics"),
        (b"".join(b'm{a="%d"} 1\n' % n for n in range(2000)), "more than 1000 samples"),
        (b"a 1\n" * 200, "more than 150 lines that cannot be read"),
        (b"a 1\n" + b"#\n" * 6000, "more than 5000 lines"),
    ],
    ids=["metrics", "helps", "samples", "errors", "lines"],
)
def test_page_that_is_too_large_is_read_up_to_a_limit(
    page: bytes,
    limit: str,
    application: FakeManagement,
    relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each line costs memory and time, so their number is limited, and the limit is reported."""
    limits = {"FAMILIES": 100, "SAMPLES": 1000, "LOST_LINES": 150, "LINES": 5000}
    for name, value in limits.items():
        monkeypatch.setattr(prometheus_text, f"MAX_{name}", value)
    application.routes["/metrics"] = send(b"first 1\n" + page + b"last 1\n")
    samples, error = look(relay(application.url))

    assert samples["first"] == {(): 1}
    assert "last" not in samples
    assert f"on: {limit}" in str(error)


def test_request(application: FakeManagement, relay: MakeRelay) -> None:
    """It asks for the text format first, has the login of the settings, and tells that it is a relay."""
    collect(relay(application.url, token=Secret("t0ken"), headers={"X-Tenant": Secret("shop")}))

    [sent] = application.headers
    assert sent["Accept"].startswith("text/plain;version=0.0.4, application/openmetrics-text")
    assert (sent["Authorization"], sent["X-Tenant"]) == ("Bearer t0ken", "shop")
    assert sent["X-Bts-Exporter-Relay"] == "1"


NAMES = st.sampled_from(
    ["a", "b_total", "c_bucket", "c_sum", "c_count", "c", "c_created", "b_created"]
)
LABELS = st.lists(
    st.builds(
        '{}="{}"'.format,
        st.sampled_from(["le", "quantile", "job", "x"]),
        st.sampled_from(["1", "+Inf", "0.5", "é", 'q\\"', ""]),
    ),
    max_size=2,
)
NUMBERS = st.sampled_from(["0", "1", "2.5", "-1", "NaN", "+Inf", "1e9"])
SAMPLES = st.builds(
    lambda name, labels, value: f"{name}{{{','.join(labels)}}} {value}",
    NAMES,
    LABELS,
    NUMBERS,
)
TYPES = st.builds(
    lambda name, kind: f"# TYPE {name} {kind}",
    NAMES,
    st.sampled_from(["counter", "gauge", "histogram", "summary", "untyped"]),
)


@settings(max_examples=300)
@given(st.lists(TYPES, max_size=3), st.lists(SAMPLES, max_size=8))
def test_page_stays_valid(types: list[str], lines: list[str]) -> None:
    """Whatever an application serves, strict readers of both formats accept what is relayed of it."""
    found = prometheus_text.read("\n".join([*types, *lines]))
    scrape = Scrape(time.monotonic() + 10)
    Relayed("", []).emit(scrape, found.families)

    assert scrape.losses == []
    plain = render([Source(scrape.samples)], Format.TEXT).decode()
    prometheus_text.parse(plain)
    modern = render([Source(scrape.samples)], Format.OPENMETRICS).decode()
    try:
        list(text_string_to_metric_families(modern))
    except ValueError as error:
        # Prometheus has no such rules, and what they refuse cannot be repaired: a sum of values below 0.
        rules = r"_sum/_gsum must be|Cannot have _sum with|Quantile values cannot|Counter-like .*_sum[ {]"
        assert re.match(rules, str(error))  # noqa: PT017
