from __future__ import annotations

from itertools import permutations
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.rabbitmq.shapes import MessageStats, Queue
from bts_collectors.rabbitmq.vocabulary import consumed, destination, emit_vocabulary
from bts_exporter import Metric, Scrape, backlog

NOW = 1_700_000_600.0
LABELS = ("rabbitmq", "q", "")


def queue(**fields: object) -> Queue:
    """Return a classic queue of the default virtual host."""
    return Queue(**({"name": "q", "vhost": "/", "type": "classic"} | fields))  # type: ignore[arg-type]


def emitted(*found: Queue) -> dict[Metric, dict[tuple[str, ...], float]]:
    """Return the samples that queues give."""
    scrape = Scrape(monotonic() + 10)
    emit_vocabulary(scrape, found, NOW)
    assert scrape.rejected is None
    return scrape.samples


@pytest.mark.parametrize(
    ("vhost", "name", "expected"),
    [
        ("/", "orders", "orders"),
        ("prod", "orders", "/prod/orders"),
        ("/", "a/b", "a/b"),
        ("/", "/prod/orders", "/%2F//prod/orders"),
        ("a/b", "c", "/a%2Fb/c"),
        ("a%2Fb", "c", "/a%252Fb/c"),
    ],
)
def test_a_destination_is_the_queue_with_its_virtual_host_where_that_is_not_the_default(
    vhost: str, name: str, expected: str
) -> None:
    """The usual queue keeps its plain name."""
    assert destination(queue(vhost=vhost, name=name)) == expected


@given(st.lists(st.tuples(st.text("/%2Fa", min_size=1), st.text("/%2Fa")), min_size=2, max_size=2))
def test_no_two_queues_have_the_same_destination(names: list[tuple[str, str]]) -> None:
    """Whatever slashes names have: a sample emitted twice would cost the whole collection."""
    for (vhost, name), (other_vhost, other_name) in permutations(names):
        same = (vhost, name) == (other_vhost, other_name)
        first = destination(queue(vhost=vhost, name=name))
        second = destination(queue(vhost=other_vhost, name=other_name))

        assert (first == second) is same


def test_what_waits_what_is_in_flight_and_what_flows() -> None:
    """Every number of the vocabulary has its source."""
    stats = MessageStats(publish=100, ack=50, deliver=55, deliver_no_ack=20, get_no_ack=5)
    busy = queue(messages_ready=20, messages_unacknowledged=5, consumers=2, message_stats=stats)
    samples = emitted(busy)

    assert samples[backlog.BACKLOG] == {LABELS: 20}
    assert samples[backlog.IN_FLIGHT] == {LABELS: 5}
    assert samples[backlog.CONSUMERS] == {LABELS: 2}
    assert samples[backlog.PUBLISHED] == {LABELS: 100}
    assert samples[backlog.CONSUMED] == {LABELS: 75}


def test_a_queue_without_figures_has_no_samples() -> None:
    """Of a queue on a node that is down nothing is known but its name."""
    assert emitted(queue(state="down")) == {}


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        (None, None),
        (MessageStats(publish=3), None),
        (MessageStats(publish=3, ack=0), 0),
        (MessageStats(get_no_ack=2), 2),
    ],
)
def test_consumption_is_unknown_until_there_was_some(
    stats: MessageStats | None, expected: float | None
) -> None:
    """A queue that was only published to has no counts of the other side."""
    assert consumed(queue(message_stats=stats)) == expected


@pytest.mark.parametrize("kind", ["classic", "quorum", "rabbit_mqtt_qos0_queue"])
def test_nothing_waiting_is_no_lag(kind: str) -> None:
    """That much is known of every queue, whatever is in flight."""
    samples = emitted(queue(type=kind, messages_ready=0, messages_unacknowledged=4))

    assert samples[backlog.LAG_SECONDS] == {LABELS: 0}
    assert backlog.LAG_METHOD not in samples


def test_the_publishers_time_of_the_oldest_message_gives_the_lag() -> None:
    """Classic queues know it where publishers set it."""
    samples = emitted(queue(messages_ready=3, head_message_timestamp=1_700_000_000))

    assert samples[backlog.LAG_SECONDS] == {LABELS: 600}
    assert samples[backlog.LAG_METHOD] == {(*LABELS, "message_time"): 1}


def test_a_message_from_the_future_is_no_negative_lag() -> None:
    """Publishers' clocks differ."""
    samples = emitted(queue(messages_ready=3, head_message_timestamp=NOW + 60))

    assert samples[backlog.LAG_SECONDS] == {LABELS: 0}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages_ready": 3},
        {"messages_ready": 3, "head_message_timestamp": ""},
        {"messages_ready": 3, "head_message_timestamp": 1_700_000_000, "type": "quorum"},
        {"head_message_timestamp": 1_700_000_000},
    ],
)
def test_a_lag_that_is_not_known_is_not_guessed(fields: dict[str, object]) -> None:
    """No time on the message, or no count of messages: no sample."""
    assert backlog.LAG_SECONDS not in emitted(queue(**fields))


def test_the_log_of_a_stream_is_no_backlog() -> None:
    """Read messages stay in it: its length says nothing of how far readers are."""
    stats = MessageStats(publish=9, ack=4)
    log = queue(type="stream", messages_ready=9, consumers=1, message_stats=stats)

    assert emitted(log) == {backlog.CONSUMERS: {LABELS: 1}, backlog.PUBLISHED: {LABELS: 9}}
