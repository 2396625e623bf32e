"""The Redis collector and a cluster: each key once, whatever node has it, and whatever happens to one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.crc import key_slot

from bts_exporter import testing
from servers import wait_until
from servers.redis import (
    MakeCollector,
    RedisServer,
    calls,
    failure,
    ports_of,
    reason_when_stopped,
)
from servers.redis_groups import RedisCluster
from servers.redis_proxy import MakeProxy

pytestmark = pytest.mark.live

#: Names that are spread over the three primaries of a cluster.
SPREAD = ("a", "b", "c", "{b}d", "e", "f")
SIZES = {("db0", name): size for size, name in enumerate(SPREAD, 1)}
LAGS = {("db0", f"s:{name}", "g"): 1 for name in SPREAD}
SETTINGS: dict[str, Any] = {
    "cluster": True,
    "keys": ("a", "b", "[c-f]", "{b}*"),
    "streams": ("s:a", "s:*"),
}


@pytest.fixture
def filled(redis_cluster: RedisCluster) -> RedisCluster:
    """Give a cluster with a list and a stream of one group under each of the names, on all primaries."""
    for size, name in enumerate(SPREAD, 1):
        redis_cluster.owner(name).client.rpush(name, *range(size))
        stream = redis_cluster.owner(f"s:{name}").client
        stream.xadd(f"s:{name}", {"n": 1})
        stream.xgroup_create(f"s:{name}", "g", "0")
    redis_cluster.wait_for_replicas()
    return redis_cluster


def keys_of(samples: testing.Samples) -> tuple[dict[Any, float], dict[Any, float]]:
    """Return the sizes of lists and the lags of groups."""
    return samples["redis_key_size"], samples["redis_stream_group_lag"]


@pytest.mark.parametrize("place", range(4))
def test_each_key_of_a_cluster_once(
    filled: RedisCluster, redis_collector: MakeCollector, place: int
) -> None:
    """Keys of all primaries are served once, whichever node the address names, also a replica."""
    node = filled.nodes[place]

    samples = testing.collect(redis_collector(node.url, **SETTINGS))

    assert keys_of(samples) == (SIZES, LAGS)
    assert ports_of(samples) == {str(node.port)}
    up = {(f"127.0.0.1:{primary.port}",): 1 for primary in filled.primaries()}
    assert samples["redis_cluster_node_up"] == up


def test_names_of_a_cluster_are_looked_for_on_replicas(
    filled: RedisCluster, redis_collector: MakeCollector
) -> None:
    """If a primary has a replica, SCAN runs there."""
    first, *_ = filled.nodes

    samples = testing.collect(redis_collector(first.url, **SETTINGS))

    assert keys_of(samples) == (SIZES, LAGS)
    assert calls(first.client, "scan") == 0


def test_a_key_elsewhere(filled: RedisCluster, redis_collector: MakeCollector) -> None:
    """Without `cluster` only the keys of the node are served, and an error names the setting for the others."""
    node = filled.owner("a")

    samples, error = failure(redis_collector(node.url, keys=SPREAD))

    assert "`cluster: true` reads all nodes" in str(error)
    own = {labels: size for labels, size in SIZES.items() if filled.owner(labels[1]) is node}
    assert samples["redis_key_size"] == own


def test_no_cluster(redis_server: RedisServer, redis_collector: MakeCollector) -> None:
    """A server outside a cluster is served, and an error says that the setting is wrong."""
    redis_server.client.rpush("queue", 1)

    samples, error = failure(redis_collector(redis_server.url, cluster=True, keys=("queue",)))

    assert "leave `cluster` out" in str(error)
    assert samples["redis_key_size"] == {("db0", "queue"): 1}


@contextmanager
def moving(cluster: RedisCluster, key: str) -> Iterator[Callable[[], None]]:
    """Give a function that moves a key while its slot is migrating; everything is moved back after the test."""
    source = cluster.owner(key)
    target = next(node for node in cluster.primaries() if node is not source)
    slot = key_slot(key.encode())

    def set_slot(node: RedisServer, *words: object) -> None:
        node.client.execute_command("CLUSTER", "SETSLOT", slot, *words)

    def move(there: RedisServer, here: RedisServer) -> None:
        set_slot(there, "IMPORTING", cluster.id_of(here))
        set_slot(here, "MIGRATING", cluster.id_of(there))
        names = here.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
        here.client.execute_command(
            *("MIGRATE", "127.0.0.1", there.port, "", 0, 20_000, "KEYS", *names)
        )

    def settle(owner: RedisServer) -> None:
        for node in cluster.primaries():
            set_slot(node, "NODE", cluster.id_of(owner))

    move(target, source)
    try:
        yield lambda: settle(target)
    finally:
        settle(target)
        move(source, target)
        settle(source)


def test_a_slot_that_moves(filled: RedisCluster, redis_collector: MakeCollector) -> None:
    """While a slot migrates, and afterwards, its keys are served in every scrape."""
    collector = redis_collector(filled.nodes[0].url, **SETTINGS)
    assert keys_of(testing.collect(collector)) == (SIZES, LAGS)

    with moving(filled, "b") as settle:
        on_its_way = testing.collect(collector)
        settle()
        settled = [testing.collect(collector) for _ in range(2)]

    assert keys_of(on_its_way) == (SIZES, LAGS)
    assert [keys_of(samples) for samples in settled] == [(SIZES, LAGS)] * 2


def test_a_failover_within_a_cluster(filled: RedisCluster, redis_collector: MakeCollector) -> None:
    """When a replica becomes the primary, and back, keys are served from there."""
    collector = redis_collector(filled.nodes[1].url, **SETTINGS)
    testing.collect(collector)
    for place, before in ((3, 0), (0, 3)):
        replica, primary = filled.nodes[place], filled.nodes[before]
        filled.wait_for_replicas()
        replica.client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
        assert keys_of(testing.collect(collector)) == (SIZES, LAGS)
        wait_until(lambda: primary.client.role()[0] == b"slave", "the other has stepped back", 60)  # noqa: B023
        assert keys_of(testing.collect(collector)) == (SIZES, LAGS)


@pytest.mark.parametrize("place", [0, 1])
def test_a_node_that_hangs(
    filled: RedisCluster, redis_collector: MakeCollector, place: int
) -> None:
    """A primary that hangs costs its own keys, in bounded time; also if it is the address's own."""
    collector = redis_collector(filled.nodes[0].url, **SETTINGS)
    testing.collect(collector)
    hanging = filled.nodes[place]
    own = {labels for labels in SIZES if filled.owner(labels[1]) is hanging}
    hanging.freeze()
    try:
        samples, error = failure(collector, seconds=5)
    finally:
        hanging.thaw()

    assert error.reason == "timeout"
    assert own
    assert samples["redis_key_size"].keys() == SIZES.keys() - own
    assert samples["redis_up"] == {(): place != 0}
    nodes = samples["redis_cluster_node_up"]
    assert [node for (node,), up in nodes.items() if not up] == [f"127.0.0.1:{hanging.port}"]
    assert keys_of(testing.collect(collector)) == (SIZES, LAGS)


def test_stop_ends_a_collection_from_a_cluster(
    filled: RedisCluster, redis_collector: MakeCollector
) -> None:
    """A collection that waits for a frozen node of a cluster ends as soon as the collector is stopped."""
    collector = redis_collector(filled.nodes[0].url, **SETTINGS)
    testing.collect(collector)
    filled.nodes[1].freeze()
    try:
        assert reason_when_stopped(collector) == "unreachable"
    finally:
        filled.nodes[1].thaw()


@pytest.mark.parametrize(
    "name", ["", "a", "{a}b", "a{b}c{d}", "{}a", "{", "a}b{c", "größe", "{{a}}"]
)
def test_slots_are_the_servers(filled: RedisCluster, name: str) -> None:
    """The slot of a name is equal to the server's."""
    slot = filled.nodes[0].client.execute_command("CLUSTER", "KEYSLOT", name)

    assert key_slot(name.encode()) == slot


@pytest.mark.parametrize("preferred", ["hostname", "unknown-endpoint"])
def test_nodes_that_do_not_tell_their_address(
    filled: RedisCluster, redis_collector: MakeCollector, preferred: str
) -> None:
    """Nodes that announce `?` or no address are reached at the host of `url`."""
    names = "cluster-preferred-endpoint-type"
    for node in filled.nodes:
        node.client.config_set(names, preferred)
    try:
        samples = testing.collect(redis_collector(filled.nodes[0].url, **SETTINGS))
    finally:
        for node in filled.nodes:
            node.client.config_set(names, "ip")

    assert keys_of(samples) == (SIZES, LAGS)
    assert set(samples["redis_cluster_node_up"].values()) == {1}


def test_nodes_with_host_names(filled: RedisCluster, redis_collector: MakeCollector) -> None:
    """Nodes that announce host names are reached at these."""
    for node in filled.nodes:
        node.client.config_set("cluster-announce-hostname", "localhost")
        node.client.config_set("cluster-preferred-endpoint-type", "hostname")
    first = filled.nodes[0].client

    def all_named() -> bool:
        slots = first.execute_command("CLUSTER", "SLOTS")
        return all(primary[0] in {b"localhost", "localhost"} for _, _, primary, *_ in slots)

    try:
        wait_until(all_named, "the nodes know each other's names")
        samples = testing.collect(redis_collector(filled.nodes[0].url, **SETTINGS))
    finally:
        for node in filled.nodes:
            node.client.config_set("cluster-preferred-endpoint-type", "ip")
            node.client.config_set("cluster-announce-hostname", "")

    assert keys_of(samples) == (SIZES, LAGS)
    assert all(node.startswith("localhost:") for (node,) in samples["redis_cluster_node_up"])


@pytest.mark.parametrize("reply", [b"*2147483647\r\n", b"-ERR go away\r\n", b":7\r\n", b""])
def test_a_node_that_does_not_tell_the_slots(
    filled: RedisCluster, redis_proxy: MakeProxy, redis_collector: MakeCollector, reply: bytes
) -> None:
    """A node that sends an odd reply to CLUSTER SLOTS, or closes the connection, is up, and its redirections are followed."""

    def answer(client: socket.socket) -> bool:
        client.sendall(reply)
        return bool(reply)

    port = redis_proxy(filled.nodes[0].port, "CLUSTER SLOTS", answer)
    collector = redis_collector(f"redis://127.0.0.1:{port}", cluster=True, keys=("a", "b", "e"))

    assert "CLUSTER SLOTS" in str(failure(collector)[1])
    for _ in range(2):
        samples, _ = testing.look(collector)

        assert samples["redis_up"] == {(): 1}
        assert samples["redis_memory_used_bytes"][()] > 0
        assert {key: SIZES[key] for key in samples["redis_key_size"]} == samples["redis_key_size"]
