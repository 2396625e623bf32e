from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic

import pytest

from bts_collectors.rabbitmq import collector as collector_module
from bts_collectors.rabbitmq.api.client import EXPORTER, MANAGEMENT
from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_exporter import TargetError, Url, testing
from bts_exporter.plugin import Scrape
from servers import free_port
from servers.management import FakeManagement, Reply, answer, hang, send

PAGE = b"""\
# TYPE rabbitmq_build_info untyped
rabbitmq_build_info{rabbitmq_version="4.1.0"} 1
# TYPE rabbitmq_identity_info untyped
rabbitmq_identity_info{rabbitmq_node="rabbit@one",rabbitmq_endpoint="aggregated"} 1
"""

ABSENT = [
    pytest.param(answer({"error": "Object Not Found"}, 404), id="404"),
    pytest.param(send(b"<html>"), id="HTML"),
]


@contextmanager
def collector(url: str) -> Iterator[RabbitMQ]:
    """Return a collector that is stopped in the end."""
    made = COLLECTOR(COLLECTOR.Config(url=Url.from_setting(url)))
    try:
        yield made
    finally:
        made.stop()


def endpoint(made: RabbitMQ) -> str:
    """Return the source that one collection's samples come from."""
    [key] = testing.collect(made)["rabbitmq_identity_info"]
    return key[-1]


@pytest.mark.parametrize("reply", ABSENT)
def test_without_management_api_the_same_address_may_be_the_brokers_own_exporter(
    management: FakeManagement, reply: Reply
) -> None:
    """Whoever gives its port need not say what it is."""
    management.routes = {
        "/api/overview": reply,
        "/metrics": send(PAGE),
        "/metrics/detailed": send(PAGE),
    }
    with collector(management.url) as made:
        assert endpoint(made) == "aggregated"


def test_beside_a_management_port_that_nothing_listens_on_the_other_port_is_tried(
    management: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker with the one plug-in and without the other."""
    management.routes = {"/metrics": send(PAGE), "/metrics/detailed": send(PAGE)}
    port = free_port()
    monkeypatch.setattr(collector_module, "MANAGEMENT", MANAGEMENT._replace(port=port))
    server = EXPORTER._replace(port=management.port)
    monkeypatch.setattr(collector_module, "EXPORTER", server)
    with collector(f"http://127.0.0.1:{port}") as made:
        assert endpoint(made) == "aggregated"


def test_the_management_api_is_taken_as_soon_as_it_is_there(management: FakeManagement) -> None:
    """A broker that starts may open its other port first."""
    overview = management.routes.pop("/api/overview")
    management.routes |= {"/metrics": send(PAGE), "/metrics/detailed": send(PAGE)}
    with collector(management.url) as made:
        assert endpoint(made) == "aggregated"
        management.routes["/api/overview"] = overview

        assert endpoint(made) == "management"


def test_a_management_api_that_was_there_is_missed_when_it_goes(
    management: FakeManagement,
) -> None:
    """The series of a cluster do not silently become those of one node."""
    management.routes |= {"/metrics": send(PAGE), "/metrics/detailed": send(PAGE)}
    with collector(management.url) as made:
        assert endpoint(made) == "management"
        management.routes["/api/overview"] = answer({}, 404)
        scrape = Scrape(monotonic() + 20)
        with pytest.raises(TargetError, match="/api/overview: HTTP 404"):
            made.collect(scrape)

    assert testing.samples(made, scrape)["rabbitmq_up"] == {(): 0}
    assert "/metrics" not in management.requests


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer({"error": "not_authorized", "reason": "Login failed"}, 401), "auth"),
        (answer({}, 403), "noperm"),
        (hang, "timeout"),
    ],
)
def test_a_management_api_that_lets_nobody_in_is_no_reason_to_look_elsewhere(
    management: FakeManagement, reply: Reply, reason: str
) -> None:
    """It is there: its failure is what the user has to know."""
    management.routes |= {"/api/overview": reply, "/metrics": send(PAGE)}
    with collector(management.url) as made, pytest.raises(TargetError) as caught:
        testing.collect(made, 1.0 if reply is hang else 20.0)

    assert caught.value.reason == reason
    assert management.requests == ["/api/overview"]


def test_where_neither_is_there_the_management_api_is_the_one_that_is_missing() -> None:
    """Its plug-in is the one to enable."""
    with collector(f"http://127.0.0.1:{free_port()}") as made, pytest.raises(TargetError) as caught:
        testing.collect(made)

    assert caught.value.reason == "refused"
    assert "rabbitmq_management" in str(caught.value)


def test_a_source_that_is_named_is_not_looked_for(management: FakeManagement) -> None:
    """Whoever overrides gets what he asked for, or an error."""
    management.routes = {"/metrics": send(PAGE)}
    made = COLLECTOR(COLLECTOR.Config(url=Url.from_setting(management.url), source="management"))
    with pytest.raises(TargetError, match="/api/overview: HTTP 404"):
        testing.collect(made)
    made.stop()

    assert "/metrics" not in management.requests


def test_paths_and_credentials_go_along() -> None:
    """Only the port is another."""
    url = Url.from_setting("https://monitor:x@broker:15672/prefix")

    assert collector_module._beside(url) == replace(url, port=15692)
