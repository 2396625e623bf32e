from __future__ import annotations

from collections import Counter
from time import monotonic

import pytest

from bts_collectors.rabbitmq.api.models import (
    Arguments,
    MessageStats,
    Policy,
    Queue,
)
from bts_collectors.rabbitmq.metrics import queues
from bts_exporter import Scrape

NOW = 1_700_000_600.0


def queue(**fields: object) -> Queue:
    """Return a queue of the default virtual host."""
    return Queue(**({"name": "q", "vhost": "/"} | fields))  # type: ignore[arg-type]


def emitted(*found: Queue) -> Scrape:
    """Return the samples that queues give."""
    scrape = Scrape(monotonic() + 10)
    for each in found:
        queues.emit_queue(scrape, each, NOW)
    assert scrape.losses == []
    return scrape


def test_a_queue_without_activity_has_no_counters() -> None:
    """Without `message_stats` a queue has no counters."""
    samples = emitted(queue(messages_ready=0)).samples

    assert not samples.keys() & set(queues.COUNTERS.values())
    assert samples[queues.GAUGES["messages_ready"]] == {("/", "q"): 0}


def test_deliveries_are_named_as_rabbitmq_names_them() -> None:
    """`delivered` counts automatic and `delivered_ack` manual acknowledgement, as in RabbitMQ 4.x."""
    stats = MessageStats(publish=9, deliver=1, deliver_no_ack=2, get=3, get_no_ack=4, ack=5)
    samples = emitted(queue(message_stats=stats)).samples

    named = {
        metric.name: values["/", "q"]
        for metric, values in samples.items()
        if metric.kind == "counter"
    }
    assert named == {
        "rabbitmq_queue_messages_published_total": 9,
        "rabbitmq_queue_messages_delivered_ack_total": 1,
        "rabbitmq_queue_messages_delivered_total": 2,
        "rabbitmq_queue_get_ack_total": 3,
        "rabbitmq_queue_get_total": 4,
        "rabbitmq_queue_messages_acked_total": 5,
    }


def test_queues_of_the_same_name_are_distinguished_by_virtual_host() -> None:
    """Queues of the same name in two virtual hosts have their own series."""
    samples = emitted(queue(messages_ready=1), queue(vhost="prod", messages_ready=2)).samples

    assert samples[queues.GAUGES["messages_ready"]] == {("/", "q"): 1, ("prod", "q"): 2}


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("classic", "rabbit_classic_queue"),
        ("quorum", "rabbit_quorum_queue"),
        ("stream", "rabbit_stream_queue"),
        ("rabbit_mqtt_qos0_queue", "rabbit_mqtt_qos0_queue"),
        (None, ""),
    ],
)
def test_types_are_spelled_as_in_rabbitmqs_own_exporter(kind: str | None, label: str) -> None:
    """Abbreviated types get their full names."""
    assert queues.queue_type(queue(type=kind)) == label


@pytest.mark.parametrize(
    ("own", "policy", "limit"),
    [(10, 5, 5), (5, 10, 5), (10, None, 10), (None, 5, 5), (None, None, None), ("many", 5, 5)],
)
def test_the_lower_limit_of_queue_and_policy_is_effective(
    own: object, policy: object, limit: float | None
) -> None:
    """The effective maximum length is the lower one of argument and policy."""
    limited = queue(
        arguments=Arguments(max_length=own),  # type: ignore[arg-type]
        effective_policy_definition=Policy(max_length=policy),  # type: ignore[arg-type]
    )

    assert queues.max_length(limited) == limit


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (1_700_000_000, 1_700_000_000),
        (1_700_000_000_000, 1_700_000_000),
        (0, None),
        (-1, None),
        ("", None),
        (None, None),
    ],
)
def test_a_publishers_time_is_seconds_even_where_it_wrote_milliseconds(
    given: object, seconds: float | None
) -> None:
    """Timestamps in milliseconds are converted to seconds."""
    assert queues.head_timestamp(queue(head_message_timestamp=given)) == seconds


def test_a_message_from_the_future_has_no_age() -> None:
    """A timestamp in the future gives no age."""
    samples = emitted(queue(head_message_timestamp=NOW + 60)).samples

    assert samples[queues.HEAD_TIMESTAMP] == {("/", "q"): NOW + 60}
    assert queues.HEAD_AGE not in samples


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("2026-01-02T03:04:05.678+00:00", 1767323045),
        ("2026-01-02 3:04:05", 1767323045),
        ("2026-13-02 3:04:05", None),
        ("long ago", None),
        (None, None),
    ],
)
def test_idleness_is_a_unix_time(given: str | None, seconds: float | None) -> None:
    """Every known format of idle_since is read; others give no metric."""
    assert queues.idle_since(queue(idle_since=given)) == seconds


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (Counter({("/", "busy"): 2}), {("/", "busy"): 2, ("/", "idle"): 0}),
        (None, {("/", "idle"): 0}),
    ],
)
def test_auto_ack_consumers_are_unknown_without_the_list_of_consumers(
    counts: Counter[tuple[str, str]] | None, expected: dict[tuple[str, str], float]
) -> None:
    """Without the list, only a queue without consumers has a known number; streams have none."""
    found = [
        queue(name="busy", consumers=3),
        queue(name="idle", consumers=0),
        queue(name="log", consumers=1, type="stream"),
        queue(name="new"),
    ]
    scrape = Scrape(monotonic() + 10)
    for each in found:
        queues.emit_auto_ack(scrape, each, counts)

    assert scrape.samples[queues.AUTO_ACK] == expected
