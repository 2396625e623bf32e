"""Where the Redis collector finds its servers: TLS, replicas, sentinels, clusters."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.redis.client import replicas
from bts_collectors.redis.client.sentinel import SentinelSettings
from bts_exporter import Secret, TLSConfig, Url, testing
from servers import free_port, wait_until
from servers.certificates import SERVER_NAME, Certificates
from servers.exporter import StartExporter
from servers.redis import (
    Listen,
    MakeCollector,
    MakeRedis,
    RedisServer,
    calls,
    failure,
    ports_of,
    reason_when_stopped,
)
from servers.redis_groups import MASTER, MakeSentinel, RedisCluster

pytestmark = pytest.mark.live

PASSWORD = "correct horse"


# TLS


@pytest.fixture
def make_tls(make_redis: MakeRedis, certificates: Certificates) -> MakeRedis:
    """Give a factory of servers with TLS."""

    def make(clients: str = "no", *, named: bool = False) -> RedisServer:
        cert, key = certificates.server, certificates.server_key
        if named:
            cert, key = certificates.named, certificates.named_key
        port = free_port()
        server = make_redis(
            *("--tls-port", str(port), "--tls-ca-cert-file", str(certificates.ca)),
            *("--tls-cert-file", str(cert), "--tls-key-file", str(key)),
            *("--tls-auth-clients", clients),
        )
        server.url = f"rediss://127.0.0.1:{port}"
        return server

    return make


def test_an_authority_of_ones_own(
    make_tls: MakeRedis, redis_collector: MakeCollector, certificates: Certificates
) -> None:
    """A certificate is trusted if the authority of ca_file signed it, and is not without."""
    server = make_tls()

    samples, error = failure(redis_collector(server.url))
    trusting = redis_collector(server.url, tls=TLSConfig(ca_file=str(certificates.ca)))

    assert error.reason == "tls"
    assert samples["redis_up"] == {(): 0}
    for _ in range(2):
        assert testing.collect(trusting)["redis_up"] == {(): 1}
    assert calls(server.client, "client|setname") == 1


def test_a_certificate_of_our_own(
    make_tls: MakeRedis, redis_collector: MakeCollector, certificates: Certificates
) -> None:
    """A server that requires a client certificate gets it, and refuses connections without one."""
    url = make_tls("yes").url
    ca = str(certificates.ca)
    cert, key = str(certificates.client), str(certificates.client_key)

    assert failure(redis_collector(url, tls=TLSConfig(ca_file=ca)))[1].reason == "tls"
    known = redis_collector(url, tls=TLSConfig(ca_file=ca, cert_file=cert, key_file=key))
    assert testing.collect(known)["redis_up"] == {(): 1}


def test_a_certificate_of_another_name(
    make_tls: MakeRedis, redis_collector: MakeCollector, certificates: Certificates
) -> None:
    """The certificate must have the host's name, or that of server_name."""
    url = make_tls(named=True).url
    ca = str(certificates.ca)

    assert failure(redis_collector(url, tls=TLSConfig(ca_file=ca)))[1].reason == "tls"
    named = redis_collector(url, tls=TLSConfig(ca_file=ca, server_name=SERVER_NAME))
    assert testing.collect(named)["redis_up"] == {(): 1}


def test_any_certificate(make_tls: MakeRedis, redis_collector: MakeCollector) -> None:
    """With insecure_skip_verify a self-signed certificate is accepted."""
    collector = redis_collector(make_tls().url, tls=TLSConfig(insecure_skip_verify=True))

    assert testing.collect(collector)["redis_up"] == {(): 1}


def test_tls_to_a_server_without_tls(
    redis_server: RedisServer, redis_collector: MakeCollector
) -> None:
    """A server without TLS does not answer the handshake, and the error names the likely cause."""
    url = redis_server.url.replace("redis:", "rediss:")

    error = failure(redis_collector(url), seconds=1)[1]

    assert error.reason == "timeout"
    assert "does this port use TLS?" in str(error)


# Several

BLOCKS = """
scrape_timeout: 4s
collectors:
  redis:
    - {{name: dead, url: "redis://127.0.0.1:{dead}"}}
    - {{name: frozen, url: "{frozen}"}}
    - {{name: secured, url: "{secured}", tls: {{ca_file: "{ca}", server_name: {name}}}}}
    - name: watched
      url: redis://ignored
      sentinel: {{master: {master}, addresses: ["{sentinel}"]}}
    - {{name: clustered, url: "{clustered}", cluster: true, keys: [a, b]}}
"""


def test_several_servers(  # noqa: PLR0917  # servers of all kinds
    make_tls: MakeRedis,
    make_redis: MakeRedis,
    make_sentinel: MakeSentinel,
    redis_cluster: RedisCluster,
    certificates: Certificates,
    exporter: StartExporter,
) -> None:
    """One process serves servers of all kinds; a dead and a frozen one cost only themselves."""
    frozen = make_redis()
    frozen.freeze()
    for name in ("a", "b"):
        redis_cluster.owner(name).client.rpush(name, 1)
    server = exporter(
        BLOCKS.format(
            dead=free_port(),
            frozen=frozen.url,
            secured=make_tls(named=True).url,
            ca=certificates.ca,
            name=SERVER_NAME,
            master=MASTER,
            sentinel=make_sentinel(make_redis()).url,
            clustered=redis_cluster.nodes[0].url,
        )
    )

    samples = server.samples()

    up = {
        dict(labels)["target"]: value
        for (name, labels), value in samples.items()
        if name == "redis_up"
    }
    assert up == {"dead": 0, "frozen": 0, "secured": 1, "watched": 1, "clustered": 1}
    assert sum(name == "redis_key_size" for name, _ in samples) == 2


# Replicas


def test_names_are_looked_for_on_a_replica(
    redis_pair: tuple[RedisServer, RedisServer], redis_collector: MakeCollector
) -> None:
    """SCAN runs on the replica; the keys are read from the primary."""
    primary, replica = redis_pair
    primary.client.rpush("queue", 1, 2)
    primary.client.wait(1, 20_000)

    samples = testing.collect(redis_collector(primary.url, keys=("q*",)))

    assert samples["redis_key_size"] == {("db0", "queue"): 2}
    assert calls(primary.client, "scan") == 0
    assert calls(replica.client, "scan") > 0
    assert calls(replica.client, "llen") == 0


@pytest.mark.parametrize("way", ["denied", "dead"])
def test_a_replica_that_cannot_be_used(
    redis_pair: tuple[RedisServer, RedisServer],
    redis_collector: MakeCollector,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """If a replica refuses the login, or hangs, SCAN runs on the primary."""
    monkeypatch.setattr(replicas, "TIMEOUT_SECONDS", 1.0)
    primary, replica = redis_pair
    primary.client.rpush("queue", 1, 2)
    if way == "denied":
        replica.client.config_set("requirepass", PASSWORD)
    else:
        replica.freeze()
    collector = redis_collector(primary.url, keys=("q*",))
    testing.collect(collector)

    wait_until(lambda: "redis_key_size" in testing.collect(collector), "the queue is found")

    assert calls(primary.client, "scan") > 0
    replica.thaw()


# Sentinels


def test_a_failover_is_followed(
    redis_pair: tuple[RedisServer, RedisServer],
    make_sentinel: MakeSentinel,
    redis_collector: MakeCollector,
) -> None:
    """The master is the one that the sentinel names; after a failover the series continue from the new one."""
    master, replica = redis_pair
    sentinel = make_sentinel(master)
    master.client.rpush("queue", 1, 2)
    master.client.wait(1, 20_000)
    nowhere = Url("redis", "127.0.0.1", free_port())
    settings = SentinelSettings(master=MASTER, addresses=(nowhere, Url.from_setting(sentinel.url)))
    collector = redis_collector("redis://ignored", sentinel=settings, keys=("queue", "q*"))
    before = testing.collect(collector)
    wait_until(lambda: replicas_known(sentinel) == 1, "the sentinel knows the replica")

    master.kill()
    wait_until(
        lambda: sentinel.master_port() == replica.port, "the sentinel made the other master", 60
    )
    after = testing.collect(collector)

    assert ports_of(before) == {str(master.port)}
    assert ports_of(after) == {str(replica.port)}
    assert before["redis_key_size"] == after["redis_key_size"] == {("db0", "queue"): 2}


def test_a_sentinel_that_missed_the_failover(
    redis_pair: tuple[RedisServer, RedisServer],
    make_sentinel: MakeSentinel,
    redis_collector: MakeCollector,
    redis_listener: Listen,
) -> None:
    """If a sentinel names a replica, the next sentinel is used."""
    master, replica = redis_pair
    stale = redis_listener(saying("127.0.0.1", str(replica.port)))
    known = make_sentinel(master)
    settings = SentinelSettings(master=MASTER, addresses=(stale, Url.from_setting(known.url)))

    samples = testing.collect(redis_collector("redis://ignored", sentinel=settings))

    assert ports_of(samples) == {str(master.port)}


def test_all_sentinels_missed_the_failover(
    redis_pair: tuple[RedisServer, RedisServer],
    redis_collector: MakeCollector,
    redis_listener: Listen,
) -> None:
    """If no sentinel knows the master, the replica that they name is served, with an error."""
    _, replica = redis_pair
    stale = redis_listener(saying("127.0.0.1", str(replica.port)))
    settings = SentinelSettings(master=MASTER, addresses=(stale,))

    samples, error = failure(redis_collector("redis://ignored", sentinel=settings))

    assert error.reason == "loading"
    assert ports_of(samples) == {str(replica.port)}
    assert samples["redis_up"] == {(): 1}


def test_an_unknown_master(
    redis_server: RedisServer, make_sentinel: MakeSentinel, redis_collector: MakeCollector
) -> None:
    """The error for a master that no sentinel knows names the master and the sentinels."""
    sentinel = make_sentinel(redis_server)
    settings = SentinelSettings(master="orders", addresses=(Url.from_setting(sentinel.url),))

    samples, error = failure(redis_collector("redis://ignored", sentinel=settings))

    assert error.reason == "protocol"
    assert f"{sentinel.url} knows no master named 'orders'" in str(error)
    assert samples["redis_up"] == {(): 0}


def test_the_password_of_a_sentinel(
    redis_server: RedisServer, make_sentinel: MakeSentinel, redis_collector: MakeCollector
) -> None:
    """Sentinels have a separate password; a wrong one is tried once."""
    sentinel = make_sentinel(redis_server, f'requirepass "{PASSWORD}"')
    addresses = (Url.from_setting(sentinel.url),)

    def collector(password: str) -> Any:
        secret = Secret(password)
        settings = SentinelSettings(master=MASTER, addresses=addresses, password=secret)
        return redis_collector("redis://ignored", sentinel=settings)

    assert failure(collector("wrong"))[1].reason == "auth"
    assert testing.collect(collector(PASSWORD))["redis_up"] == {(): 1}


def saying(*words: str) -> Callable[[socket.socket], None]:
    """Return the behaviour of a server that answers every command with a list of `words`."""
    reply = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)

    def behave(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(reply.encode())

    return behave


def replicas_known(sentinel: Any) -> int:
    """Return how many replicas the sentinel could promote."""
    return len(sentinel.client.execute_command("SENTINEL", "REPLICAS", MASTER))


# The end


def test_stop_ends_the_question_to_a_sentinel(
    redis_server: RedisServer, make_sentinel: MakeSentinel, redis_collector: MakeCollector
) -> None:
    """A collection that waits for a frozen sentinel ends as soon as the collector is stopped."""
    sentinel = make_sentinel(redis_server)
    settings = SentinelSettings(master=MASTER, addresses=(Url.from_setting(sentinel.url),))
    sentinel.freeze()

    assert (
        reason_when_stopped(redis_collector("redis://ignored", sentinel=settings)) == "unreachable"
    )
