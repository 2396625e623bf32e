from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_collectors.rabbitmq.metrics import nodes, overview, queues
from bts_exporter import Scrape, TargetError, Url, testing
from servers.management import FakeManagement, answer

HERE = Path(__file__).parents[1]
CLUSTER = "shop"

USUAL = (overview.OBJECTS, overview.IN, overview.OUT, nodes.FIELDS, queues.GAUGES, queues.COUNTERS)

#: Names, labels and types that dashboards made for rabbitmq_exporter 1.0 rely on.
NAMES = {
    "cluster,node": "gauge rabbitmq_up",
    "rabbitmq,erlang,node,cluster": "gauge rabbitmq_version_info",
    "cluster": """gauge rabbitmq_channels rabbitmq_connections rabbitmq_consumers rabbitmq_queues
        rabbitmq_exchanges rabbitmq_queue_messages_global rabbitmq_queue_messages_ready_global
        rabbitmq_queue_messages_unacknowledged_global""",
    "cluster,node,self": """gauge rabbitmq_uptime rabbitmq_running rabbitmq_node_mem_used
        rabbitmq_node_mem_limit rabbitmq_node_mem_alarm rabbitmq_node_disk_free
        rabbitmq_node_disk_free_alarm rabbitmq_node_disk_free_limit rabbitmq_fd_used
        rabbitmq_fd_available rabbitmq_sockets_used rabbitmq_sockets_available
        rabbitmq_partitions""",
    "cluster,vhost,queue,durable,policy,self": """gauge rabbitmq_queue_messages
        rabbitmq_queue_messages_ready rabbitmq_queue_messages_unacknowledged
        rabbitmq_queue_messages_ram rabbitmq_queue_messages_persistent
        rabbitmq_queue_message_bytes rabbitmq_queue_message_bytes_ready
        rabbitmq_queue_message_bytes_unacknowledged rabbitmq_queue_memory
        rabbitmq_queue_consumers rabbitmq_queue_consumer_utilisation
        rabbitmq_queue_head_message_timestamp rabbitmq_queue_idle_since_seconds
        rabbitmq_queue_max_length rabbitmq_queue_member_nodes_len rabbitmq_queue_online_nodes_len
        counter rabbitmq_queue_messages_published_total rabbitmq_queue_messages_confirmed_total
        rabbitmq_queue_messages_delivered_total rabbitmq_queue_messages_delivered_noack_total
        rabbitmq_queue_messages_get_total rabbitmq_queue_messages_get_noack_total
        rabbitmq_queue_messages_redelivered_total rabbitmq_queue_messages_ack_total""",
    "cluster,vhost,queue,durable,policy,self,state": "gauge rabbitmq_queue_state",
    "cluster,vhost,exchange": """counter rabbitmq_exchange_messages_published_in_total
        rabbitmq_exchange_messages_published_out_total""",
}


def listed() -> set[tuple[str, str, str]]:
    """Return name, labels and type of all that is in the list."""
    found = set()
    for labels, words in NAMES.items():
        kind = ""
        for word in words.split():
            if word in {"gauge", "counter"}:
                kind = word
            else:
                found.add((word, labels, kind))
    return found


@pytest.fixture
def made(management: FakeManagement) -> Iterator[RabbitMQ]:
    """Return a collector with the other names, of a broker of 3.10."""
    management.serve(HERE / "responses" / "3.10")
    stats = {"publish_in": 5, "publish_out": 4}
    exchange = {"name": "amq.topic", "vhost": "/", "message_stats": stats}
    management.routes["/api/exchanges"] = answer([exchange])
    config = COLLECTOR.Config(url=Url.from_setting(management.url), compat="kbudde")
    collector = COLLECTOR(config, lambda: 1_700_000_600.0)
    yield collector
    collector.stop()


def test_the_names_are_those_of_the_other_exporter() -> None:
    """Names and labels are those of kbudde/rabbitmq_exporter, in its order."""
    metrics = COLLECTOR.kbudde_metrics
    found = {
        (metric.name, ",".join(metric.labels), str(metric.kind))
        for part in metrics
        for metric in (part.values() if isinstance(part, dict) else [part])
    }

    assert found == listed()


def test_they_stand_in_the_place_of_the_usual_ones(made: RabbitMQ) -> None:
    """No metric is served under both sets of names."""
    widths: dict[str, set[int]] = {}
    for name, labels, _ in listed():
        widths.setdefault(name, set()).add(labels.count(",") + 1)

    samples = testing.collect(made)

    assert {name: {len(key) for key in samples[name]} for name in samples if name in widths} == {
        name: width for name, width in widths.items() if name in samples
    }
    usual = {metric.name for table in USUAL for metric in table.values()}
    assert samples.keys() & usual <= widths.keys()


def test_their_values_are_what_they_mean_there(made: RabbitMQ) -> None:
    """`delivered` counts messages with manual acknowledgement, `delivered_noack` the others."""
    samples = testing.collect(made)
    orders = (CLUSTER, "/", "orders", "true", "limits", "1")

    assert samples["rabbitmq_up"] == {(CLUSTER, "rabbit@one"): 1}
    assert samples["rabbitmq_queue_messages_delivered_total"][orders] == 1
    auto_ack = (CLUSTER, "/", "blind", "true", "", "1")
    assert samples["rabbitmq_queue_messages_delivered_noack_total"][auto_ack] == 5
    assert samples["rabbitmq_queue_messages_ready"][orders] == 2
    assert samples["rabbitmq_uptime"] == {(CLUSTER, "rabbit@one", "1"): 17116}
    assert samples["rabbitmq_running"] == {(CLUSTER, "rabbit@one", "1"): 1}
    topic = (CLUSTER, "/", "amq.topic")
    assert samples["rabbitmq_exchange_messages_published_in_total"] == {topic: 5}
    assert samples["rabbitmq_exchange_messages_published_out_total"] == {topic: 4}


def test_the_common_vocabulary_and_what_it_lacks_are_there_all_the_same(made: RabbitMQ) -> None:
    """Metrics without a counterpart are still served."""
    samples = testing.collect(made)

    assert samples["messaging_backlog_messages"]["rabbitmq", "orders", ""] == 2
    assert samples["rabbitmq_queue_consumers_auto_ack"]["/", "blind"] == 1


@pytest.mark.parametrize(
    ("queue", "state", "value"),
    [
        ({"state": "running"}, "running", 1),
        ({"state": "running", "idle_since": "2026-01-02 3:04:05"}, "idle", 1),
        ({"state": "flow"}, "flow", 0),
        ({"state": "down", "node": "rabbit@two"}, "down", 0),
    ],
)
def test_a_queue_is_idle_running_or_in_trouble(
    management: FakeManagement, made: RabbitMQ, queue: dict[str, object], state: str, value: int
) -> None:
    """The state's value says whether it is healthy; `self` says whether the answering node has the queue."""
    found = {"name": "q", "vhost": "/", "node": "rabbit@one"} | queue
    management.routes["/api/queues"] = answer([found])

    samples = testing.collect(made)

    own = str(int(found["node"] == "rabbit@one"))
    key = (CLUSTER, "/", "q", "", "", own, state)
    assert samples["rabbitmq_queue_state"] == {key: value}


def test_a_broker_that_is_down_is_down_here_too(management: FakeManagement, made: RabbitMQ) -> None:
    """With compat, a broker that is down has rabbitmq_up 0 with unknown node and cluster."""
    management.routes["/api/overview"] = answer({}, 401)
    scrape = Scrape(monotonic() + 20)
    with pytest.raises(TargetError):
        made.collect(scrape)

    assert testing.samples(made, scrape) == {"rabbitmq_up": {("", ""): 0}}
