"""The users that the documentation recommends, made on real servers: enough, and nothing too much."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from bts_collectors.redis.client.sentinel import SentinelSettings
from bts_collectors.redis.collector import RedisCollector
from bts_collectors.redis.queues.config import LibrarySettings, QueueSettings, WantedNames
from bts_exporter import Secret, TargetError, Url, testing
from servers import wait_until
from servers.redis import MakeRedis, RedisServer
from servers.redis_groups import MASTER, MakeSentinel, RedisCluster, Sentinel
from servers.redis_versions import PROGRAMS, program

pytestmark = pytest.mark.live

PAGE = (Path(__file__).parents[2] / "docs" / "collectors" / "redis.md").read_text()
LINES = re.findall(r"^(\S.+):\n\n```\n(ACL SETUSER .+)\n```$", PAGE, re.MULTILINE)
#: Which line is for which server.
HEADS = {
    "redis-6.2": "Redis 6.2",
    "redis-7.0": "Redis 7.0 and later",
    "redis-8.2": "Redis 7.0 and later",
    "valkey-9.1": "Valkey 8.1 and later",
}
#: All features.
QUEUES = QueueSettings(
    celery=LibrarySettings(),
    rq=LibrarySettings(),
    sidekiq=LibrarySettings(),
    bullmq=LibrarySettings(),
    dramatiq=LibrarySettings(),
    arq=WantedNames(),
    huey=WantedNames(),
    lists=("list*",),
    sets=("set",),
    zsets=("zset",),
)
NAMES = ("string", "list", "set", "zset", "hash", "s", "no*ne")

Make = Callable[..., RedisCollector]


def documented(version: str) -> list[str]:
    """Return the words of the line for a server, after the name of the user."""
    (line,) = (line for head, line in LINES if head.startswith(HEADS[version]))
    return line.replace("PASSWORD", "pw").split()[3:]


def also(feature: str) -> list[str]:
    """Return the further permissions of a feature in the table."""
    (cell,) = re.findall(rf"^\| {feature}.* \| `(\+[^`]+)`.*\|$", PAGE, re.MULTILINE)
    return str(cell).replace("\\|", "|").split()


def fill(client: redis.Redis) -> None:
    """Write a key of each kind, and a group whose lag must be counted."""
    client.set("string", "5")
    client.rpush("list", 1)
    client.sadd("set", 1)
    client.zadd("zset", {"a": 1})
    client.hset("hash", "a", "1")
    ids = [client.xadd("s", {"a": 1}) for _ in range(10)]
    client.xgroup_create("s", "g", "0")
    client.xreadgroup("g", "c", {"s": ">"}, count=4)
    client.xdel("s", ids[7])
    client.sadd("rq:queues", "rq:queue:a")
    client.rpush("rq:queue:a", "1")
    client.sadd("queues", "a")
    client.lpush("queue:a", "{}")
    client.hset("bull:a:meta", "a", "1")
    client.lpush("bull:a:wait", "1")
    client.hset("dramatiq:a.msgs", "1", "{}")
    client.rpush("dramatiq:a", "1")
    client.zadd("arq:queue", {"job": 1})
    client.zadd("huey.redis.a", {b"12345678a": 1})


@pytest.fixture
def make() -> Iterator[Make]:
    """Give a factory of collectors of user bts with all features; all are stopped after the test."""
    made: list[RedisCollector] = []

    def build(server: RedisServer, path: str = "/1", **settings: object) -> RedisCollector:
        url = Url.from_setting(server.url.replace("//", "//bts@") + path)
        config = RedisCollector.Config(
            url=url,
            password=Secret("pw"),
            clients=True,
            latency_histograms=True,
            streams=("s", "no*ne"),
            stream_consumers=True,
            keys=NAMES,
            key_memory=True,
            queues=QUEUES,
            **settings,  # type: ignore[arg-type]
        )
        made.append(RedisCollector(config))
        return made[-1]

    yield build
    for collector in made:
        collector.stop()


def denied(client: redis.Redis) -> set[str]:
    """Return the refusals since the log was reset."""
    return {entry["object"] for entry in client.acl_log()}


def collect_all(collector: RedisCollector) -> testing.Samples:
    """Collect until all names are known, and once more for their contents."""

    def is_complete() -> bool:
        known = testing.collect(collector)["redis_exporter_discovery_truncated"]
        return not any(known.values())

    wait_until(is_complete, "all keys were looked at")
    return testing.collect(collector)


@pytest.fixture(params=PROGRAMS)
def version(request: pytest.FixtureRequest) -> str:
    """Give each version, one after another."""
    name: str = request.param
    return name


@pytest.fixture
def server(make_redis: MakeRedis, version: str) -> RedisServer:
    """Give a server of the version with a key of each kind in database 1."""
    server = make_redis(program=program(version))
    client = redis.Redis(port=server.port, db=1)
    fill(client)
    client.close()
    return server


def set_user(server: RedisServer, words: list[str]) -> None:
    """Create the user again, and clear the log of refusals."""
    server.client.execute_command("ACL", "DELUSER", "bts")
    server.client.execute_command("ACL", "SETUSER", "bts", *words)
    server.client.acl_log_reset()


def sentinel_user(sentinel: Sentinel, permissions: list[str]) -> None:
    """Create the user of a sentinel again; a sentinel has no keys."""
    sentinel.client.execute_command("ACL", "DELUSER", "bts")
    words = ("on", ">pw", "resetchannels", "-@all", *permissions)
    sentinel.client.execute_command("ACL", "SETUSER", "bts", *words)
    sentinel.client.acl_log_reset()


def test_the_user_can_do_everything(server: RedisServer, version: str, make: Make) -> None:
    """All features work as the documented user, and the server refuses no command."""
    set_user(server, documented(version))

    samples = collect_all(make(server))

    assert denied(server.client) == set()
    assert samples["redis_exporter_last_scrape_error"] == {("",): 0}
    assert samples["redis_stream_group_lag"] == {("db1", "s", "g"): 5}
    libraries = {key[0] for key in samples["redis_queue_messages"]}
    assert libraries == {"", "celery", "rq", "sidekiq", "bullmq", "dramatiq", "arq", "huey"}
    assert len(samples["redis_key_memory_usage_bytes"]) == 6
    assert samples["redis_clients"]


def test_the_user_can_change_nothing(server: RedisServer, version: str) -> None:
    """The user may not write, configure, read strings, or list all keys."""
    set_user(server, documented(version))
    client = redis.Redis(port=server.port, username="bts", password="pw")
    script = "return redis.call('SET', KEYS[1], 1)"
    forbidden = [
        ("SET", "string", "1"),
        ("GET", "string"),
        ("DEL", "string"),
        ("EXPIRE", "string", "1"),
        ("LPUSH", "list", "1"),
        ("LPOP", "list"),
        ("XADD", "s", "*", "a", "1"),
        ("XACK", "s", "g", "0-1"),
        ("XGROUP", "DESTROY", "s", "g"),
        ("HGETALL", "hash"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("SLOWLOG", "RESET"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("SCRIPT", "FLUSH"),
        ("ACL", "LIST"),
        ("REPLICAOF", "NO", "ONE"),
        ("SHUTDOWN",),
    ]
    if version != "redis-6.2":  # which has no other way to run a script
        forbidden.append(("EVAL", "return 1", "0"))

    for words in forbidden:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*words)
    with pytest.raises(redis.ResponseError, match=r"(?i)permission|acl|can't run|not allowed"):
        client.execute_command("EVAL" if version == "redis-6.2" else "EVAL_RO", script, 1, "x")
    client.close()


def test_every_permission_is_needed(server: RedisServer, version: str, make: Make) -> None:
    """Each of the documented permissions is needed."""
    words = documented(version)
    needed = [word for word in words if word.startswith("+")]

    def is_missed(permission: str) -> bool:
        set_user(server, [word for word in words if word != permission])
        collector = make(server)

        def is_over() -> bool:
            # A refusal is a failure or none: it depends on the command.
            with suppress(TargetError):
                testing.collect(collector)
            return bool(denied(server.client))

        try:
            wait_until(is_over, f"{permission} is missed")
        except AssertionError:
            return False
        finally:
            collector.stop()
        return True

    assert [word for word in needed if not is_missed(word)] == []


def test_values_need_get(server: RedisServer, version: str, make: Make) -> None:
    """`key_values` works with the permission that the table names for it."""
    set_user(server, [*documented(version), *also("`key_values`")])

    samples = collect_all(make(server, key_values=True))

    assert denied(server.client) == set()
    assert samples["redis_key_value"] == {("db1", "string"): 5}


def test_a_cluster(redis_cluster: RedisCluster, make: Make) -> None:
    """In a cluster the user needs the permissions that the table lists for clusters and replicas, on all nodes."""
    words = [*documented("redis-7.0"), *also("`cluster: true`"), *also("replicas")]
    for node in redis_cluster.nodes:
        set_user(node, words)
    client = redis.RedisCluster(host="127.0.0.1", port=redis_cluster.nodes[0].port)
    fill(client)
    client.close()

    samples = collect_all(make(redis_cluster.nodes[0], path="", cluster=True))

    assert [denied(node.client) for node in redis_cluster.nodes] == 4 * [set()]
    assert samples["redis_stream_group_lag"] == {("db0", "s", "g"): 5}
    assert sum(samples["redis_cluster_node_up"].values()) == 3
    for node in redis_cluster.nodes:
        node.client.execute_command("ACL", "DELUSER", "bts")


def test_a_replica_needs_readonly(make_redis: MakeRedis, version: str, make: Make) -> None:
    """For SCAN on a replica in a cluster, the user needs `readonly` there."""
    primary = make_redis("--repl-diskless-sync-delay", "0", program=program(version))
    at_primary = ("--replicaof", "127.0.0.1", str(primary.port))
    replica = make_redis(*at_primary, program=program(version))
    wait_until(
        lambda: replica.client.info()["master_link_status"] == "up" and primary.client.wait(1, 100),
        "the replica is in sync",
    )
    fill(primary.client)
    for server in (primary, replica):
        set_user(server, [*documented(version), *also("replicas")])

    collect_all(make(primary, path=""))

    assert denied(primary.client) == set()
    assert denied(replica.client) == set()
    assert replica.client.info("commandstats")["cmdstat_scan"]["calls"] > 0


def test_the_user_on_a_sentinel(
    make_redis: MakeRedis, make_sentinel: MakeSentinel, make: Make
) -> None:
    """On a sentinel, two short lists of permissions are enough: to find the master, and to monitor the sentinel."""
    master = make_redis()
    fill(master.client)
    set_user(master, documented("redis-7.0"))
    sentinel = make_sentinel(master)
    wait_until(lambda: sentinel.master_port() == master.port, "the sentinel knows its master")
    address = Url.from_setting(sentinel.url.replace("//", "//bts@"))
    finding = SentinelSettings(master=MASTER, addresses=(address,), password=Secret("pw"))
    sentinel_user(sentinel, also("`sentinel`"))

    samples = collect_all(make(master, path="", sentinel=finding))

    assert samples["redis_up"] == {(): 1}
    assert denied(sentinel.client) == set()
    sentinel_user(sentinel, also("a Sentinel"))
    watching = RedisCollector(RedisCollector.Config(url=address, password=Secret("pw")))
    samples = testing.collect(watching)
    watching.stop()
    assert samples["redis_sentinel_masters"] == {(): 1}
    assert len(samples["redis_sentinel_master_ckquorum_status"]) == 1
    assert denied(sentinel.client) == set()
