"""What is asked of a real broker, and whether it understands the question."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_exporter import Url, testing
from servers import wait_until
from servers.rabbitmq import AmqpConsumer
from servers.rabbitmq import RabbitMQ as Broker

pytestmark = pytest.mark.live


@contextmanager
def collector(broker: Broker, **settings: Any) -> Iterator[RabbitMQ]:
    """Return a collector of the broker that is stopped in the end."""
    url = Url.from_setting(broker.url)
    made = COLLECTOR(COLLECTOR.Config(url=url, source="management", **settings))
    try:
        yield made
    finally:
        made.stop()


def when(made: RabbitMQ, metric: str, labels: tuple[str, ...], value: float) -> testing.Samples:
    """Return the samples of the first collection in which one is `value`: statistics take time."""
    found: testing.Samples = {}

    def is_there() -> bool:
        found.clear()
        found.update(testing.collect(made, 20))
        return found.get(metric, {}).get(labels) == value

    wait_until(is_there, f"{metric} {labels} = {value}")
    return found


@pytest.mark.parametrize("vhost", ["eu/west", "ü b?c#%2F"])
def test_one_virtual_host_is_asked_for_whatever_its_name(rabbitmq: Broker, vhost: str) -> None:
    """A filter on virtual hosts works with any name."""
    rabbitmq.vhost(vhost)
    rabbitmq.queue("wanted", vhost)
    rabbitmq.queue("unwanted", vhost)
    rabbitmq.queue("elsewhere")
    rabbitmq.publish("wanted", 2, vhost)
    wanted = re.compile(f"^{re.escape(vhost)}$")
    with collector(rabbitmq, vhosts_include=wanted, queues_exclude=re.compile("^un")) as made:
        samples = when(made, "rabbitmq_queue_messages_ready", (vhost, "wanted"), 2)

    assert list(samples["rabbitmq_queue_info"]) == [
        (vhost, "wanted", "rabbit_classic_queue", "true", "", rabbitmq.node)
    ]
    assert "rabbitmq_permission_gap" not in samples


def test_of_many_queues_depths_are_known_and_of_the_deepest_the_flow(rabbitmq: Broker) -> None:
    """Above `max_detailed_queues`, depths and consumers are current and the deepest queues have counts."""
    rabbitmq.queue("deep one/ü")
    rabbitmq.queue("left alone")
    rabbitmq.publish("left alone", 4)
    mine = re.compile("^(deep one|left alone)")
    with (
        rabbitmq.channel() as channel,
        collector(rabbitmq, queues_include=mine, max_detailed_queues=0) as made,
        AmqpConsumer(rabbitmq.amqp, "deep one/ü", auto_ack=False, prefetch=2),
    ):
        deep, alone = ("/", "deep one/ü"), ("/", "left alone")
        for _ in range(9):
            channel.basic_publish("", "deep one/ü", b"x")
        samples = when(made, "rabbitmq_queue_messages_published_total", deep, 9)

        assert samples["rabbitmq_queue_messages_ready"] == {deep: 7, alone: 4}
        assert samples["rabbitmq_queue_messages_unacked"] == {deep: 2, alone: 0}
        assert samples["rabbitmq_queue_consumers"] == {deep: 1, alone: 0}
        assert samples["rabbitmq_queue_consumers_auto_ack"] == {deep: 0, alone: 0}
        assert alone not in samples["rabbitmq_queue_messages_published_total"]
