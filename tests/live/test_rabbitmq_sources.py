from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from urllib.request import urlopen

import pika
import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_exporter import Kind, Scrape, TargetError, Url, prometheus_text
from servers import wait_until
from servers.rabbitmq import RabbitMQ as Broker

pytestmark = pytest.mark.live

Samples = dict[str, dict[tuple[str, ...], float]]

#: What RabbitMQ's own exporter of 3.10 has of the broker and the management API does not tell:
#: sums over channels and connections, which are objects of their own there, times of files, Raft,
#: logins, and what is counted by protocol.
ONLY_NATIVE = (
    "rabbitmq_auth_",
    "rabbitmq_channel_",
    "rabbitmq_connection_",
    "rabbitmq_consumer_prefetch",
    "rabbitmq_global_messages_dead_lettered_",
    "rabbitmq_global_messages_received_confirm_total",
    "rabbitmq_global_messages_routed_total",
    "rabbitmq_global_publishers",
    "rabbitmq_global_stream_error_",
    "rabbitmq_io_read_time_",
    "rabbitmq_io_write_time_",
    "rabbitmq_io_sync_time_",
    "rabbitmq_io_seek_time_",
    "rabbitmq_raft_",
    "rabbitmq_queue_messages_ram_bytes",
    "rabbitmq_queue_messages_ready_ram",
    "rabbitmq_queue_messages_unacked_ram",
    "rabbitmq_queue_messages_persistent_bytes",
    "rabbitmq_queue_messages_paged_out",
    "rabbitmq_queue_disk_",
    "rabbitmq_queue_process_reductions_total",
)


@contextmanager
def collector(url: str, **settings: object) -> Iterator[RabbitMQ]:
    """Return a collector that is stopped in the end."""
    config = COLLECTOR.Config(url=Url.from_setting(url), **settings)  # type: ignore[arg-type]
    made = COLLECTOR(config)
    try:
        yield made
    finally:
        made.stop()


def collect(made: RabbitMQ, seconds: float = 20.0) -> tuple[Samples, TargetError | None]:
    """Return the samples of one collection and the error that it ends in."""
    scrape = Scrape(monotonic() + seconds)
    failure = None
    try:
        made.collect(scrape)
    except TargetError as error:
        failure = error
    assert scrape.losses == []
    return {metric.name: dict(values) for metric, values in scrape.samples.items()}, failure


def when(made: RabbitMQ, condition: Callable[[Samples], object], what: str) -> Samples:
    """Return the samples of the first collection of which `condition` holds: statistics take time."""
    found: Samples = {}

    def holds() -> object:
        samples, failure = collect(made)
        assert failure is None
        found.clear()
        found.update(samples)
        return condition(found)

    wait_until(holds, what)
    return found


def native_page(broker: Broker) -> dict[str, Kind]:
    """Return the types of the families on the page of RabbitMQ's own exporter, by name."""
    with urlopen(f"{broker.native_url}/metrics", timeout=20) as answer:
        return {
            family.name: family.kind
            for family in prometheus_text.parse(answer.read().decode(), strict=False)
        }


# RabbitMQ's own exporter


def test_every_name_of_rabbitmqs_own_exporter_is_ours_or_known_not_to_be(rabbitmq: Broker) -> None:
    """Every family of the real exporter is served with its type, or is a listed exception."""
    theirs = native_page(rabbitmq)
    ours = {m.name: m.kind for m in COLLECTOR.declared() if not m.name.startswith("messaging_")}

    missing = {name for name in theirs if name.startswith("rabbitmq_")} - ours.keys()
    assert {name for name in missing if not name.startswith(ONLY_NATIVE)} == set()
    assert {
        prefix for prefix in ONLY_NATIVE if not any(n.startswith(prefix) for n in missing)
    } == set()
    differing = {name for name, kind in theirs.items() if ours.get(name, kind) != kind}
    assert {name for name in differing if theirs[name] is not Kind.UNTYPED} == set()


def test_both_sources_report_the_same(rabbitmq: Broker) -> None:
    """Both sources report the same numbers of queues and node."""
    for kind in ("classic", "quorum", "stream"):
        rabbitmq.queue(f"same-{kind}", queue_type=kind)
        rabbitmq.publish(f"same-{kind}", 4)
    rabbitmq.queue('say "hi" \\ there')
    names = (
        "rabbitmq_queue_messages_ready",
        "rabbitmq_queue_messages_unacked",
        "rabbitmq_queue_messages",
        "rabbitmq_queue_consumers",
        "rabbitmq_queue_messages_ready_bytes",
        "rabbitmq_resident_memory_limit_bytes",
        "rabbitmq_process_max_fds",
        "rabbitmq_erlang_processes_limit",
        "rabbitmq_disk_space_available_limit_bytes",
        "rabbitmq_alarms_memory_used_watermark",
        "rabbitmq_queues",
    )
    with collector(rabbitmq.url) as api, collector(rabbitmq.native_url) as native:

        def alike(samples: Samples) -> bool:
            other = collect(api)[0]
            return all(samples.get(name) == other.get(name, {}) for name in names)

        samples = when(native, alike, "both tell the same")
        other, _ = collect(api)

    assert samples["rabbitmq_queue_messages_ready"]["/", "same-quorum"] == 4
    assert samples["rabbitmq_queue_messages_ready"]["/", 'say "hi" \\ there'] == 0
    assert samples["messaging_backlog_messages"]["rabbitmq", "same-classic", ""] == 4
    assert ("rabbitmq", "same-stream", "") not in samples["messaging_backlog_messages"]
    [ours], [theirs] = other["rabbitmq_identity_info"], samples["rabbitmq_identity_info"]
    assert ours[:2] == theirs[:2]
    assert (ours[3], theirs[3]) == ("management", "aggregated")


def test_the_queues_of_a_node_are_filtered_as_those_of_a_cluster_are(rabbitmq: Broker) -> None:
    """Filters work by virtual host and name."""
    rabbitmq.queue("kept-by-the-node")
    rabbitmq.queue("not-kept-by-the-node")
    with collector(rabbitmq.native_url, queues_include=re.compile("^kept-by-the-node")) as made:
        samples = when(
            made, lambda found: "rabbitmq_queue_consumers" in found, "the queue has statistics"
        )

    assert {key[1] for key in samples["rabbitmq_queue_messages_ready"]} == {"kept-by-the-node"}


def test_beside_the_management_api_the_node_adds_what_only_it_has(rabbitmq: Broker) -> None:
    """With `native`, metrics of Erlang and Raft are added, and each metric has one source."""
    native = Url.from_setting(rabbitmq.native_url)
    with collector(rabbitmq.url) as alone, collector(rabbitmq.url, native=native) as made:
        samples = when(made, lambda found: found.keys() >= collect(alone)[0].keys(), "all is there")
        without, _ = collect(alone)

    assert len(samples["rabbitmq_identity_info"]) == 1
    for name in ("erlang_vm_memory_bytes_total", "rabbitmq_raft_term_total"):
        assert name in samples
        assert name not in without
    assert samples["rabbitmq_node_running"] == without["rabbitmq_node_running"]
    assert samples["rabbitmq_queue_info"].keys() == without["rabbitmq_queue_info"].keys()
    assert "process_open_fds" not in samples


# AMQP


@pytest.fixture
def held(rabbitmq: Broker) -> Iterator[str]:
    """Return an exclusive queue of another connection."""
    port = rabbitmq.amqp
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)) as connection:
        connection.channel().queue_declare("held", exclusive=True)
        yield "held"


def test_over_amqp_named_queues_have_depth_and_consumers(rabbitmq: Broker, held: str) -> None:
    """Depths over AMQP are current, and a missing queue differs from an empty one."""
    rabbitmq.queue("asked")
    rabbitmq.publish("asked", 3)
    with collector(rabbitmq.amqp_url, declare=("asked", "nowhere", held)) as made:
        for _ in range(2):
            samples, failure = collect(made)

            assert failure is None
            assert samples["rabbitmq_up"] == {(): 1}
            assert samples["rabbitmq_queue_exists"] == {
                ("/", "asked"): 1,
                ("/", "nowhere"): 0,
                ("/", held): 1,
            }
            assert samples["rabbitmq_queue_messages_ready"] == {("/", "asked"): 3}
            assert samples["rabbitmq_queue_consumers"] == {("/", "asked"): 0}
            assert samples["messaging_backlog_messages"] == {("rabbitmq", "asked", ""): 3}


def test_over_amqp_no_permission_is_needed_but_that_of_the_virtual_host(rabbitmq: Broker) -> None:
    """A user without any permission can read depths over AMQP."""
    rabbitmq.queue("looked-at")
    rabbitmq.user("looker", "x", "")
    url = rabbitmq.amqp_url.replace("//", "//looker:x@")
    with collector(url, declare=("looked-at",)) as made:
        samples, failure = collect(made)
        assert failure is not None
        assert failure.reason == "noperm"
        assert "rabbitmqctl set_permissions" in str(failure)
        assert samples == {"rabbitmq_up": {(): 0}}

        nothing = {"configure": "^$", "write": "^$", "read": "^$"}
        rabbitmq.api("permissions/%2F/looker", "PUT", nothing)
        samples, failure = collect(made)

    assert failure is None
    assert samples["rabbitmq_queue_exists"] == {("/", "looked-at"): 1}


def test_over_amqp_a_wrong_password_is_an_error_of_its_own(rabbitmq: Broker) -> None:
    """A wrong password over AMQP has the reason `auth`."""
    url = rabbitmq.amqp_url.replace("//", "//guest:wr0ng@")
    with collector(url, declare=("any",)) as made:
        samples, failure = collect(made)

    assert failure is not None
    assert failure.reason == "auth"
    assert "wr0ng" not in str(failure)
    assert samples == {"rabbitmq_up": {(): 0}}


def test_over_amqp_a_frozen_broker_is_down_in_time_and_up_when_it_thaws(rabbitmq: Broker) -> None:
    """A stopped process is reported as down in time, and as up when it continues."""
    rabbitmq.queue("frozen")
    with collector(rabbitmq.amqp_url, declare=("frozen",)) as made:
        assert collect(made)[1] is None
        rabbitmq.process.freeze()
        try:
            for _ in range(2):
                samples, failure = collect(made, 1.0)
                assert failure is not None
                assert failure.reason == "timeout"
                assert samples == {"rabbitmq_up": {(): 0}}
        finally:
            rabbitmq.process.thaw()
        wait_until(lambda: collect(made)[1] is None, "it is up again")


def test_over_amqp_a_connection_that_the_broker_closes_is_opened_again(rabbitmq: Broker) -> None:
    """After a restart of the broker the connection is opened again."""
    rabbitmq.queue("reopened")
    with collector(rabbitmq.amqp_url, declare=("reopened",)) as made:
        assert collect(made)[1] is None
        rabbitmq.ctl("close_all_connections", "test")

        wait_until(lambda: collect(made)[1] is None, "it is up again")
        assert collect(made)[0]["rabbitmq_queue_exists"] == {("/", "reopened"): 1}
