from __future__ import annotations

from itertools import permutations
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.rabbitmq.api.models import MessageStats, Queue
from bts_collectors.rabbitmq.metrics.backlog import destination, emit_backlogs, emit_flows
from bts_collectors.rabbitmq.metrics.lag import Lag
from bts_exporter import Metric, Scrape, backlog

LABELS = ("rabbitmq", "q", "")


def queue(**fields: object) -> Queue:
    """Return a classic queue of the default virtual host."""
    return Queue(**({"name": "q", "vhost": "/", "type": "classic"} | fields))  # type: ignore[arg-type]


def emitted(found: Queue, lag: Lag = Lag()) -> dict[Metric, dict[tuple[str, ...], float]]:  # noqa: B008  # immutable
    """Return the samples that a queue gives."""
    scrape = Scrape(monotonic() + 10)
    lags = {(found.vhost, found.name): lag}
    emit_backlogs(scrape, [found], lags)
    emit_flows(scrape, [found], lags)
    assert scrape.losses == []
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
    """The label destination is the queue's name, preceded by a virtual host that is not the default."""
    assert destination(vhost, name) == expected


@given(st.lists(st.tuples(st.text("/%2Fa", min_size=1), st.text("/%2Fa")), min_size=2, max_size=2))
def test_no_two_queues_have_the_same_destination(names: list[tuple[str, str]]) -> None:
    """Destinations are unique, whatever slashes names contain."""
    for (vhost, name), (other_vhost, other_name) in permutations(names):
        same = (vhost, name) == (other_vhost, other_name)

        assert (destination(vhost, name) == destination(other_vhost, other_name)) is same


def test_what_waits_what_is_in_flight_and_what_flows() -> None:
    """Every common metric has its source."""
    stats = MessageStats(publish=100, ack=50, deliver=55, deliver_no_ack=20, get_no_ack=5)
    busy = queue(messages_ready=20, messages_unacknowledged=5, consumers=2, message_stats=stats)
    samples = emitted(busy)

    assert samples[backlog.BACKLOG] == {LABELS: 20}
    assert samples[backlog.IN_FLIGHT] == {LABELS: 5}
    assert samples[backlog.CONSUMERS] == {LABELS: 2}
    assert samples[backlog.PUBLISHED] == {LABELS: 100}
    assert samples[backlog.CONSUMED] == {LABELS: 75}


def test_a_queue_without_figures_has_no_samples() -> None:
    """A queue on a node that is down has no samples."""
    assert emitted(queue(state="down")) == {}


@pytest.mark.parametrize("method", ["message_time", "interpolation", "lower_bound"])
def test_a_lag_comes_with_how_it_is_known(method: str) -> None:
    """Each lag has its method as a metric."""
    samples = emitted(queue(), Lag(backlog.Age(600, method), 30))  # type: ignore[arg-type]

    assert samples == {
        backlog.LAG_SECONDS: {LABELS: 600},
        backlog.LAG_METHOD: {(*LABELS, method): 1},
        backlog.DRAIN_SECONDS: {LABELS: 30},
    }


def test_no_lag_has_no_method() -> None:
    """A lag of 0 has no method."""
    samples = emitted(queue(), Lag(backlog.Age(0, "interpolation"), 0))

    assert samples == {backlog.LAG_SECONDS: {LABELS: 0}, backlog.DRAIN_SECONDS: {LABELS: 0}}


def test_the_log_of_a_stream_is_no_backlog() -> None:
    """The length of a stream's log is not emitted as backlog, since read messages stay in it."""
    stats = MessageStats(publish=9, ack=4)
    log = queue(type="stream", messages_ready=9, consumers=1, message_stats=stats)

    assert emitted(log) == {backlog.CONSUMERS: {LABELS: 1}, backlog.PUBLISHED: {LABELS: 9}}
