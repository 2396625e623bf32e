"""The lag of a queue whose message TTL is changed by a policy while messages wait."""

from __future__ import annotations

from typing import Any

import pytest

from bts_collectors.rabbitmq.api.models import MessageStats, Policy, Queue
from bts_collectors.rabbitmq.metrics.lag import Lags, LagState
from bts_exporter import Restored
from bts_exporter.backlog import Age

KEY = ("/", "q")
NOW = 1_700_000_000.0


class Clock:
    """Time that passes when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def look(lags: Lags, clock: Clock, after: float, published: int, **fields: Any) -> Age | None:
    """Let seconds pass and return the age of the oldest message."""
    clock.now += after
    known: dict[str, Any] = {"type": "classic", "state": "running", "messages_unacknowledged": 0}
    stats = MessageStats(publish=published, deliver_get=published - fields["messages_ready"])
    queue = Queue(name="q", vhost="/", message_stats=stats, **known, **fields)
    return lags.observe([queue], NOW + clock.now)[KEY].age


@pytest.mark.parametrize("restarts", [False, True])
def test_messages_from_before_a_policy_keep_their_age(restarts: bool) -> None:
    """The broker gives a TTL to arriving messages only: those from before do not expire, nor those behind them."""
    clock, ttl = Clock(), Policy(message_ttl=30_000)
    lags = Lags(clock)
    look(lags, clock, 0, 0, messages_ready=0)
    look(lags, clock, 10, 100, messages_ready=100)
    look(lags, clock, 50, 100, messages_ready=100)
    look(lags, clock, 5, 100, messages_ready=100, effective_policy_definition=ttl)
    if restarts:
        state: LagState = lags.save()
        lags = Lags(clock)
        lags.restore = lambda _: Restored(state, 0.0, 0.0)
        lags.identify("cluster")

    age = look(lags, clock, 5, 100, messages_ready=100, effective_policy_definition=ttl)

    assert age == Age(70, "interpolation")


def test_a_policy_limits_the_age_of_later_messages() -> None:
    """When the messages from before the change have left, no message is older than the TTL."""
    clock, ttl = Clock(), Policy(message_ttl=30_000)
    lags = Lags(clock)
    look(lags, clock, 0, 0, messages_ready=0)
    look(lags, clock, 10, 100, messages_ready=100)
    look(lags, clock, 5, 100, messages_ready=100, effective_policy_definition=ttl)
    look(lags, clock, 20, 200, messages_ready=100, effective_policy_definition=ttl)
    look(lags, clock, 10, 200, messages_ready=100, effective_policy_definition=ttl)

    age = look(lags, clock, 40, 200, messages_ready=100, effective_policy_definition=ttl)

    assert age is not None
    assert age.seconds <= 30
