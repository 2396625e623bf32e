"""Server metrics, with real servers of all available versions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import redis

from bts_exporter import testing
from servers import free_port, wait_until
from servers.redis import MakeCollector, MakeRedis, RedisServer
from servers.redis_groups import MASTER, MakeSentinel
from servers.redis_versions import PROGRAMS, program

pytestmark = pytest.mark.live

#: Starts a server of the version that the test is run for, with further arguments.
MakeAny = Callable[..., RedisServer]

#: Commands that every server answers, besides INFO.
EVERYWHERE = {("config|get",), ("slowlog|len",), ("slowlog|get",), ("latency|latest",)}
#: A family of each of these commands.
BESIDE_INFO = {
    "redis_config_maxclients",
    "redis_slowlog_length",
    "redis_slowlog_last_id",
    "redis_latency_spike_last",
    "redis_clients",
}
#: A loop that takes milliseconds.
SLOW = "for i = 1, 3000000 do end"


@pytest.fixture(params=PROGRAMS)
def make_any(request: pytest.FixtureRequest, make_redis: MakeRedis) -> MakeAny:
    """Give a factory of servers, for every version in turn."""
    return partial(make_redis, program=program(request.param))


def version(client: redis.Redis) -> tuple[int, ...]:
    """Return the server's version, that of the Redis which it is compatible with."""
    return tuple(map(int, client.info("server")["redis_version"].split(".")))


def refusals(client: redis.Redis) -> int:
    """Return how many refusals are in the server's log."""
    return sum(int(entry["count"]) for entry in client.acl_log())


def test_a_default_scrape(any_redis: RedisServer, redis_collector: MakeCollector) -> None:
    """Every version has the metrics of the dashboards, and refuses no command."""
    client = any_redis.client
    client.set("key", "value", ex=1000)
    collector = redis_collector(any_redis.url)
    testing.collect(collector)

    samples = testing.collect(collector)

    info = client.info()
    (identity,) = samples["redis_instance_info"]
    assert (identity[1], identity[3]) == (info["redis_version"], "standalone")
    assert identity[-1] == info.get("valkey_version", "")
    assert samples["redis_up"] == {(): 1}
    assert samples["redis_config_maxclients"] == {(): 10000}
    assert samples["redis_config_client_output_buffer_limit_bytes"]["pubsub", "hard"] == 33554432
    assert samples["redis_slowlog_length"] == {(): 0}
    assert samples["redis_db_keys"] == {(f"db{n}",): int(n == 0) for n in range(16)}
    assert samples["redis_commands_total"]["set",] == 1
    assert samples["redis_commands_failed_calls_total"]["set",] == 0
    assert samples["redis_memory_used_bytes"][()] > 0
    assert samples["redis_exporter_command_supported"].keys() >= EVERYWHERE
    assert set(samples["redis_exporter_command_supported"].values()) == {1}
    assert client.info("errorstats") == {}
    assert all(map(math.isfinite, (v for rows in samples.values() for v in rows.values())))


def test_latencies(any_redis: RedisServer, redis_collector: MakeCollector) -> None:
    """Since Redis 7.0 every command has percentiles and a histogram, whose count is that of its calls."""
    for _ in range(3):
        any_redis.client.set("key", "value")

    samples = testing.collect(redis_collector(any_redis.url, latency_histograms=True))

    counted = {"redis_latency_percentiles_usec", "redis_commands_latencies_usec"} & samples.keys()
    assert len(counted) == (2 if version(any_redis.client) >= (7,) else 0)
    total = samples["redis_commands_duration_seconds_total"]["set",]
    for family in counted:
        assert samples[family]["_count", "set"] == 3
        assert samples[family]["_sum", "set"] == pytest.approx(total * 1e6)


def test_clients(any_redis: RedisServer, redis_collector: MakeCollector) -> None:
    """Connections are counted by their names, ours and those of the test."""
    library = "mine" if version(any_redis.client) >= (7, 2) else ""
    with redis.Redis(
        port=any_redis.port, client_name="worker", single_connection_client=True
    ) as library_client:
        if library:
            library_client.execute_command("CLIENT", "SETINFO", "LIB-NAME", library)

        samples = testing.collect(redis_collector(any_redis.url, clients=True))

    assert samples["redis_clients"]["worker", "default", library] == 1
    assert samples["redis_clients"]["bts-exporter", "default", ""] == 1


def test_slow_commands(make_any: MakeAny, redis_collector: MakeCollector) -> None:
    """A slow command is visible in slow log and latency metrics, without its arguments."""
    server = make_any("--latency-monitor-threshold", "1", "--slowlog-log-slower-than", "1000")
    server.client.eval(SLOW, 0)

    samples = testing.collect(redis_collector(server.url))

    assert samples["redis_slowlog_length"][()] >= 1
    assert samples["redis_slowlog_last_id"][()] == samples["redis_slowlog_length"][()] - 1
    assert samples["redis_last_slow_execution_duration_seconds"][()] >= 0.001
    assert samples["redis_latency_spike_duration_seconds"]["command",] >= 0.001
    assert samples["redis_latency_spike_last"]["command",] == pytest.approx(
        server.client.time()[0], abs=60
    )


# Before 7.0 the port of the cluster's bus cannot be chosen, and may be none or in use.
@pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - {"redis-6.2"}))
def test_a_node_of_a_cluster(
    make_redis: MakeRedis, redis_collector: MakeCollector, name: str
) -> None:
    """The state of the cluster is emitted, whether the version has it in INFO or in CLUSTER INFO."""
    bus = ("--cluster-port", str(free_port()))
    server = make_redis("--cluster-enabled", "yes", *bus, program=program(name))
    server.client.cluster("ADDSLOTS", *range(100))

    samples = testing.collect(redis_collector(server.url))

    assert samples["redis_cluster_enabled"] == {(): 1}
    assert samples["redis_cluster_state"] == {(): 0}
    assert samples["redis_cluster_known_nodes"] == {(): 1}
    assert samples["redis_cluster_slots_assigned"] == {(): 100}
    assert samples["redis_cluster_messages_sent_total"] == {(): 0}


def test_a_user_with_permission_for_info_only(
    make_any: MakeAny, redis_collector: MakeCollector
) -> None:
    """A denied command costs its own families, and is in the server's log once for many scrapes."""
    server = make_any()
    server.client.execute_command(
        "ACL", "SETUSER", "bts", "on", "nopass", "-@all", "+info", "+client|setname"
    )
    collector = redis_collector(
        f"redis://bts@127.0.0.1:{server.port}", "x", clients=True, latency_histograms=True
    )

    testing.collect(collector)
    logged = refusals(server.client)
    for _ in range(3):
        samples = testing.collect(collector)

    denied = samples["redis_exporter_command_supported"]
    assert denied == dict.fromkeys(EVERYWHERE | denied.keys() | {("client|list",)}, 0)
    assert samples["redis_up"] == {(): 1}
    assert samples["redis_exporter_last_scrape_error"] == {("",): 0}
    assert not BESIDE_INFO & samples.keys()
    assert refusals(server.client) == logged


def test_a_replica_that_falls_behind(make_redis: MakeRedis, redis_collector: MakeCollector) -> None:
    """The replica's lag in bytes is what it has not acknowledged, and small after it has caught up."""
    primary = make_redis("--repl-diskless-sync-delay", "0")
    replica = make_redis("--replicaof", "127.0.0.1", str(primary.port))
    wait_until(lambda: primary.client.wait(1, 100), "the replica is in sync")
    collector = redis_collector(primary.url)
    who = ("127.0.0.1", str(replica.port), "online")
    wait_until(
        lambda: who in testing.collect(collector).get("redis_replica_lag_bytes", {}), "online"
    )
    replica.freeze()
    primary.client.set("key", "x" * 100_000)

    behind = testing.collect(collector)["redis_replica_lag_bytes"][who]

    replica.thaw()
    assert behind >= 100_000
    wait_until(
        lambda: testing.collect(collector)["redis_replica_lag_bytes"].get(who, behind) < 1000,
        "the replica has caught up",
    )


def test_a_sentinel(
    make_redis: MakeRedis, make_sentinel: MakeSentinel, redis_collector: MakeCollector
) -> None:
    """A Sentinel's metrics describe its primary, without secrets."""
    primary = make_redis("--requirepass", "hush")
    sentinel = make_sentinel(primary, f"sentinel auth-pass {MASTER} hush")
    collector = redis_collector(sentinel.url)

    for _ in range(2):
        samples = testing.collect(collector)

    mine = (MASTER, f"127.0.0.1:{primary.port}")
    assert samples["redis_sentinel_masters"] == {(): 1}
    assert samples["redis_sentinel_master_status"] == {(*mine, "ok"): 1}
    assert samples["redis_sentinel_master_ckquorum_status"] == {(MASTER,): 1}
    assert samples["redis_sentinel_master_setting_ckquorum"] == {mine: 1}
    assert samples["redis_sentinel_master_ok_sentinels"] == {mine: 1}
    assert "hush" not in repr(samples)
