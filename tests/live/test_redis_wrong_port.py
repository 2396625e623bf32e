"""Ports of Redis that are often confused: the error for each names the cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from bts_collectors.redis.client.sentinel import SentinelSettings
from bts_exporter import Url, testing
from servers import free_port
from servers.certificates import Certificates
from servers.redis import Listen, MakeCollector, MakeRedis, RedisServer, failure
from servers.redis_groups import MakeSentinel, RedisCluster

pytestmark = pytest.mark.live


def test_plain_words_at_a_port_of_tls(
    make_redis: MakeRedis, certificates: Certificates, redis_collector: MakeCollector
) -> None:
    """The error for redis:// at a port with TLS names rediss://."""
    port = free_port()
    make_redis(
        *("--tls-port", str(port), "--tls-ca-cert-file", str(certificates.ca)),
        *("--tls-cert-file", str(certificates.server)),
        *("--tls-key-file", str(certificates.server_key), "--tls-auth-clients", "no"),
    )

    samples, error = failure(redis_collector(f"redis://127.0.0.1:{port}"), seconds=3)

    assert samples["redis_up"] == {(): 0}
    assert error.reason in {"unreachable", "timeout"}
    assert "rediss://" in str(error)


def test_tls_at_a_plain_port(redis_server: RedisServer, redis_collector: MakeCollector) -> None:
    """The error for rediss:// at a port without TLS names redis://."""
    url = redis_server.url.replace("redis:", "rediss:")

    error = failure(redis_collector(url), seconds=1)[1]

    assert "does this port use TLS? (redis:// does not)" in str(error)


def test_the_bus_of_a_cluster(redis_listener: Listen, redis_collector: MakeCollector) -> None:
    """A cluster's bus closes the connection; its port is that for clients plus 10,000."""
    url = redis_listener(lambda connection: connection.close())
    url = Url("redis", url.host, url.port)

    error = failure(redis_collector(str(url)), seconds=3)[1]

    assert error.reason == "unreachable"
    assert url.port is not None
    if url.port < 20_000:
        assert f"Clients use {url.port - 10_000}" in str(error)


def test_the_real_bus_of_a_cluster(
    redis_cluster: RedisCluster, redis_collector: MakeCollector
) -> None:
    """The port of the cluster bus is recognized."""
    bus = redis_cluster.nodes[0].client.config_get("cluster-port")["cluster-port"]

    samples, error = failure(redis_collector(f"redis://127.0.0.1:{bus}"), seconds=3)

    assert samples["redis_up"] == {(): 0}
    assert error.reason in {"unreachable", "timeout", "protocol"}


def test_a_sentinel_in_place_of_its_master(
    redis_server: RedisServer, make_sentinel: MakeSentinel, redis_collector: MakeCollector
) -> None:
    """A sentinel at `url` is monitored; if streams are wanted, an error names the setting `sentinel`."""
    sentinel = make_sentinel(redis_server)

    assert testing.collect(redis_collector(sentinel.url))["redis_sentinel_masters"] == {(): 1}
    collector = redis_collector(sentinel.url, streams=("s",), keys=("a*",))
    for _ in range(2):
        samples, error = failure(collector)
        assert samples["redis_up"] == {(): 1}
        assert samples["redis_sentinel_masters"] == {(): 1}
        assert "is a sentinel, which has no keys" in str(error)
    assert "set `sentinel`" in str(failure(redis_collector(f"{sentinel.url}/2"))[1])


def test_a_server_in_place_of_a_sentinel(
    redis_server: RedisServer, redis_collector: MakeCollector
) -> None:
    """A Redis among the addresses of sentinels is an error that names the usual port of sentinels."""
    settings = SentinelSettings(master="m", addresses=(Url.from_setting(redis_server.url),))

    error = failure(redis_collector("redis://ignored", sentinel=settings))[1]

    assert "it is not a sentinel; the usual port of a sentinel is 26379" in str(error)


@pytest.mark.parametrize("name", ["redis.sock", "a b%41é.sock"])
def test_a_unix_socket(
    make_redis: MakeRedis, redis_collector: MakeCollector, tmp_path: Path, name: str
) -> None:
    """A socket's path may be percent-encoded, and its database is an option; a wrong path is refused."""
    path = tmp_path / name
    server = make_redis("--unixsocket", str(path))
    server.client.execute_command("SELECT", 2)
    server.client.rpush("a", 1)
    encoded = str(path).replace("%", "%25").replace(" ", "%20")

    samples = testing.collect(redis_collector(f"unix://{encoded}?db=2", keys=("a",)))

    assert samples["redis_key_size"] in ({("db2", "a"): 0}, {("db2", "a"): 1})
    error = failure(redis_collector(f"unix://{encoded}x"))[1]
    assert (error.reason, "no such socket" in str(error)) == ("refused", True)
