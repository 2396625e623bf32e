from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from bts_exporter import Scrape
from bts_exporter.page_service import Exporter
from bts_exporter.web.protocol import Headers, Request, Response
from bts_exporter.web.routes import Routes
from servers.live_page import Page, number, refuse, served
from stubs import Stub, collectors


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """Return a page with a past."""
    with served(
        {"redis:cache": number(2), "redis:gone": refuse("redis://gone")}, past=True
    ) as made:
        yield made


def ask(exporter: Exporter, path: str, fields: str = "", **query: str) -> Response:
    """Return the response to a request."""
    parameters = {name: [value] for name, value in query.items()}
    return Routes(exporter)(Request("GET", path, parameters, Headers(fields.encode())))


def json_of(exporter: Exporter, path: str, **query: str) -> Any:
    """Return what a path answers."""
    response = ask(exporter, path, **query)
    assert response.content_type == "application/json"
    return json.loads(response.body)


def test_live(page: Page) -> None:
    """The report has a version, the host, the collectors and the destinations with their histories."""
    found = json_of(page.exporter, "/api/v1/live")

    assert found["version"] == 1
    assert [it["destination"] for it in found["destinations"]] == ["queue-0000", "queue-0001"]
    assert {it["id"]: it["state"] for it in found["collectors"]} == {
        "host": "ok",
        "redis[cache]": "ok",
        "redis[gone]": "failing",
    }
    assert len(found["host"]["times"]) == len(found["host"]["figures"]["cpu_share"])
    later = json_of(page.exporter, "/api/v1/live", since=str(found["cursor"]))
    assert later["host"]["times"] == []


def test_live_collects_nothing() -> None:
    """A report is made of what scrapes have left: the target is not asked."""
    exporter, stub = Exporter(), Stub()
    with collectors(("one", stub)) as (together, _):
        exporter.collectors = together
        json_of(exporter, "/api/v1/live")

    assert stub.collections == 0
    assert exporter.recorder.viewed_at is not None


def test_history(page: Page) -> None:
    """The history of a destination has all of its numbers at each time."""
    found = json_of(
        page.exporter,
        "/api/v1/history",
        collector="redis[cache]",
        system="redis",
        destination="queue-0001",
        group="workers",
    )

    assert len(found["times"]) == 60
    assert set(found["backlog_messages"]) == {4999}
    assert found["lag_seconds"][-1] == 999
    assert found["published_per_second"] == [None] * 60


def test_metrics(page: Page) -> None:
    """The metrics of a collector come with type, help, labels and values, from a new collection."""
    found = json_of(page.exporter, "/api/v1/metrics", collector="redis[cache]")

    [backlog] = [it for it in found["families"] if it["name"] == "messaging_backlog_messages"]
    assert backlog["type"] == "gauge"
    assert backlog["help"].startswith("Messages waiting")
    assert backlog["series"] == 2
    assert {it["labels"]["destination"]: it["value"] for it in backlog["samples"]} == {
        "queue-0000": 5000,
        "queue-0001": 4999,
    }


def test_values_beyond_json() -> None:
    """Infinity and NaN are spelled as in the text format; of a metric with many series 200 are listed."""

    def emit(scrape: Scrape) -> None:
        scrape.emit(Stub.value, float("inf"))
        for i in range(300):
            scrape.emit(Stub.series, float("nan"), str(i))

    exporter = Exporter()
    with collectors(("one", Stub(emit))) as (together, _):
        exporter.collectors = together
        found = json_of(exporter, "/api/v1/metrics", collector="one")

    families = {it["name"]: it for it in found["families"]}
    assert families["stub_value"]["samples"][0]["value"] == "+Inf"
    assert families["stub_series"]["samples"][0]["value"] == "NaN"
    assert (families["stub_series"]["series"], len(families["stub_series"]["samples"])) == (
        300,
        200,
    )


@pytest.mark.parametrize(
    ("path", "query", "status", "message"),
    [
        ("live", {"since": "x"}, 400, "since='x' is not a valid cursor"),
        ("live", {"since": "nan"}, 400, "since='nan' is not a valid cursor"),
        ("metrics", {}, 400, "expected exactly one collector"),
        ("metrics", {"collector": "kafka"}, 404, "no collector with the id 'kafka'"),
        ("history", {"collector": "kafka"}, 404, "no collector with the id 'kafka'"),
        ("history", {"collector": "redis[cache]", "destination": "x"}, 404, "no such destination"),
        ("history", {"collector": "redis[gone]"}, 404, "no such destination"),
    ],
)
def test_errors(page: Page, path: str, query: dict[str, str], status: int, message: str) -> None:
    """An error is JSON, and names the parameter that is wrong."""
    response = ask(page.exporter, f"/api/v1/{path}", **query)

    assert response.status == status
    assert message in json.loads(response.body)["error"]


def test_compressed(page: Page) -> None:
    """A report is compressed if the client accepts that, and never stored."""
    response = ask(page.exporter, "/api/v1/live", "Accept-Encoding: gzip\n")

    assert ("Content-Encoding", "gzip") in response.headers
    assert ("Cache-Control", "no-store") in response.headers
    assert json.loads(gzip.decompress(response.body))["version"] == 1


@pytest.mark.parametrize("path", ["/api/lag", "/api/v1/live", "/api/v1/metrics", "/api/v1/history"])
def test_disabled(page: Page, path: str) -> None:
    """With --web.disable-api there is no JSON, and the page / has no scripts that would ask for it."""
    routes = Routes(page.exporter, live=False)
    none = Headers(b"")

    response = routes(Request("GET", path, {}, none))
    landing = routes(Request("GET", "/", {}, none))

    assert (response.status, response.body) == (404, b"the API is disabled (--web.disable-api)\n")
    assert landing.status == 200
    assert b"<script" not in landing.body
    assert b"queue-0001" in landing.body


def test_unknown_path(page: Page) -> None:
    """There is nothing else below /api/."""
    assert ask(page.exporter, "/api/v1/").status == 404
    assert ask(page.exporter, "/api/v2/live").status == 404
