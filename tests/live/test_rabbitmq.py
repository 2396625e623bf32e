from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_collectors.rabbitmq.metrics.health import CHECKS
from bts_exporter import Scrape, TargetError, Url, testing
from servers import wait_until
from servers.rabbitmq import AmqpConsumer
from servers.rabbitmq import RabbitMQ as Broker

pytestmark = pytest.mark.live

DOCS = Path(__file__).parents[2] / "docs/collectors/rabbitmq.md"


@contextmanager
def collector(broker: Broker, credentials: str = "guest:guest") -> Iterator[RabbitMQ]:
    """Return a collector of the broker that is stopped in the end."""
    url = broker.url.replace("//", f"//{credentials}@")
    made = COLLECTOR(COLLECTOR.Config(url=Url.from_setting(url)))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def made(rabbitmq: Broker) -> Iterator[RabbitMQ]:
    """Return a collector of the broker."""
    with collector(rabbitmq) as reading:
        yield reading


def failing(made: RabbitMQ, seconds: float = 20.0) -> tuple[TargetError, testing.Samples]:
    """Return what a collection that fails raises, and what it emitted before."""
    scrape = Scrape(monotonic() + seconds)
    with pytest.raises(TargetError) as caught:
        made.collect(scrape)
    return caught.value, testing.samples(made, scrape)


def when(made: RabbitMQ, metric: str, labels: tuple[str, ...], value: float) -> testing.Samples:
    """Return the samples of the first collection in which one is `value`: statistics take time."""
    found: testing.Samples = {}

    def is_there() -> bool:
        found.clear()
        found.update(testing.collect(made))
        return found.get(metric, {}).get(labels) == value

    wait_until(is_there, f"{metric} {labels} = {value}")
    return found


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_depths_are_exact(rabbitmq: Broker, made: RabbitMQ, kind: str) -> None:
    """Depths and counters are exact, under RabbitMQ's and the common names."""
    name = f"depth-{kind}"
    rabbitmq.queue(name, queue_type=kind)
    key, shared = ("/", name), ("rabbitmq", name, "")
    with rabbitmq.channel() as channel:
        for _ in range(7):
            channel.basic_publish("", name, b"x")
        for _ in range(3):
            channel.basic_ack(channel.basic_get(name)[0].delivery_tag)
        when(made, "messaging_consumed_messages_total", shared, 3)
        when(made, "messaging_published_messages_total", shared, 7)
        samples = when(made, "rabbitmq_queue_messages_ready", key, 4)

    assert samples["rabbitmq_queue_messages_unacked"][key] == 0
    assert samples["rabbitmq_queue_messages_published_total"][key] == 7
    assert samples["rabbitmq_queue_info"][*key, f"rabbit_{kind}_queue", "true", "", rabbitmq.node]
    assert samples["messaging_backlog_messages"][shared] == 4
    assert samples["messaging_in_flight_messages"][shared] == 0
    assert samples["messaging_consumers"][shared] == 0
    assert samples["messaging_published_messages_total"][shared] == 7


def test_virtual_hosts_are_distinguished(rabbitmq: Broker, made: RabbitMQ) -> None:
    """Queues of the same name in two virtual hosts have their own series."""
    rabbitmq.vhost("prod/eu")
    for vhost, count in (("/", 1), ("prod/eu", 2)):
        rabbitmq.queue("twin", vhost)
        rabbitmq.publish("twin", count, vhost)

    when(made, "rabbitmq_queue_messages_ready", ("/", "twin"), 1)
    samples = when(made, "rabbitmq_queue_messages_ready", ("prod/eu", "twin"), 2)

    assert samples["messaging_backlog_messages"]["rabbitmq", "twin", ""] == 1
    assert samples["messaging_backlog_messages"]["rabbitmq", "/prod%2Feu/twin", ""] == 2


@pytest.mark.parametrize("name", ["a/b", 'say "hi"', "back\\slash", "очередь 🐇", "%2F"])
def test_any_name_of_a_queue_is_a_label_as_it_is(
    rabbitmq: Broker, made: RabbitMQ, name: str
) -> None:
    """Any queue name becomes a label value unchanged."""
    rabbitmq.queue(name)
    rabbitmq.publish(name, 2)

    samples = when(made, "rabbitmq_queue_messages_ready", ("/", name), 2)

    assert samples["messaging_backlog_messages"]["rabbitmq", name, ""] == 2


def test_a_consumer_that_acknowledges_nothing_is_seen(rabbitmq: Broker, made: RabbitMQ) -> None:
    """A consumer with automatic acknowledgement is counted, although its queue looks empty."""
    rabbitmq.queue("blind")
    rabbitmq.publish("blind", 5)
    with AmqpConsumer(rabbitmq.amqp, "blind", auto_ack=True):
        when(made, "rabbitmq_queue_messages_delivered_total", ("/", "blind"), 5)
        samples = when(made, "rabbitmq_queue_consumers_auto_ack", ("/", "blind"), 1)

        assert samples["rabbitmq_queue_messages_ready"]["/", "blind"] == 0
        assert samples["rabbitmq_queue_messages_unacked"]["/", "blind"] == 0

    when(made, "rabbitmq_queue_consumers_auto_ack", ("/", "blind"), 0)


def test_what_a_consumer_has_and_did_not_acknowledge_is_in_flight(
    rabbitmq: Broker, made: RabbitMQ
) -> None:
    """Unacknowledged messages are in flight, and return to the backlog with the end of the consumer."""
    rabbitmq.queue("flight")
    rabbitmq.publish("flight", 5)
    with AmqpConsumer(rabbitmq.amqp, "flight", auto_ack=False, prefetch=2):
        samples = when(made, "rabbitmq_queue_messages_unacked", ("/", "flight"), 2)

        assert samples["messaging_backlog_messages"]["rabbitmq", "flight", ""] == 3
        assert samples["messaging_in_flight_messages"]["rabbitmq", "flight", ""] == 2
        assert samples["messaging_consumers"]["rabbitmq", "flight", ""] == 1
        assert samples["rabbitmq_queue_consumers_auto_ack"]["/", "flight"] == 0

    when(made, "rabbitmq_queue_messages_ready", ("/", "flight"), 5)


def test_the_log_of_a_stream_is_no_backlog(rabbitmq: Broker, made: RabbitMQ) -> None:
    """The length of a stream's log is not emitted as backlog, since read messages stay in it."""
    rabbitmq.queue("log", queue_type="stream")
    rabbitmq.publish("log", 3)

    samples = when(made, "rabbitmq_queue_messages_ready", ("/", "log"), 3)

    assert ("rabbitmq", "log", "") not in samples["messaging_backlog_messages"]
    assert ("rabbitmq", "log", "") not in samples["messaging_lag_seconds"]


@pytest.mark.parametrize("unit", [1, 1000])
def test_the_publishers_time_of_the_oldest_message_gives_the_lag(
    rabbitmq: Broker, made: RabbitMQ, unit: int
) -> None:
    """In seconds, and in the milliseconds that many publishers write; 0 once nothing waits.

    An exporter that saw the queue empty knows better: no message is older than that.
    """
    name = f"aged-{unit}"
    rabbitmq.queue(name)
    rabbitmq.publish(name, 1, timestamp=1_600_000_000 * unit)
    rabbitmq.publish(name, 1, timestamp=1_700_000_000 * unit)
    rabbitmq.queue(f"{name}-empty")
    shared = ("rabbitmq", name, "")

    when(made, "rabbitmq_queue_head_message_timestamp", ("/", name), 1_600_000_000)
    with collector(rabbitmq, "guest:guest") as later:
        samples = testing.collect(later)
    assert samples["messaging_lag_seconds"][shared] > 100_000_000
    assert samples["messaging_lag_method_info"][*shared, "message_time"] == 1

    rabbitmq.get(name, 1)
    when(made, "rabbitmq_queue_head_message_timestamp", ("/", name), 1_700_000_000)
    rabbitmq.get(name, 1)
    samples = when(made, "messaging_lag_seconds", shared, 0)
    assert (*shared, "message_time") not in samples.get("messaging_lag_method_info", {})


def test_the_lower_limit_of_queue_and_policy_is_shown(rabbitmq: Broker, made: RabbitMQ) -> None:
    """The effective maximum length is served, with the name of the policy."""
    rabbitmq.queue("limited", max_length=1000)
    definition = {"max-length": 500}
    policy = {"pattern": "^limited$", "definition": definition, "apply-to": "queues"}
    rabbitmq.api("policies/%2f/short", "PUT", policy)

    samples = when(made, "rabbitmq_queue_max_length", ("/", "limited"), 500)

    key = ("/", "limited", "rabbit_classic_queue", "true", "short", rabbitmq.node)
    assert samples["rabbitmq_queue_info"][key] == 1


def test_the_whole_and_the_node_are_shown(rabbitmq: Broker, made: RabbitMQ) -> None:
    """Metrics of cluster and node have the broker's own values."""
    samples = testing.collect(made)
    overview = rabbitmq.api("overview")

    identity = (rabbitmq.node, overview["cluster_name"], "", "management")
    assert samples["rabbitmq_identity_info"] == {identity: 1}
    assert samples["rabbitmq_up"] == {(): 1}
    assert samples["rabbitmq_exchanges"] == {(): overview["object_totals"]["exchanges"]}
    assert samples["rabbitmq_node_running"] == {(rabbitmq.node,): 1}
    assert samples["rabbitmq_node_partitions"] == {(rabbitmq.node,): 0}
    assert samples["rabbitmq_resident_memory_limit_bytes"] == {(rabbitmq.node,): 1e9}
    assert samples["rabbitmq_process_resident_memory_bytes"][rabbitmq.node,] > 10_000_000
    assert samples["rabbitmq_health_check_ok"] == {(check,): 1 for check in CHECKS}


def test_an_alarm_shows_at_once(rabbitmq: Broker, made: RabbitMQ) -> None:
    """An alarm is reported by node before the statistics contain it."""
    rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "20MB")
    try:
        samples = when(made, "rabbitmq_health_check_ok", ("alarms",), 0)
        assert samples["rabbitmq_up"] == {(): 1}
        assert samples["rabbitmq_alarms_memory_used_watermark"] == {(rabbitmq.node,): 1}
        assert samples["rabbitmq_alarms_free_disk_space_watermark"] == {(rabbitmq.node,): 0}
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    samples = when(made, "rabbitmq_health_check_ok", ("alarms",), 1)
    assert samples["rabbitmq_alarms_memory_used_watermark"] == {(rabbitmq.node,): 0}


def test_a_wrong_password_is_an_error_of_its_own(rabbitmq: Broker) -> None:
    """A wrong password has the reason `auth`."""
    with collector(rabbitmq, "guest:wr0ng") as made:
        error, samples = failing(made)

    assert error.reason == "auth"
    assert "Login failed" in str(error)
    assert "wr0ng" not in str(error)
    assert samples == {"rabbitmq_up": {(): 0}}


def test_a_user_without_tags_lacks_permission(rabbitmq: Broker) -> None:
    """The error names the tag to set."""
    rabbitmq.user("untagged", "x", "")
    with collector(rabbitmq, "untagged:x") as made:
        error, samples = failing(made)

    assert error.reason == "noperm"
    assert "set_user_tags USER monitoring" in str(error)
    assert samples == {"rabbitmq_up": {(): 0}}


def test_a_user_with_the_tag_management_lacks_only_the_nodes(rabbitmq: Broker) -> None:
    """With the tag management, only metrics of nodes are missing."""
    rabbitmq.user("manager", "x", "management")
    with collector(rabbitmq, "manager:x") as made:
        error, samples = failing(made)

    assert error.reason == "noperm"
    assert "/api/nodes" in str(error)
    assert samples["rabbitmq_up"] == {(): 1}
    assert len(samples["rabbitmq_identity_info"]) == 1


def test_queues_that_the_user_may_not_see_are_counted(rabbitmq: Broker) -> None:
    """Queues without permission are counted, and seeing none fails the collection."""
    rabbitmq.queue("unseen")
    rabbitmq.user("outsider", "x", "monitoring")
    with collector(rabbitmq, "outsider:x") as made:
        error, samples = failing(made)

    assert error.reason == "noperm"
    assert "set_permissions" in str(error)
    assert samples["rabbitmq_permission_gap"] == {(): len(rabbitmq.api("queues"))}
    assert "rabbitmq_queue_info" not in samples


def test_the_user_of_the_documentation_sees_everything(rabbitmq: Broker, made: RabbitMQ) -> None:
    """The documented commands create a user that sees everything and may do nothing else."""
    rabbitmq.vhost("prod")
    rabbitmq.queue("documented", "prod")
    rabbitmq.publish("documented", 2, "prod")
    section = DOCS.read_text().partition("## A user for it")[2].partition("\n## ")[0]
    commands = re.findall(r"^rabbitmqctl (.+)$", section, re.MULTILINE)
    assert [command.split()[0] for command in commands] == [
        "add_user",
        "set_user_tags",
        "set_permissions",
    ]
    for command in commands[:2]:
        rabbitmq.ctl(*shlex.split(command))
    for vhost in rabbitmq.api("vhosts"):
        rabbitmq.ctl(*shlex.split(commands[2].replace("-p /", f"-p '{vhost['name']}'")))

    with collector(rabbitmq, "monitor:PASSWORD") as documented:
        samples = when(documented, "rabbitmq_queue_messages_ready", ("prod", "documented"), 2)

        assert samples["rabbitmq_permission_gap"] == {(): 0}
        # What tells the age of a message is known from the second look on, by both.
        testing.collect(made)
        wait_until(
            lambda: testing.collect(documented).keys() == testing.collect(made).keys(),
            "the user sees all that the administrator sees",
        )
        assert (
            samples["rabbitmq_queue_info"].keys()
            == testing.collect(made)["rabbitmq_queue_info"].keys()
        )


def test_a_frozen_broker_is_down_in_time_and_up_again_when_it_thaws(
    rabbitmq: Broker, made: RabbitMQ
) -> None:
    """A stopped process is reported as down in time, and as up when it continues."""
    testing.collect(made)
    rabbitmq.process.freeze()
    try:
        for _ in range(2):
            error, samples = failing(made, 1.0)
            assert error.reason == "timeout"
            assert samples == {"rabbitmq_up": {(): 0}}
    finally:
        rabbitmq.process.thaw()

    assert testing.collect(made)["rabbitmq_up"] == {(): 1}


def test_a_broker_that_is_started_again_is_found_again(rabbitmq: Broker, made: RabbitMQ) -> None:
    """After a restart, the broker and its durable queues are served again."""
    rabbitmq.queue("kept")
    rabbitmq.publish("kept", 3, delivery_mode=2)
    when(made, "rabbitmq_queue_messages_ready", ("/", "kept"), 3)

    rabbitmq.process.kill()
    error, samples = failing(made)
    assert error.reason == "refused"
    assert samples == {"rabbitmq_up": {(): 0}}

    rabbitmq.restart()
    samples = when(made, "rabbitmq_queue_messages_ready", ("/", "kept"), 3)
    assert samples["rabbitmq_up"] == {(): 1}
