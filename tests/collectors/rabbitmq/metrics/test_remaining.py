from __future__ import annotations

from time import monotonic

import msgspec
import pytest

from bts_collectors.rabbitmq.api.models import QUEUE, Queue, normalize
from bts_collectors.rabbitmq.metrics import remaining
from bts_collectors.rabbitmq.metrics.backlog import emit_flows
from bts_collectors.rabbitmq.metrics.lag import Lag, Lags
from bts_collectors.rabbitmq.metrics.queue_limits import NO_LIMITS, Limits, limits_of
from bts_exporter import Metric, Scrape, backlog

LABELS = ("rabbitmq", "q", "")
KEY = ("/", "q")


def queue(kind: str = "classic", policy: object = (), **arguments: object) -> Queue:
    """Return a queue from the API with these arguments; `_` in their names stands for `-`."""
    spelled = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    body = {"name": "q", "vhost": "/", "type": kind, "arguments": spelled, "state": "running"}
    if policy is not None:
        body["effective_policy_definition"] = policy
    found = QUEUE.decode(msgspec.json.encode(body))
    normalize(found)
    return found


def emitted(limits: Limits) -> dict[Metric, dict[tuple[str, ...], float]]:
    """Return the samples of a queue with these limits."""
    scrape = Scrape(monotonic() + 10)
    remaining.emit_remaining(scrape, {KEY: Lag(limits=limits)})
    assert scrape.losses == []
    return scrape.samples


@pytest.mark.parametrize(
    ("argument", "policy", "expected"),
    [(50, None, 50), (None, 40, 40), (50, 40, 40), (40, 50, 40), (0, 50, 0)],
)
def test_the_smaller_of_argument_and_policy_is_the_limit(
    argument: int | None, policy: int | None, expected: int
) -> None:
    """The lower maximum length applies, wherever it is set; the API merges both kinds of policies."""
    arguments = {} if argument is None else {"max_length": argument}
    definition = {} if policy is None else {"max-length": policy}

    samples = emitted(limits_of(queue(policy=definition, **arguments)))

    assert samples[backlog.LIMIT] == {LABELS: expected}
    assert samples[backlog.OVERFLOW] == {(*LABELS, "limit", "drop_oldest", "setting"): 1}
    assert backlog.RETENTION not in samples


@pytest.mark.parametrize(
    ("kind", "policy", "arguments", "expected"),
    [
        ("classic", {}, {}, "drop_oldest"),
        ("classic", {"overflow": "reject-publish"}, {}, "reject_new"),
        ("classic", {"overflow": "reject-publish"}, {"overflow": "drop-head"}, "drop_oldest"),
        ("quorum", {"overflow": "reject-publish"}, {"overflow": "drop-head"}, "reject_new"),
        ("quorum", {"overflow": "drop-head"}, {"overflow": "reject-publish"}, "drop_oldest"),
        ("classic", {}, {"dead_letter_exchange": ""}, "dead_letter"),
        ("quorum", {"dead-letter-exchange": "dead"}, {}, "dead_letter"),
        (
            "classic",
            {"overflow": "reject-publish"},
            {"dead_letter_exchange": "dead"},
            "reject_new",
        ),
        (
            "classic",
            {"overflow": "reject-publish-dlx"},
            {"dead_letter_exchange": "dead"},
            "dead_letter",
        ),
        ("classic", {"overflow": "reject-publish-dlx"}, {}, "reject_new"),
    ],
)
def test_what_happens_at_the_limit(
    kind: str, policy: dict[str, str], arguments: dict[str, str], expected: str
) -> None:
    """The oldest are dropped, new ones rejected, or either are dead-lettered; policies precede for quorum queues."""
    limits = limits_of(queue(kind, policy, max_length=10, **arguments))

    samples = emitted(limits)

    assert samples[backlog.OVERFLOW] == {(*LABELS, "limit", expected, "setting"): 1}


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_ttl_is_the_retention(kind: str) -> None:
    """The lower TTL applies; with a dead letter exchange, expired messages are not lost."""
    limits = limits_of(queue(kind, {"message-ttl": 90_000}, message_ttl=60_000))
    dead_lettered = limits_of(queue(kind, {"dead-letter-exchange": "dead"}, message_ttl=5))

    assert emitted(limits)[backlog.RETENTION] == {LABELS: 60}
    assert emitted(limits)[backlog.OVERFLOW] == {
        (*LABELS, "retention", "drop_oldest", "setting"): 1
    }
    assert emitted(dead_lettered)[backlog.RETENTION] == {LABELS: 0.005}
    assert emitted(dead_lettered)[backlog.OVERFLOW] == {
        (*LABELS, "retention", "dead_letter", "setting"): 1
    }


@pytest.mark.parametrize(
    ("argument", "policy", "expected"),
    [
        ("7D", None, 604_800),
        ("1Y", None, 31_536_000),
        ("2M", None, 5_184_000),
        ("90m", "1h", 3600),
        (None, "30s", 30),
        ("soon", None, None),
    ],
)
def test_a_streams_maximum_age_is_its_retention(
    argument: str | None, policy: str | None, expected: float | None
) -> None:
    """The lower maximum age of argument and policy applies, in the broker's units."""
    arguments = {} if argument is None else {"max_age": argument}
    definition = {} if policy is None else {"max-age": policy}

    limits = limits_of(queue("stream", definition, **arguments))

    assert limits == Limits(ttl=expected)


def test_a_stream_has_no_limit_of_messages() -> None:
    """A maximum length or TTL of a policy does not apply to a stream."""
    limits = limits_of(queue("stream", {"max-length": 5, "message-ttl": 1}))

    assert limits == NO_LIMITS


def test_each_consumer_of_a_stream_has_the_retention() -> None:
    """The labels are those of the consumer's lag, so that both can be compared."""
    scrape = Scrape(monotonic() + 10)

    remaining.emit_stream_limits(scrape, Limits(ttl=60), "rabbitmq", "q", "app")
    remaining.emit_stream_limits(scrape, Limits(), "rabbitmq", "q", "app")
    remaining.emit_stream_limits(scrape, None, "rabbitmq", "q", "app")

    assert scrape.samples[backlog.RETENTION] == {("rabbitmq", "q", "app"): 60}


def test_without_the_policy_the_limit_is_unknown() -> None:
    """Where only depths are listed, a policy may lower the limit of the arguments: there is no sample."""
    samples = emitted(limits_of(queue(policy=None, max_length=50)))

    assert samples == {}


def test_a_policy_that_is_removed_no_longer_limits() -> None:
    """After a policy was removed, the limit is that of the arguments, and before that the policy's."""
    lags = Lags(lambda: 0.0)
    before = lags.observe([queue(policy={"max-length": 40}, max_length=50)], 0)[KEY].limits
    unlisted = lags.observe([queue(policy=None, max_length=50)], 0)[KEY].limits
    after = lags.observe([queue(policy={}, max_length=50)], 0)[KEY].limits
    without = lags.observe([queue(policy=[])], 0)[KEY].limits

    assert [limits.length for limits in (before, unlisted, after, without)] == [40, 40, 50, None]


@pytest.mark.parametrize(
    ("version", "node", "limits", "expected"),
    [
        ("3.10.8", 1800, Limits(ack_timeout=60), 1800),
        ("3.10.8", 0, Limits(), None),
        ("3.12.0", 1800, Limits(ack_timeout=60), 60),
        ("4.1.0", 1800, Limits(ack_timeout=7200), 7200),
        ("4.1.0", 0, Limits(ack_timeout=60), 60),
        ("4.1.0", 1800, Limits(), 1800),
        ("4.1.0", 1800, Limits(is_complete=False), None),
        ("3.8.14", 1800, Limits(), None),
        (None, 1800, Limits(), None),
    ],
)
def test_the_time_to_acknowledge(
    version: str | None, node: float, limits: Limits, expected: float | None
) -> None:
    """The queue's own timeout applies since 3.12, the node's since 3.8.15; unknown gives no sample."""
    assert remaining.ack_timeouts(version, node)(limits) == expected


def test_the_queues_own_time_to_acknowledge_is_the_lower_one() -> None:
    """Of the timeouts of argument and policy, the lower applies."""
    limits = limits_of(queue(policy={"consumer-timeout": 5000}, consumer_timeout=60_000))

    assert limits.ack_timeout == 5


def test_held_messages_have_an_age_a_method_and_a_timeout() -> None:
    """The age comes with its method and the time to acknowledge; the age 0 needs neither."""
    scrape = Scrape(monotonic() + 10)
    lags = {
        KEY: Lag(in_flight=backlog.Age(12, "lower_bound")),
        ("/", "idle"): Lag(in_flight=backlog.Age(0, "interpolation")),
        ("/", "unknown"): Lag(),
    }
    queues = [Queue(name=name, vhost="/", type="quorum") for name in ("q", "idle", "unknown")]

    emit_flows(scrape, queues, lags)
    remaining.emit_remaining(scrape, lags, lambda _: 1800)

    assert scrape.samples == {
        backlog.IN_FLIGHT_OLDEST: {LABELS: 12, ("rabbitmq", "idle", ""): 0},
        backlog.IN_FLIGHT_METHOD: {(*LABELS, "lower_bound"): 1},
        backlog.ACK_TIMEOUT: {LABELS: 1800},
    }


@pytest.mark.parametrize(("automatic", "expected"), [(2, None), (1, {LABELS: 0})])
def test_a_queue_with_automatic_acknowledgement_only_has_no_age(
    automatic: int, expected: object
) -> None:
    """Its messages are never unacknowledged, so 0 would say nothing about its consumers."""
    scrape = Scrape(monotonic() + 10)
    lags = {KEY: Lag(in_flight=backlog.Age(0, "interpolation"))}
    found = Queue(name="q", vhost="/", type="classic", consumers=2)

    emit_flows(scrape, [found], lags, {KEY: automatic})

    assert scrape.samples.get(backlog.IN_FLIGHT_OLDEST) == expected
