"""Limits of real queues, and how long real consumers hold messages, on a broker with policies."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_exporter import Url, testing
from servers import wait_until
from servers.rabbitmq import AmqpConsumer
from servers.rabbitmq import RabbitMQ as Broker

pytestmark = pytest.mark.live

#: Seconds by which an age may be wrong: the statistics of quorum queues are 5 s apart.
TOLERANCE = 15.0

#: Name, arguments, and the limits that the broker then has with the policies.
QUEUES: dict[str, dict[str, object]] = {
    "room-arguments": {"max_length": 50, "message_ttl": 60_000},
    "room-policy": {"max_length": 50, "message_ttl": 600_000},
    "room-quorum": {"queue_type": "quorum", "max_length": 50, "overflow": "drop-head"},
    "room-stream": {"queue_type": "stream", "max_age": "7D"},
    "room-free": {},
}
POLICIES: dict[str, dict[str, object]] = {
    "policies/%2F/room": {
        "pattern": "^room-(policy|quorum)$",
        "definition": {"max-length": 40, "message-ttl": 90_000, "overflow": "reject-publish"},
        "apply-to": "queues",
    },
    "operator-policies/%2F/room": {
        "pattern": "^room-quorum$",
        "definition": {"max-length": 30},
        "apply-to": "queues",
    },
    "policies/%2F/room-stream": {
        "pattern": "^room-stream$",
        "definition": {"max-age": "3h"},
        "apply-to": "queues",
    },
}


@pytest.fixture(scope="module")
def made(rabbitmq: Broker) -> Iterator[RabbitMQ]:
    """Return a collector of a broker with QUEUES and POLICIES."""
    for name, arguments in QUEUES.items():
        rabbitmq.queue(name, **arguments)
    for path, policy in POLICIES.items():
        rabbitmq.api(path, "PUT", policy)
    url = Url.from_setting(rabbitmq.url.replace("//", "//guest:guest@"))
    collector = COLLECTOR(COLLECTOR.Config(url=url))
    try:
        yield collector
    finally:
        collector.stop()
        for path in POLICIES:
            rabbitmq.api(path, "DELETE")
        for name in QUEUES:
            rabbitmq.api(f"queues/%2F/{name}", "DELETE")


@pytest.fixture(scope="module")
def delivered(rabbitmq: Broker, made: RabbitMQ) -> Iterator[float]:
    """Return when consumers got messages that they hold; one of them acknowledges automatically."""
    wait_until(
        lambda: {*QUEUES} - {"room-stream"} <= {*by_queue(made, "messaging_consumers")},
        "all queues are listed",
    )
    for name in ("room-free", "room-quorum", "room-arguments"):
        rabbitmq.publish(name, 3)
    with (
        AmqpConsumer(rabbitmq.amqp, "room-free", auto_ack=False, prefetch=2),
        AmqpConsumer(rabbitmq.amqp, "room-quorum", auto_ack=False, prefetch=2),
        AmqpConsumer(rabbitmq.amqp, "room-arguments", auto_ack=True),
    ):
        yield time.monotonic()


def by_queue(made: RabbitMQ, metric: str) -> dict[str, float]:
    """Return the samples of a metric by destination; the broker may have queues of other tests."""
    found = testing.collect(made).get(metric, {}).items()
    return {labels[1]: value for labels, value in found if labels[1].startswith("room-")}


@pytest.mark.usefixtures("delivered")
def test_limits_are_those_that_the_broker_applies(rabbitmq: Broker, made: RabbitMQ) -> None:
    """The lower of argument, policy and operator policy is the limit, until the policies are removed."""
    limits = {"room-arguments": 50.0, "room-policy": 40.0, "room-quorum": 30.0}
    retentions = {
        "room-arguments": 60.0,
        "room-policy": 90.0,
        "room-quorum": 90.0,
        "room-stream": 10_800.0,
    }
    wait_until(
        lambda: (
            by_queue(made, "messaging_limit_messages") == limits
            and by_queue(made, "messaging_retention_seconds") == retentions
        ),
        "the limits are those of the policies",
        120,
    )
    effects = {
        labels[1:] for labels in testing.collect(made)["messaging_overflow_info"] if labels[1]
    }
    assert ("room-quorum", "", "limit", "reject_new", "setting") in effects
    assert ("room-arguments", "", "limit", "drop_oldest", "setting") in effects

    for path, policy in POLICIES.items():
        rabbitmq.api(path, "PUT", policy | {"pattern": "^none$"})

    wait_until(
        lambda: by_queue(made, "messaging_limit_messages") == dict.fromkeys(limits, 50.0),
        "only the limits of the arguments are left",
        120,
    )


def test_held_messages_are_as_old_as_their_delivery(made: RabbitMQ, delivered: float) -> None:
    """Of consumers that hold messages, the age is that of the delivery, within the broker's delay."""
    held: dict[str, float] = {}

    def are_held() -> bool:
        held.update(by_queue(made, "messaging_in_flight_oldest_seconds"))
        return bool(held.get("room-free") and held.get("room-quorum"))

    wait_until(are_held, "both held messages have an age", 120)
    true = time.monotonic() - delivered
    samples = testing.collect(made)

    assert abs(held["room-free"] - true) <= TOLERANCE
    assert abs(held["room-quorum"] - true) <= TOLERANCE
    oldest = {labels[1] for labels in samples["messaging_in_flight_oldest_seconds"]}
    assert "room-arguments" not in oldest, "its consumer acknowledges automatically"
    assert samples["messaging_ack_timeout_seconds"] == {
        ("rabbitmq", "room-free", ""): 1800,
        ("rabbitmq", "room-quorum", ""): 1800,
    }
    assert {labels[-1] for labels in samples["messaging_in_flight_method_info"]} == {
        "interpolation"
    }
