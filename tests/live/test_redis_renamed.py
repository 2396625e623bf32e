"""Commands that a server does not have: renamed, or not known to a fork or a managed service."""

from __future__ import annotations

import re
import socket

import pytest

from bts_collectors.redis.queues.config import CelerySettings, LibrarySettings, QueueSettings
from bts_exporter import testing
from servers.redis import MakeCollector, MakeRedis, RedisServer
from servers.redis_proxy import MakeProxy, Oddity

pytestmark = pytest.mark.live

_KEYS = {"redis_key_size", "redis_key_memory_usage_bytes", "redis_key_value"}
_STREAMS = {"redis_stream_length", "redis_stream_group_oldest_pending_deliveries"}
#: Command -> the metrics that are missing without it, and its name in the metric of unsupported commands.
RENAMED: dict[str, tuple[set[str], str]] = {
    "ACL": (set(), ""),
    "CLIENT": ({"redis_clients"}, "client|list"),
    "CONFIG": ({"redis_config_maxclients"}, "config|get"),
    "EVAL_RO": (set(), "eval_ro"),
    "GET": ({"redis_key_value"}, "get"),
    "LATENCY": (set(), "latency|latest"),
    "LLEN": (set(), "llen"),
    "MEMORY": ({"redis_key_memory_usage_bytes"}, "memory|usage"),
    "SCAN": (set(), "scan"),
    "SLOWLOG": ({"redis_slowlog_length"}, "slowlog|len"),
    "SMEMBERS": (set(), "smembers"),
    "TYPE": (_KEYS | _STREAMS, "type"),
    "XINFO": (_STREAMS, "xinfo|stream"),
    "XPENDING": ({"redis_stream_group_oldest_pending_deliveries"}, "xpending"),
}
SETTINGS = {
    "clients": True,
    "streams": ("stream", "streams*"),
    "keys": ("text", "list", "t*"),
    "key_memory": True,
    "key_values": True,
    "queues": QueueSettings(rq=LibrarySettings(), celery=CelerySettings(names=("celery",))),
}
#: Metrics that each depend on another command.
TOLD = {"redis_memory_used_bytes"}.union(*(costs for costs, _ in RENAMED.values()))


def fill(server: RedisServer) -> None:
    """Write data for every command."""
    client = server.client
    client.set("text", 5)
    client.rpush("list", 1)
    client.rpush("celery", 1)
    client.sadd("rq:queues", "rq:queue:mail")
    client.xadd("stream", {"n": 1})
    client.xgroup_create("stream", "group", "0")
    client.xreadgroup("group", "me", {"stream": ">"})


@pytest.mark.parametrize("command", RENAMED)
def test_a_renamed_command(
    make_redis: MakeRedis, redis_collector: MakeCollector, command: str
) -> None:
    """A renamed command costs only its own metrics: it is emitted as unsupported, and is not an error."""
    server = make_redis("--rename-command", command, "")
    fill(server)
    collector = redis_collector(server.url, **SETTINGS)
    costs, unsupported = RENAMED[command]

    for _ in range(2):
        samples = testing.collect(collector)

        assert samples["redis_up"] == {(): 1}
        assert TOLD - samples.keys() == costs
        if unsupported:
            assert samples["redis_exporter_command_supported"][(unsupported,)] == 0


@pytest.mark.parametrize("scripts", ["EVAL_RO", "WAIT"])
def test_ranges_that_were_renamed(
    make_redis: MakeRedis, redis_collector: MakeCollector, scripts: str
) -> None:
    """Without XRANGE a lag that must be counted is missing, with scripts and without, and the scrape succeeds."""
    server = make_redis(*("--rename-command", "XRANGE", "", "--rename-command", scripts, ""))
    ids = [server.client.xadd("stream", {"n": n}) for n in range(9)]
    server.client.xgroup_create("stream", "group", "0")
    server.client.xreadgroup("group", "me", {"stream": ">"}, count=4)
    server.client.xdel("stream", ids[6])
    collector = redis_collector(server.url, streams=("stream",))

    for _ in range(2):
        samples = testing.collect(collector)

        assert samples["redis_stream_length"] == {("db0", "stream"): 8}
        assert samples["redis_exporter_command_supported"]["xrange",] == 0


def answering_without(upstream: int, field: str) -> Oddity:
    """Return the behaviour of a server whose INFO lacks a field, and knows no section `everything`."""

    def behave(client: socket.socket) -> bool:
        with socket.create_connection(("127.0.0.1", upstream)) as server:
            server.sendall(b"*2\r\n$4\r\nINFO\r\n$3\r\nall\r\n")
            reply = b""
            while not (head := re.match(rb"\$(\d+)\r\n", reply)) or len(reply) < head.end() + int(
                head[1]
            ):
                reply += server.recv(65536)
        fields = reply[head.end() :].strip().split(b"\r\n")
        kept = b"\r\n".join(line for line in fields if not line.startswith(field.encode()))
        client.sendall(b"$%d\r\n%b\r\n" % (len(kept), kept))
        return True

    return behave


def test_a_fork_without_a_clock_in_info(
    redis_server: RedisServer, redis_proxy: MakeProxy, redis_collector: MakeCollector
) -> None:
    """If INFO lacks server_time_usec, as in some forks of Redis 7, ages use TIME."""
    fill(redis_server)
    behave = answering_without(redis_server.port, "server_time_usec")
    port = redis_proxy(redis_server.port, "INFO", behave)
    collector = redis_collector(f"redis://127.0.0.1:{port}", **SETTINGS)

    for _ in range(2):
        samples = testing.collect(collector)

        ages = samples["redis_stream_last_entry_age_seconds"]
        assert 0 <= ages["db0", "stream"] < 600


@pytest.mark.parametrize(
    "words",
    [
        "ERR unsupported command",
        "ERR Command is not available: 'EVAL_RO'. See https://example.net",
        "ERR command 'eval_ro' not support for normal user",
        "ERR This is a read-only connection",
        "unknown",
        "ERR Error running script: attempt to index a nil value",
        "NOSCRIPT No matching script",
        "READONLY you are not allowed to",
        "ERR bad lua script for redis cluster, all the keys that the script uses should be passed",
        "ERR unknown command 'EVAL_RO', wrong number of keys",
    ],
)
def test_scripts_that_are_refused_in_other_words(
    redis_server: RedisServer, redis_proxy: MakeProxy, redis_collector: MakeCollector, words: str
) -> None:
    """Whatever a server or a proxy answers to EVAL, plain commands give the same metrics of streams."""
    fill(redis_server)
    redis_server.client.xadd("stream", {"n": 2})

    def refuse(client: socket.socket) -> bool:
        client.sendall(f"-{words}\r\n".encode())
        return True

    port = redis_proxy(redis_server.port, "EVAL_RO", refuse)
    whole = testing.collect(redis_collector(redis_server.url, streams=("stream",)))
    collector = redis_collector(f"redis://127.0.0.1:{port}", streams=("stream",))

    for _ in range(2):
        samples = testing.collect(collector)

        streams = {name for name in whole if name.startswith("redis_stream_")}
        assert streams <= samples.keys()
        for name in ("redis_stream_group_lag", "redis_stream_length"):
            assert samples[name] == whole[name]
