"""Many queues, slow brokers and limits."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from time import monotonic
from typing import Any

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_exporter import Scrape, TargetError, Url, testing
from servers import wait_until
from servers.management import FakeManagement, Handler, answer, drip, hang, in_turn, send
from stubs import collect, runner_of

#: What the engine keeps back for a collector that used all of its time.
ENGINE_RESERVE_SECONDS = 0.25
MANY = [
    {"name": f"q{number:02}", "vhost": "/", "type": "classic", "messages_ready": number}
    for number in range(50)
]


@contextmanager
def collector(management: FakeManagement, **settings: Any) -> Iterator[RabbitMQ]:
    """Return a collector of the fake that is stopped in the end."""
    url = Url.from_setting(management.url)
    made = COLLECTOR(COLLECTOR.Config(url=url, source="management", **settings))
    try:
        yield made
    finally:
        made.stop()


def failing(made: RabbitMQ, seconds: float) -> tuple[TargetError, testing.Samples]:
    """Return what a collection that fails raises, and what it emitted before."""
    scrape = Scrape(monotonic() + seconds)
    with pytest.raises(TargetError) as caught:
        made.collect(scrape)
    assert monotonic() < scrape.deadline + ENGINE_RESERVE_SECONDS
    return caught.value, testing.samples(made, scrape)


def test_of_too_many_series_backlogs_come_first_and_then_details_of_the_deepest_queues(
    management: FakeManagement,
) -> None:
    """Dropped series are those of details and short queues, and are counted."""
    management.routes["/api/queues"] = answer(MANY)
    with collector(management) as other, collector(management) as made:
        whole = sum(map(len, testing.collect(other).values()))
        scrape = Scrape(monotonic() + 20, max_series=whole - 60)
        made.collect(scrape)

    samples = testing.samples(made, scrape)
    found = samples["rabbitmq_queue_messages_ready"].values()
    assert scrape.dropped == 60
    assert len(samples["messaging_backlog_messages"]) == 50
    assert 10 < len(found) < 50
    assert sorted(found, reverse=True) == list(range(49, 49 - len(found), -1))


def test_filters_apply_before_the_limit(management: FakeManagement) -> None:
    """Queues that are not selected do not count against the limit."""
    management.routes["/api/queues"] = answer(MANY)
    with collector(management, queues_include=re.compile("^q0[12]$")) as made:
        scrape = Scrape(monotonic() + 20, max_series=60)
        made.collect(scrape)

    assert scrape.dropped == 0
    backlog = testing.samples(made, scrape)["rabbitmq_queue_messages_ready"]
    assert backlog == {("/", "q01"): 1, ("/", "q02"): 2}


def test_a_slow_broker_is_asked_once_however_many_scrape(management: FakeManagement) -> None:
    """With `interval`, scrapes get the latest collection with its age."""
    body = b'[{"name": "q", "vhost": "/", "messages_ready": 3}]'
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    management.routes["/api/queues"] = drip(head + body[:1], b"", 3, body[1:])
    with collector(management) as made, runner_of(made, interval=60.0) as runner:
        shots = [collect(runner) for _ in range(20)]

    assert management.requests.count("/api/overview") == 1
    assert all(shot.outcome.success for shot in shots)
    assert all(shot.age is not None for shot in shots)


def test_scrapes_of_a_broker_that_hangs_do_not_pile_up(management: FakeManagement) -> None:
    """Concurrent scrapes share one running request."""
    management.routes["/api/overview"] = hang
    with collector(management) as made, runner_of(made) as runner:
        runs = [runner.begin(monotonic() + 60) for _ in range(5)]
        wait_until(lambda: management.requests, "it was asked")

        assert len({id(run) for run in runs}) == 1
        assert management.requests == ["/api/overview"]
        made.stop()  # or it hangs for a minute
        runs[0].wait(monotonic() + 60)
    assert management.requests == ["/api/overview"]


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/api/consumers", "rabbitmq_queue_messages_ready"),
        ("/api/queues/%2F/orders", "rabbitmq_queue_messages_ready"),
        ("/api/stream/consumers", "rabbitmq_queue_messages_ready"),
        ("/api/queues", "rabbitmq_node_running"),
    ],
)
@pytest.mark.parametrize(
    "reply",
    [
        hang,
        drip(b"HTTP/1.1 200 OK\r\n\r\n[", b" ", 1000, b"]"),
        answer({"error": "not_authorised", "reason": "Not monitor user"}, 401),
        answer({"error": "Forbidden"}, 403),
        answer({"error": "Internal Server Error", "reason": "x" * 10_000}, 500),
        answer([], 503),
        send(b"<html><body>Sign in</body></html>"),
        send(b'[{"name": "orders", "vho'),
        send(b""),
        send(b"null"),
        send(b"[null]"),
        send(b'[{"name": 5, "vhost": []}]'),
        send(b'\xff\xfe["'),
    ],
    ids=[
        "hangs",
        "drips",
        "401",
        "403",
        "500",
        "503",
        "html",
        "truncated",
        "empty",
        "null",
        "list-of-null",
        "other-types",
        "no-utf-8",
    ],
)
def test_a_request_about_queues_without_answer_loses_only_its_own_metrics(
    management: FakeManagement, path: str, kept: str, reply: Any
) -> None:
    """If the list of queues hangs, everything else is served in time."""
    orders = {"name": "orders", "vhost": "/", "type": "classic", "messages_ready": 7}
    log = {"name": "log", "vhost": "/", "type": "stream"}
    consumer = {"queue": {"name": "orders", "vhost": "/"}, "ack_required": True}
    management.routes["/api/queues"] = answer([orders, log])
    management.routes["/api/overview"] = answer({"object_totals": {"queues": 2}})
    management.routes["/api/consumers"] = answer([consumer])
    management.routes["/api/queues/%2F/orders"] = answer(orders)
    management.routes["/api/stream/consumers"] = answer([])
    management.routes[path] = reply
    with collector(management, max_detailed_queues=1) as made:
        error, samples = failing(made, 2.0)

    assert error.reason in {"timeout", "noperm", "protocol"}
    assert len(str(error)) < 500
    assert path in str(error)
    assert samples["rabbitmq_up"] == {(): 1}
    assert kept in samples


def test_a_broker_that_is_started_again_between_two_requests_is_asked_again_next_time(
    management: FakeManagement,
) -> None:
    """After a restart during a collection, the next collection works and lags are plausible."""

    def vanish(handler: Handler) -> None:
        handler.connection.close()
        handler.close_connection = True

    lists = [answer([{"name": "q", "vhost": "/", "messages_ready": 3}]), vanish]
    management.routes["/api/queues"] = in_turn(lists[0], vanish, vanish, lists[0])
    with collector(management) as made:
        testing.collect(made)
        error, _ = failing(made, 20)
        samples = testing.collect(made)

    assert error.reason == "unreachable"
    assert samples["messaging_backlog_messages"] == {("rabbitmq", "q", ""): 3}


@pytest.mark.parametrize("source", ["management", "prometheus", "amqp"])
def test_a_target_that_hangs_is_reported_by_its_collector_at_every_scrape(
    management: FakeManagement, source: str
) -> None:
    """A collector that uses all of its time reports the hanging target itself, and ends in time for the next scrape."""
    management.routes |= dict.fromkeys(("/api/overview", "/metrics"), hang)
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1] if source == "amqp" else management.port
    names = ("orders",) if source == "amqp" else ()
    url = Url("amqp" if source == "amqp" else "http", "127.0.0.1", port)
    made = COLLECTOR(COLLECTOR.Config(url=url, source=source, declare=names))
    with closing(silent), runner_of(made, timeout=1.0) as runner:
        shots = [collect(runner) for _ in range(2)]

    for shot in shots:
        assert shot.outcome.reason == "timeout"
        assert f"127.0.0.1:{port}" in shot.outcome.message
