from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_exporter import Scrape, TargetError, Url, testing
from servers import wait_until
from servers.rabbitmq import RabbitMQ as Broker

pytestmark = pytest.mark.live


class Cluster(NamedTuple):
    """Two brokers that are one cluster."""

    one: Broker
    two: Broker


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster of two nodes, each with a queue; one message waits in each, and in a third."""
    one = Broker(tmp_path_factory.mktemp("one"))
    try:
        two = Broker(tmp_path_factory.mktemp("two"), peer=one)
        try:
            one.queue("on-one")
            two.queue("on-two")
            one.queue("on-both", queue_type="quorum")
            for name in ("on-one", "on-two", "on-both"):
                one.publish(name, 1, delivery_mode=2)
            yield Cluster(one, two)
        finally:
            two.stop()
    finally:
        one.stop()


@contextmanager
def collector(broker: Broker, **settings: object) -> Iterator[RabbitMQ]:
    """Return a collector that asks one node, and is stopped in the end."""
    config = COLLECTOR.Config(url=Url.from_setting(broker.url), **settings)  # type: ignore[arg-type]
    made = COLLECTOR(config)
    try:
        yield made
    finally:
        made.stop()


def when(
    made: RabbitMQ, condition: Callable[[testing.Samples], object], what: str
) -> testing.Samples:
    """Return the samples of the first collection of which `condition` holds."""
    found: testing.Samples = {}

    def holds() -> object:
        scrape = Scrape(monotonic() + 20)
        try:
            made.collect(scrape)
        except TargetError:
            return False
        found.clear()
        found.update(testing.samples(made, scrape))
        return condition(found)

    wait_until(holds, what, seconds=60)
    return found


def backlog(samples: testing.Samples) -> dict[str, float]:
    """Return what waits, by queue."""
    return {key[1]: value for key, value in samples.get("messaging_backlog_messages", {}).items()}


def test_every_node_answers_for_the_whole_cluster(cluster: Cluster) -> None:
    """Each node reports the whole cluster with its own identity."""
    for broker in cluster:
        with collector(broker) as made:
            samples = when(
                made,
                lambda found: backlog(found) == {"on-one": 1, "on-two": 1, "on-both": 1},
                "all queues are there",
            )

        running = {(cluster.one.node,): 1, (cluster.two.node,): 1}
        assert samples["rabbitmq_node_running"] == running
        assert [key[0] for key in samples["rabbitmq_identity_info"]] == [broker.node]
        assert samples["rabbitmq_queues"] == {(): 3}
        links = {key[:2]: state for key, state in samples["erlang_vm_dist_node_state"].items()}
        one, two = (broker.node for broker in cluster)
        assert links == {(one, two): 3, (two, one): 3}


def test_nodes_that_answer_for_themselves_add_up_to_the_cluster(cluster: Cluster) -> None:
    """With `scope: node`, each queue is reported by the node that leads it."""
    shown = []
    for broker in cluster:
        with collector(broker, scope="node") as made:
            samples = when(made, lambda found: len(backlog(found)) >= 1, "its queues are there")
        shown += list(backlog(samples))

        assert samples["rabbitmq_node_running"] == {(broker.node,): 1}
        assert "rabbitmq_queues" not in samples

    assert sorted(shown) == ["on-both", "on-one", "on-two"]


def test_nodes_add_up_where_no_details_are_asked_for(cluster: Cluster) -> None:
    """Sums over nodes are also correct if only depths are listed."""
    cluster.one.queue("log", queue_type="stream")
    shown = []
    for broker in cluster:
        with collector(broker, scope="node", max_detailed_queues=1) as made:
            testing.collect(made, 20)
            samples = testing.collect(made, 20)
        shown += [name for _, name, *_ in samples["rabbitmq_queue_info"]]
        assert samples["rabbitmq_build_info"].keys() == {
            key for key in samples["rabbitmq_build_info"] if key[-1] == broker.node
        }
    cluster.one.api("queues/%2F/log", "DELETE")

    assert sorted(shown) == ["log", "on-both", "on-one", "on-two"]


def test_a_node_that_is_down_shows_as_such_and_the_other_is_served(cluster: Cluster) -> None:
    """Queues of a node that is down have no numbers, and remaining replicas are counted."""
    two = cluster.two.node
    with collector(cluster.one) as made:
        when(made, lambda found: len(backlog(found)) == 3, "all queues are there")
        cluster.two.process.kill()
        samples = when(
            made, lambda found: found["rabbitmq_node_running"].get((two,)) == 0, "the node is down"
        )
        samples = when(
            made,
            lambda found: found["rabbitmq_queue_members_online"].get(("/", "on-both")) == 1,
            "a replica is missing",
        )

    assert samples["rabbitmq_up"] == {(): 1}
    assert samples["rabbitmq_node_running"] == {(cluster.one.node,): 1, (two,): 0}
    links = {key[:2]: state for key, state in samples["erlang_vm_dist_node_state"].items()}
    assert links == {(cluster.one.node, two): 0}
    assert (two,) not in samples["rabbitmq_process_resident_memory_bytes"]
    assert (two,) not in samples["rabbitmq_alarms_memory_used_watermark"]
    assert samples["rabbitmq_queue_members"]["/", "on-both"] == 2
    assert backlog(samples)["on-one"] == 1
    assert "on-two" not in backlog(samples)
    states = {key[1]: key[2] for key in samples["rabbitmq_queue_state"]}
    assert states["on-two"] in {"down", "stopped"}
