"""Celery with transport options: the counts are those of kombu."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from bts_collectors.redis.queues.config import CelerySettings, QueueSettings
from bts_exporter import testing
from servers.redis import MakeCollector, RedisServer

pytestmark = pytest.mark.live

# It has no types.
kombu: Any = importlib.import_module("kombu")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sep": ":"},
        {"sep": "--", "priority_steps": [0, 5]},
        {"priority_steps": list(range(10))},
        {"priority_steps": [1, 4], "sep": "."},
        {"unacked_key": "taken", "unacked_index_key": "taken_at"},
        {"global_keyprefix": "{app}:", "sep": "*", "unacked_key": "taken"},
    ],
    ids=str,
)
def test_celery_with_other_transport_options(
    redis_server: RedisServer, redis_collector: MakeCollector, options: dict[str, Any]
) -> None:
    """With kombu's options as settings, every depth is the one that kombu counts, whatever the names are."""
    names = ["celery", "mail", "mail:eu", "a:3", "x--y", "mail.out"]
    with kombu.Connection(redis_server.url, transport_options=options) as connection:
        channel = connection.default_channel
        fill(channel, *names)
        channel._put("only.urgent", message(9))
        taken = connection.SimpleQueue("taken")
        taken.put({})
        taken.get(timeout=20)

        wanted = CelerySettings.from_setting({"names": [*names, "onl?.urgent"], **options})
        queues = QueueSettings(celery=wanted)
        samples = testing.collect(redis_collector(redis_server.url, queues=queues))

        assert ready(samples) == {name: channel._size(name) for name in (*names, "only.urgent")}
        assert samples["redis_queue_messages"]["celery", "db0", "", "active"] == 1
        key = options.get("global_keyprefix", "") + options.get("unacked_key", "unacked")
        assert samples["messaging_in_flight_messages"] == {("redis", key, ""): 1}
        held = samples["redis_queue_oldest_active_age_seconds"]["celery", "db0"]
        assert 0 <= held < 600
        assert samples["messaging_in_flight_oldest_seconds"] == {("redis", key, ""): held}


def test_celery_queues_with_the_separator_in_their_names(
    redis_server: RedisServer, redis_collector: MakeCollector
) -> None:
    """A pattern finds queues whose names contain the separator, each once, with all priorities."""
    options = {"sep": ":"}
    names = ("mail:eu", "mail:us:west")
    with kombu.Connection(redis_server.url, transport_options=options) as connection:
        channel = connection.default_channel
        fill(channel, *names)

        wanted = CelerySettings.from_setting({"names": ["mail:*"], **options})
        queues = QueueSettings(celery=wanted)
        samples = testing.collect(redis_collector(redis_server.url, queues=queues))

        assert ready(samples) == {name: channel._size(name) for name in names}


def message(priority: int) -> dict[str, Any]:
    """Return a message as kombu's transport takes it."""
    return {"body": "{}", "properties": {"priority": priority}}


def fill(channel: Any, *names: str) -> None:
    """Put messages of several priorities into queues, without kombu's exchanges, whose names may not contain the separator."""
    for name in names:
        for priority in (0, 1, 4, 5, 9, 9):
            channel._put(name, message(priority))


def ready(samples: testing.Samples) -> dict[str, float]:
    """Return how many messages wait in each queue."""
    return {
        queue: count
        for (_, _, queue, state), count in samples["redis_queue_messages"].items()
        if state == "ready"
    }


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"sep": ""}, "sep: must not be empty"),
        ({"sep": 1}, "sep: expected a string, got 1"),
        ({"priority_steps": [3, 0]}, "priority_steps: expected ascending numbers"),
        ({"priority_steps": []}, "priority_steps: expected ascending numbers"),
        ({"priority_steps": ["0"]}, "priority_steps: expected ascending numbers"),
        ({"prefix": "a", "global_keyprefix": "b"}, "are the same: leave one out"),
        ({"unacked": "x"}, "unknown key 'unacked'"),
    ],
)
def test_options_that_cannot_be(block: dict[str, Any], message: str) -> None:
    """The error for an option that kombu could not use names it."""
    with pytest.raises(ValueError, match=message.replace("[", "")):
        CelerySettings.from_setting(block)
