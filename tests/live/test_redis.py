"""The Redis collector against redis-server."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from bts_collectors.redis.keyspace import scanner
from bts_exporter import testing
from servers import wait_until
from servers.redis import MakeCollector, MakeRedis, RedisServer, calls

pytestmark = pytest.mark.live


def test_known_depths(redis_server: RedisServer, redis_collector: MakeCollector) -> None:
    """The sizes of lists, sets, sorted sets, hashes, streams and strings are correct."""
    client = redis_server.client
    client.rpush("queue", 1, 2, 3)
    client.sadd("set", 1, 2)
    client.zadd("zset", {"a": 1})
    client.hset("hash", mapping={"a": 1, "b": 2, "c": 3, "d": 4})
    client.set("string", "hello")
    for _ in range(6):
        client.xadd("stream", {"a": 1})

    samples = testing.collect(
        redis_collector(redis_server.url, keys=("queue", "none", "*s*"), streams=("st*",))
    )

    assert samples["redis_key_size"] == {
        ("db0", "queue"): 3,
        ("db0", "none"): 0,
        ("db0", "set"): 2,
        ("db0", "zset"): 1,
        ("db0", "hash"): 4,
        ("db0", "string"): 5,
        ("db0", "stream"): 6,
    }
    assert samples["redis_stream_length"] == {("db0", "stream"): 6}
    assert samples["messaging_published_messages_total"] == {("redis", "stream", ""): 6}
    assert samples["redis_exporter_discovered_names"] == {("keys",): 7, ("streams",): 1}
    assert samples["redis_exporter_discovery_truncated"] == {("keys",): 0, ("streams",): 0}


def test_info(redis_server: RedisServer, redis_collector: MakeCollector) -> None:
    """The fields of INFO are served under the names that dashboards use."""
    client = redis_server.client
    client.set("a", 1)
    client.set("b", 1, ex=1000)
    client.get("a")
    client.get("missing")
    with pytest.raises(redis.ResponseError):
        client.lpush("a", 1)

    samples = testing.collect(redis_collector(redis_server.url))

    assert samples["redis_up"] == {(): 1}
    assert samples["redis_exporter_last_scrape_error"] == {("",): 0}
    assert samples["redis_db_keys"] == {(f"db{n}",): 2 if n == 0 else 0 for n in range(16)}
    assert samples["redis_db_keys_expiring"][("db0",)] == 1
    assert samples["redis_keyspace_hits_total"] == {(): 1}
    assert samples["redis_keyspace_misses_total"] == {(): 1}
    assert samples["redis_commands_total"][("set",)] == 2
    assert samples["redis_commands_failed_calls_total"][("lpush",)] == 1
    assert samples["redis_errors_total"] == {("WRONGTYPE",): 1}
    assert samples["redis_memory_used_bytes"][()] > 0
    info = client.info()
    assert samples["redis_start_time_seconds"][()] == pytest.approx(
        info["server_time_usec"] / 1e6 - info["uptime_in_seconds"], abs=2
    )


def test_the_collector_causes_no_errors_in_the_server(
    redis_server: RedisServer, redis_collector: MakeCollector
) -> None:
    """Missing keys and keys of other types do not count as errors in the server's statistics."""
    redis_server.client.rpush("list", 1)
    collector = redis_collector(redis_server.url, streams=("absent", "l*"), keys=("absent", "list"))
    for _ in range(3):
        testing.collect(collector)

    assert redis_server.client.info("errorstats") == {}


def test_database_of_the_address(redis_server: RedisServer, redis_collector: MakeCollector) -> None:
    """Keys and streams come from the database in the address, which is their label `db`."""
    redis_server.client.rpush("here", 1)
    other = redis.Redis(port=redis_server.port, db=3)
    other.rpush("there", 1)
    other.close()

    samples = testing.collect(redis_collector(f"{redis_server.url}/3", keys=("*here",)))

    assert samples["redis_key_size"] == {("db3", "there"): 1}


def test_names_of_any_bytes(redis_server: RedisServer, redis_collector: MakeCollector) -> None:
    """Names of streams and groups that are not UTF-8 are escaped."""
    redis_server.client.xadd(b"\xff", {b"\xfe": b"\x00"})
    redis_server.client.xgroup_create(b"\xff", b"\xfd", "0")

    samples = testing.collect(redis_collector(redis_server.url, streams=("*",)))

    assert samples["redis_stream_group_lag"] == {("db0", "\\xff", "\\xfd"): 1}


def test_new_names_are_found_in_the_background(
    redis_server: RedisServer, redis_collector: MakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was added after the first scrape is found between scrapes; one that became empty stays."""
    monkeypatch.setattr(scanner, "INTERVAL_SECONDS", 0)
    client = redis_server.client
    collector = redis_collector(redis_server.url, keys=("queue:*",))
    client.rpush("queue:a", 1)
    assert testing.collect(collector)["redis_key_size"] == {("db0", "queue:a"): 1}
    client.delete("queue:a")
    client.rpush("queue:b", 1, 2)

    wait_until(lambda: len(testing.collect(collector)["redis_key_size"]) == 2, "queue:b is found")

    assert testing.collect(collector)["redis_key_size"] == {
        ("db0", "queue:a"): 0,
        ("db0", "queue:b"): 2,
    }


def test_scrapes_do_not_scan(redis_server: RedisServer, redis_collector: MakeCollector) -> None:
    """Once names are known, a scrape reads them, and does not scan."""
    collector = redis_collector(redis_server.url, keys=("queue:*",))
    testing.collect(collector)
    before = calls(redis_server.client, "scan")
    for _ in range(3):
        testing.collect(collector)

    assert (before, calls(redis_server.client, "scan")) == (1, 1)


def test_the_connection_is_kept(redis_server: RedisServer, redis_collector: MakeCollector) -> None:
    """Scrapes share one connection, which CLIENT LIST shows by name, until stop closes it."""
    client = redis_server.client
    collector = redis_collector(redis_server.url)
    for _ in range(3):
        testing.collect(collector)

    def named() -> int:
        return sum(each["name"] == "bts-exporter" for each in client.client_list())

    assert named() == 1
    assert calls(client, "client|setname") == 1
    collector.stop()
    wait_until(lambda: named() == 0, "the connection is closed")


def test_a_replica_and_its_primary(make_redis: MakeRedis, redis_collector: MakeCollector) -> None:
    """Both sides of a replication emit metrics of the other side."""
    primary = make_redis("--repl-diskless-sync-delay", "0")
    replica = make_redis("--replicaof", "127.0.0.1", str(primary.port))
    wait_until(
        lambda: replica.client.info()["master_link_status"] == "up" and primary.client.wait(1, 100),
        "the replica is in sync",
    )

    above = testing.collect(redis_collector(primary.url))
    below = testing.collect(redis_collector(replica.url))

    labels = ("127.0.0.1", str(replica.port), "online")
    assert above["redis_connected_slaves"] == {(): 1}
    assert list(above["redis_connected_slave_offset_bytes"]) == [labels]
    assert list(above["redis_connected_slave_lag_seconds"]) == [labels]
    master = ("127.0.0.1", str(primary.port))
    assert below["redis_slave_info"] == {(*master, "1"): 1}
    assert below["redis_master_link_up"] == {master: 1}
    assert below["redis_slave_repl_offset"][master] >= 0
    (identity,) = below["redis_instance_info"]
    assert identity[0] == "slave"


def test_a_unix_socket(
    make_redis: MakeRedis, redis_collector: MakeCollector, tmp_path: Path
) -> None:
    """A server can be reached by its socket in the file system."""
    path = tmp_path / "redis.sock"
    server = make_redis("--unixsocket", str(path))
    server.client.rpush("queue", 1)

    samples = testing.collect(redis_collector(f"unix://{path}", keys=("queue",)))

    assert samples["redis_key_size"] == {("db0", "queue"): 1}
