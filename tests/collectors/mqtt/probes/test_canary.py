import json
import re
import time
from threading import Event

import pytest

from bts_collectors.mqtt.client.router import Outgoing
from bts_collectors.mqtt.client.topics import Subscription
from bts_collectors.mqtt.probes.canary import (
    LOST,
    RECEIVED,
    ROUND_TRIP,
    SENT,
    Canary,
    CanaryConfig,
)
from bts_exporter import Duration, Metric, Scrape


class Broker:
    """Receives published messages, and returns them when a test requires it; has the clock, too."""

    def __init__(self, **settings: object) -> None:
        self.now = 1000.0
        self.replied = Event()
        self.published: list[Outgoing] = []
        config = CanaryConfig(**{"qos": (1,)} | settings)  # type: ignore[arg-type]
        self.canary = Canary(config, "host", self.replied, lambda: self.now)
        self.canary.begin()

    def tick(self, seconds: float = 0) -> None:
        """Advance the clock and run the canary's periodic work."""
        self.now += seconds
        self.canary.tick(self.published.append)

    def give_back(self, number: int = -1) -> None:
        """Deliver a message that was published."""
        topic, payload = self.published[number][:2]
        handler = self.canary.route(topic)
        assert handler
        handler(payload, False)

    def shown(self, metric: Metric, *labels: str) -> float | None:
        """Return a sample of a collection."""
        scrape = Scrape(time.monotonic() + 30)
        self.canary.emit(scrape)
        return scrape.samples[metric].get(labels)


def test_topics_have_their_own_qos() -> None:
    """A message is delivered with the lower QoS of publication and subscription."""
    broker = Broker(topic="a/b", qos=(2, 0))

    assert broker.canary.subscriptions == (
        Subscription("a/b/host/0", 0, apart=True),
        Subscription("a/b/host/2", 2, apart=True),
    )


@pytest.mark.parametrize("host", ["a/b", "a+", "#", "a\0b"])
def test_name_of_the_host_is_one_level(host: str) -> None:
    """Characters with a meaning in topics are replaced."""
    (subscription,) = Canary(CanaryConfig(), host, Event()).subscriptions

    assert re.fullmatch(r"bts-exporter/canary/[a-z_]+/0", subscription.filter)


def test_message_is_published_at_each_interval() -> None:
    """At once on a new connection, then once per interval."""
    broker = Broker(interval=Duration(5))
    broker.tick()
    broker.tick(4.9)
    broker.tick(0.1)
    numbers = [json.loads(payload)["seq"] for _, payload, *_ in broker.published]

    assert numbers == [0, 1]
    assert {(one.topic, one.qos) for one in broker.published} == {("bts-exporter/canary/host/1", 1)}
    assert broker.shown(SENT, "1") == 2


def test_time_of_the_round_trip_is_measured() -> None:
    """In seconds, from publication to return, by QoS."""
    broker = Broker(qos=(0, 1))
    broker.tick()
    broker.now += 0.3
    broker.give_back()

    assert broker.shown(ROUND_TRIP, "_sum", "1") == pytest.approx(0.3)
    assert broker.shown(ROUND_TRIP, "_bucket", "1", "0.25") == 0
    assert broker.shown(ROUND_TRIP, "_bucket", "1", "0.5") == 1
    assert broker.shown(RECEIVED, "1") == 1
    assert broker.shown(RECEIVED, "0") == 0


def test_returned_message_shows_that_the_broker_is_up() -> None:
    """For brokers without an uptime."""
    broker = Broker()
    broker.tick()
    before = broker.replied.is_set(), broker.canary.age_seconds()
    broker.give_back()
    broker.now += 3

    assert before == (False, float("inf"))
    assert (broker.replied.is_set(), broker.canary.age_seconds()) == (True, 3)


def test_message_that_does_not_come_back_is_lost() -> None:
    """After the timeout; it is not counted again if it comes back later."""
    broker = Broker(timeout=Duration(10))
    broker.tick()
    for _ in range(10):
        broker.tick(1)
    in_time = broker.shown(LOST, "1")
    broker.tick(0.1)
    late = broker.shown(LOST, "1")
    broker.give_back(0)

    assert (in_time, late) == (0, 1)
    assert broker.shown(RECEIVED, "1") == 0
    assert broker.shown(LOST, "1") == 1


def test_pause_of_the_process_is_not_a_loss() -> None:
    """Messages that came back meanwhile are received, but their time is not measured."""
    broker = Broker(timeout=Duration(10))
    broker.tick()
    broker.tick(60)
    broker.give_back(0)

    assert broker.shown(LOST, "1") == 0
    assert broker.shown(RECEIVED, "1") == 1
    assert broker.shown(ROUND_TRIP, "_count", "1") == 0


def test_message_that_does_not_come_back_after_a_pause_is_lost() -> None:
    """After a pause a message gets another timeout; repeated pauses do not keep it forever."""
    broker = Broker(timeout=Duration(10), interval=Duration(1))
    for _ in range(100):
        broker.tick(20)
    broker.tick(1)

    assert len(broker.canary._by_qos[1].in_flight) <= 3
    assert broker.shown(LOST, "1") >= 98


def test_messages_in_flight_are_lost_with_the_connection() -> None:
    """A new session does not receive earlier messages."""
    broker = Broker()
    broker.tick()
    broker.canary.begin()
    broker.tick()

    assert broker.shown(LOST, "1") == 1
    assert broker.shown(SENT, "1") == 2


def test_frozen_broker_makes_nothing_grow() -> None:
    """Messages in flight are bounded by the timeout."""
    broker = Broker(interval=Duration(1), timeout=Duration(10))
    for _ in range(1000):
        broker.tick(1)

    assert len(broker.canary._by_qos[1].in_flight) <= 11
    assert broker.shown(SENT, "1") == 1000


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"seq":0,"ts_ns":1}', b"\xff"])
def test_messages_of_others_do_not_count(payload: bytes) -> None:
    """Messages that other clients publish to the canary's topic are ignored."""
    broker = Broker()
    broker.tick()
    handler = broker.canary.route(broker.published[0][0])
    assert handler
    handler(payload, False)

    assert broker.shown(RECEIVED, "1") == 0


def test_message_that_comes_twice_counts_once() -> None:
    """QoS 1 permits duplicates."""
    broker = Broker()
    broker.tick()
    broker.give_back()
    broker.give_back()

    assert broker.shown(RECEIVED, "1") == 1


def test_other_topics_are_not_wanted() -> None:
    """The canary has no handler for them."""
    assert Broker().canary.route("bts-exporter/canary/other/1") is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"topic": ""}, "topic: '' is not a valid topic"),
        ({"topic": "a/#"}, "topic: 'a/#' is not a valid topic (expected one without wildcards)"),
        ({"qos": ()}, "qos: expected a list of 0, 1 and 2 without duplicates, got []"),
        ({"qos": (1, 3)}, "qos: expected a list of 0, 1 and 2"),
        ({"qos": (1, 1)}, "qos: expected a list of 0, 1 and 2 without duplicates, got [1, 1]"),
        ({"interval": Duration(0.5)}, "interval: must be at least 1 s, got 0.5 s"),
        ({"timeout": Duration(0)}, "timeout: must be more than 0 s and at most 1 h"),
        ({"timeout": Duration(3601)}, "timeout: must be more than 0 s and at most 1 h"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], expected: str) -> None:
    """The message has the key and the cause, and no secrets."""
    with pytest.raises(ValueError, match=re.escape(expected)):
        CanaryConfig(**settings)  # type: ignore[arg-type]
