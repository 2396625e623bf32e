"""`/api/lag`: the lag of all destinations as JSON."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from typing import Any
from urllib.parse import parse_qs

import pytest

from bts_exporter import Scrape, TargetError, backlog
from bts_exporter.page_service import Exporter
from bts_exporter.web.routes import Routes
from bts_exporter.web.server import Request, Response
from servers import wait_until
from stubs import LocalStub, Stub, collectors

HOSTILE = '"><script>\u202eevil\x1b[2J\n'


def emit(scrape: Scrape) -> None:
    """Emit a queue that is late, and one with a hostile name."""
    scrape.emit(backlog.LAG_SECONDS, 7, "redis", "orders", "billing")
    scrape.emit(backlog.BACKLOG, 1, "redis", HOSTILE, "")


def refuse(_: Scrape) -> None:
    """Fail as a broker that is down."""
    raise TargetError("refused", "Redis at redis://cache: connection refused")  # noqa: EM101  # a reason


@contextmanager
def exporting(**stubs: Stub) -> Iterator[Exporter]:
    """Run an exporter of brokers with these names."""
    members = [("broker", stub, {"name": name}) for name, stub in stubs.items()]
    with collectors(*members) as (together, _):
        exporter = Exporter()
        exporter.collectors = together
        yield exporter


def get(exporter: Exporter, query: str = "", **headers: str) -> Response:
    """Return the answer to a request."""
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    fields = parse_qs(query, keep_blank_values=True)
    return Routes(exporter)(Request("GET", "/api/lag", fields, message))


def content(response: Response) -> Any:
    """Return the JSON of a response."""
    assert response.content_type == "application/json"
    return json.loads(response.body)


def test_everything() -> None:
    """Without parameters the answer has all destinations and collectors, with hostile names as text."""
    with exporting(a=Stub(emit), b=Stub(refuse)) as exporter:
        response = get(exporter)

    found = content(response)
    assert (response.status, found["version"]) == (200, 1)
    assert [row["destination"] for row in found["destinations"]] == ["orders", HOSTILE]
    assert [row["lag_seconds"] for row in found["destinations"]] == [7, None]
    assert [it["reason"] for it in found["collectors"]] == [None, "refused"]


def test_one_destination_at_a_fixed_path() -> None:
    """With parameters the wanted destination is the first, where a scaler reads its value."""
    with exporting(a=Stub(emit)) as exporter:
        response = get(exporter, "system=redis&destination=orders&group=billing&target=a")

    assert response.status == 200
    assert content(response)["destinations"][0]["lag_seconds"] == 7


@pytest.mark.parametrize(
    "query",
    ["destination=other", "target=b", "target=c", "destination=orders&group=other", "group=x"],
)
def test_unknown_destination(query: str) -> None:
    """A destination that is not there is an error with the reasons, and never a value."""
    with exporting(a=Stub(emit), b=Stub(refuse)) as exporter:
        response = get(exporter, query)

    found = content(response)
    assert response.status == 404
    assert "destinations" not in found
    assert found["error"].startswith("no destination with ")
    assert {it["target"] for it in found["collectors"] if not it["success"]} <= {"b"}


def test_empty_group_is_a_group() -> None:
    """An empty parameter selects destinations without a group."""
    with exporting(a=Stub(emit)) as exporter:
        response = get(exporter, "group=")

    assert [row["destination"] for row in content(response)["destinations"]] == [HOSTILE]


@pytest.mark.parametrize("query", ["queue=orders", "group=a&group=b"])
def test_wrong_parameters(query: str) -> None:
    """A misspelled or repeated parameter is an error: it must not select other destinations."""
    with exporting(a=Stub(emit)) as exporter:
        response = get(exporter, query)

        assert (response.status, exporter.scrapes) == (400, 0)
        assert "parameter" in content(response)["error"]


def test_other_targets_are_not_asked() -> None:
    """The parameter target limits the collection to that target: another one that hangs is not waited for."""
    asked, other = Stub(emit), Stub(emit)
    with exporting(a=asked, b=other) as exporter:
        assert get(exporter, "target=a").status == 200

    assert (asked.collections, other.collections) == (1, 0)


def test_collectors_of_the_host_are_not_asked() -> None:
    """Kernel files have no destinations, so they are not read."""
    host = LocalStub()
    with collectors(("host", host), ("broker", Stub(emit))) as (together, _):
        exporter = Exporter()
        exporter.collectors = together
        assert get(exporter).status == 200

    assert host.collections == 0


def test_requests_at_the_same_time_share_a_collection() -> None:
    """Requests that overlap ask the brokers once."""
    begun, go_on = threading.Event(), threading.Event()

    def behave(scrape: Scrape) -> None:
        begun.set()
        go_on.wait(30)
        emit(scrape)

    stub = Stub(behave)
    with exporting(a=stub) as exporter:
        answers: list[Response] = []
        threads = [threading.Thread(target=lambda: answers.append(get(exporter))) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: begun.is_set() and exporter.scrapes == len(threads), "all have joined")
        go_on.set()
        for thread in threads:
            thread.join()

    assert [response.status for response in answers] == [200, 200, 200]
    assert stub.collections == 1


def test_too_many_requests() -> None:
    """Requests count for the limit of concurrent scrapes."""
    release = threading.Event()
    with exporting(a=Stub(lambda _: release.wait(30) and None)) as exporter:
        exporter._max_scrapes = 1
        first = threading.Thread(target=get, args=(exporter,))
        first.start()
        wait_until(lambda: exporter.scrapes, "the first has begun")
        response = get(exporter, "target=a", X_Prometheus_Scrape_Timeout_Seconds="1")
        release.set()
        first.join()

    assert response.status == 503
    assert ("Retry-After", "1") in response.headers


def test_compressed() -> None:
    """A client that accepts gzip gets it."""
    with exporting(a=Stub(emit)) as exporter:
        response = get(exporter, Accept_Encoding="gzip")

    assert json.loads(gzip.decompress(response.body))["version"] == 1


def test_relay_gets_no_report() -> None:
    """A relay that asks its own exporter would wait for itself."""
    with exporting(a=Stub(emit)) as exporter:
        assert get(exporter, X_Bts_Exporter_Relay="1").status == 508
