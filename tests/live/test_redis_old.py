"""Redis 5.0 and 6.0, as Debian 11 and Ubuntu 22.04 have them, which lack some commands."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from bts_collectors.redis.queues.config import QueueSettings, WantedNames
from bts_exporter import testing
from servers import need
from servers.exporter import StartExporter
from servers.redis import MakeCollector, MakeRedis, RedisServer, failure
from servers.redis_versions import OLD_WHEELS, program

pytestmark = pytest.mark.live


def fill(client: Any) -> list[bytes]:
    """Write a stream of ten entries, of which a group read four; return their ids."""
    ids = [client.xadd("s", {"n": n}) for n in range(10)]
    client.xgroup_create("s", "g", "0")
    client.xreadgroup("g", "c", {"s": ">"}, count=4)
    return ids


def test_all_metrics_are_emitted(old_redis: RedisServer, redis_collector: MakeCollector) -> None:
    """INFO, streams with lag and ages, keys and queues are complete, in every scrape."""
    fill(old_redis.client)
    old_redis.client.rpush("queue", 1, 2)
    old_redis.client.zadd("arq:queue", {"job": 1})
    collector = redis_collector(
        old_redis.url,
        streams=("s", "x*"),
        keys=("queue", "q*"),
        clients=True,
        queues=QueueSettings(arq=WantedNames()),
    )

    for _ in range(2):
        samples = testing.collect(collector)

        assert samples["redis_up"] == {(): 1}
        assert samples["redis_memory_used_bytes"][()] > 0
        assert ("xgroup",) in samples["redis_commands_total"]
        assert samples["redis_stream_length"] == {("db0", "s"): 10}
        assert samples["redis_stream_group_lag"] == {("db0", "s", "g"): 6}
        assert samples["redis_stream_group_lag_exact"] == {("db0", "s", "g"): 1}
        assert 0 <= samples["redis_stream_group_lag_seconds"]["db0", "s", "g"] < 600
        assert 0 <= samples["redis_stream_group_oldest_pending_age_seconds"]["db0", "s", "g"] < 600
        assert samples["redis_key_size"] == {("db0", "queue"): 2}
        assert samples["redis_config_maxclients"][()] > 0
        assert samples["redis_queue_messages"]["arq", "db0", "arq:queue", "ready"] == 1


def test_a_lag_with_holes(old_redis: RedisServer, redis_collector: MakeCollector) -> None:
    """A lag that must be counted is right where the server knows no exclusive ranges."""
    ids = fill(old_redis.client)
    old_redis.client.xdel("s", ids[4], ids[7])

    samples = testing.collect(redis_collector(old_redis.url, streams=("s",)))

    assert samples["redis_stream_group_lag"] == {("db0", "s", "g"): 4}


@pytest.mark.parametrize("version", OLD_WHEELS)
def test_the_process_in_front_of_an_old_server(
    version: str, make_redis: MakeRedis, exporter: StartExporter
) -> None:
    """The exporter's process serves an old server without a failure, also after it was upgraded in place."""
    server = make_redis(program=program(version))
    block = f"collectors:\n  redis:\n    url: {server.url}\n    streams: [s]\n    queues: {{arq: true}}\n"
    running = exporter(block)

    for _ in range(2):
        assert running.value("redis_exporter_last_scrape_error", err="") == 0
        assert running.value("redis_up") == 1

    server.kill()
    server._argv[0] = need("redis-server", "redis-server")
    server.restart()
    for _ in range(2):
        assert running.value("redis_up") == 1
    assert running.value("redis_start_time_seconds") is not None


def test_a_user_for_a_server_without_users(
    make_redis: MakeRedis, redis_collector: MakeCollector
) -> None:
    """Redis 5.0 has no users: the error for a user in `url` says to leave it out."""
    server = make_redis("--requirepass", "secret", program=program("redis-5.0"))

    samples, error = failure(redis_collector(f"redis://bts@127.0.0.1:{server.port}", "secret"))

    assert (error.reason, samples["redis_up"]) == ("auth", {(): 0})
    assert "before Redis 6 there are no users: leave the user out of `url`" in str(error)
    assert testing.collect(redis_collector(server.url, "secret"))["redis_up"] == {(): 1}


@pytest.mark.parametrize("version", OLD_WHEELS)
def test_without_scripts(
    version: str, make_redis: MakeRedis, redis_collector: MakeCollector
) -> None:
    """If EVAL was renamed, as is common, streams are still read."""
    server = make_redis("--rename-command", "EVAL", "", program=program(version))
    server.client = redis.Redis(port=server.port, retry=None, protocol=2)
    fill(server.client)

    for _ in range(2):
        samples = testing.collect(redis_collector(server.url, streams=("s",)))

        assert samples["redis_stream_group_lag"] == {("db0", "s", "g"): 6}
