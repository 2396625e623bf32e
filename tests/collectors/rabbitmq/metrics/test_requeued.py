"""Requeued messages of quorum queues, which wait behind younger ones."""

from __future__ import annotations

import pytest

from bts_collectors.rabbitmq.api.models import MessageStats, Queue
from bts_collectors.rabbitmq.metrics.lag import Lags
from bts_exporter import backlog


class Broker:
    """A queue that is scraped every five seconds."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.now = 1000.0
        self.counts = {"publish": 0, "deliver": 0, "ack": 0, "redeliver": 0}
        self.unacked = 0
        self._lags = Lags(lambda: self.now)

    def scrape(self, **more: int) -> backlog.Age | None:
        """Return the lag after further messages were published, delivered, acknowledged or held."""
        self.now += 5
        self.unacked = more.pop("unacked", self.unacked)
        for name, count in more.items():
            self.counts[name] += count
        counts = self.counts
        gone = counts["deliver"] - counts["redeliver"] if self.requeued is None else self.requeued
        ready = counts["publish"] - gone
        queue = Queue(
            name="q",
            vhost="/",
            type=self.kind,
            state="running",
            consumers=1,
            messages_ready=ready,
            messages_unacknowledged=self.unacked,
            message_stats=MessageStats(deliver_get=counts["deliver"], **counts),
        )
        return self._lags.observe([queue], self.now)["/", "q"].age

    #: Messages that left, if not those that were delivered.
    requeued: int | None = None


@pytest.mark.parametrize(
    ("kind", "method"), [("quorum", "lower_bound"), ("classic", "interpolation")]
)
def test_age_at_the_head_is_a_bound_while_requeued_messages_wait_at_the_end(
    kind: str, method: str
) -> None:
    """Messages that a consumer returned without acknowledging are missing until they are delivered again."""
    broker = Broker(kind)
    broker.scrape()
    for _ in range(5):
        broker.scrape(publish=20, deliver=5, ack=5)
    normal = broker.scrape(publish=20)
    broker.scrape(publish=20, deliver=10, unacked=10)
    broker.requeued = broker.counts["deliver"] - 10
    broker.scrape(publish=20, unacked=0)

    ages = [broker.scrape(publish=20) for _ in range(6)]

    assert normal is not None
    assert normal.method == "interpolation"
    assert ages[-1] is not None
    assert ages[-1].method == method


def test_age_is_exact_again_when_they_are_acknowledged() -> None:
    """After the redelivery nothing is missing."""
    broker = Broker("quorum")
    broker.scrape()
    for _ in range(5):
        broker.scrape(publish=20, deliver=5, ack=5)
    broker.scrape(publish=20, deliver=10, unacked=10)
    broker.requeued = broker.counts["deliver"] - 10
    for _ in range(6):
        broker.scrape(publish=20, unacked=0)
    broker.requeued = None

    ages = [broker.scrape(publish=20, deliver=10, redeliver=10, ack=10)]
    ages += [broker.scrape(publish=20, deliver=5, ack=5) for _ in range(6)]

    assert ages[-1] is not None
    assert ages[-1].method == "interpolation"


def test_messages_with_a_consumer_are_not_missing() -> None:
    """A consumer that holds messages for a long time does not make the age a bound."""
    broker = Broker("quorum")
    broker.scrape()

    ages = [broker.scrape(publish=20, deliver=5, unacked=5 * n) for n in range(1, 9)]

    assert ages[-1] is not None
    assert ages[-1].method == "interpolation"
