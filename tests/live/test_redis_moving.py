"""What changes while the exporter runs: the address of a name, a password."""

from __future__ import annotations

import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from bts_collectors.redis.client.sentinel import SentinelSettings
from bts_collectors.redis.collector import RedisCollector
from bts_exporter import AddressWatch, Secret, Url, testing
from servers import wait_until
from servers.exporter import StartExporter
from servers.redis import Listen, MakeCollector, MakeRedis, RedisServer, failure, ports_of
from servers.redis_groups import RedisCluster

pytestmark = pytest.mark.live

#: Where a name points to now.
Names = dict[str, tuple[str, int]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Give a table of names that the system resolves, which are looked up again at every scrape."""
    table: Names = {}
    original = socket.getaddrinfo

    def resolve(host: str, port: Any, *arguments: Any, **more: Any) -> Any:
        host, known = table.get(host, (host, port))
        return original(host, port and known, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    watch = partial(AddressWatch, interval_seconds=0.0)
    monkeypatch.setattr("bts_collectors.redis.client.connection.AddressWatch", watch)
    return table


@pytest.fixture
def twins(make_redis: MakeRedis) -> tuple[RedisServer, RedisServer]:
    """Give two servers that listen at two addresses of this host."""
    first, second = (make_redis("--bind", "127.0.0.1", "127.0.0.2") for _ in range(2))
    return first, second


def test_a_name_that_moves_to_another_server(
    twins: tuple[RedisServer, RedisServer], redis_collector: MakeCollector, names: Names
) -> None:
    """After a failover by DNS the new server is read, although the old one still replies."""
    first, second = twins
    names["db.test"] = ("127.0.0.1", first.port)
    collector = redis_collector("redis://db.test", keys=("a", "a*"))
    for _ in range(3):
        assert ports_of(testing.collect(collector)) == {str(first.port)}

    names["db.test"] = ("127.0.0.2", second.port)

    wait_until(lambda: ports_of(testing.collect(collector)) == {str(second.port)}, "it is followed")
    names["db.test"] = ("127.0.0.1", first.port)
    wait_until(lambda: ports_of(testing.collect(collector)) == {str(first.port)}, "and back")


def test_a_name_that_cannot_be_looked_up_for_a_while(
    twins: tuple[RedisServer, RedisServer], redis_collector: MakeCollector, names: Names
) -> None:
    """While the name server does not answer, the connection is kept."""
    first, _ = twins
    names["db.test"] = ("127.0.0.1", first.port)
    collector = redis_collector("redis://db.test")
    testing.collect(collector)
    connections = first.client.info("stats")["total_connections_received"]

    names["db.test"] = ("nowhere.invalid", 0)

    for _ in range(3):
        assert testing.collect(collector)["redis_up"] == {(): 1}
    assert first.client.info("stats")["total_connections_received"] == connections


def test_a_name_service_that_hangs(
    redis_collector: MakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup that never ends is given up by the deadline, with the reason dns."""
    begun: list[str] = []
    stuck = threading.Event()

    def hang(host: str, *_: object, **__: object) -> Any:
        begun.append(host)
        stuck.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    collector = redis_collector("redis://db.test")

    for _ in range(3):
        samples, error = failure(collector, seconds=0.5)
        assert (error.reason, samples["redis_up"]) == ("dns", {(): 0})
    stuck.set()
    assert begun == ["db.test"]


def test_a_master_whose_name_moves(
    twins: tuple[RedisServer, RedisServer],
    redis_collector: MakeCollector,
    redis_listener: Listen,
    names: Names,
) -> None:
    """A name that sentinels give (resolve-hostnames) is looked up again as any other."""
    first, second = twins

    def sentinel(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"+OK\r\n")
        connection.recv(65536)
        connection.sendall(b"*2\r\n$7\r\ndb.test\r\n$4\r\n6379\r\n")

    names["db.test"] = ("127.0.0.1", first.port)
    settings = SentinelSettings(master="m", addresses=(redis_listener(sentinel),))
    collector = redis_collector("redis://ignored", sentinel=settings)
    assert ports_of(testing.collect(collector)) == {str(first.port)}

    names["db.test"] = ("127.0.0.2", second.port)

    wait_until(lambda: ports_of(testing.collect(collector)) == {str(second.port)}, "it is followed")


# Passwords


BLOCK = """
collectors:
  redis:
    - {{name: file, url: "{url}", password: !file {file}}}
    - {{name: written, url: "{url}", password: one}}
"""


def test_a_password_that_changes(
    make_redis: MakeRedis, exporter: StartExporter, tmp_path: Path
) -> None:
    """A password from a file is read again when the server refuses it; no reload is needed."""
    server = make_redis("--requirepass", "one")
    file = tmp_path / "password"
    file.write_text("one\n")
    running = exporter(BLOCK.format(url=server.url, file=file))
    assert running.value("redis_up", target="file") == 1
    assert running.value("redis_up", target="written") == 1

    with redis.Redis(port=server.port, password="one", single_connection_client=True) as client:
        client.config_set("requirepass", "two")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    assert running.value("redis_up", target="file") == 0
    assert running.value("redis_exporter_last_scrape_error", target="file", err="auth") == 1
    file.write_text("two\n")
    assert running.value("redis_up", target="file") == 1
    assert running.value("redis_up", target="written") == 0


def changing(tmp_path: Path) -> tuple[Path, Secret]:
    """Return a file with the password `one`, and the secret that the settings make of it."""
    file = tmp_path / "secret"
    file.write_text("one")
    return file, Secret("one", file.read_text)


def test_a_password_that_changes_on_all_nodes(
    redis_cluster: RedisCluster, redis_collector: MakeCollector, tmp_path: Path
) -> None:
    """The current password is used for the nodes of a cluster, too."""
    file, secret = changing(tmp_path)
    for node in redis_cluster.nodes:
        node.client.execute_command("ACL", "SETUSER", "bts", "on", ">one", "~*", "+@all")
    url = redis_cluster.nodes[0].url.replace("//", "//bts@")
    settings = {"cluster": True, "keys": ("a", "b", "[a-c]")}
    collector = RedisCollector(
        RedisCollector.Config(url=Url.from_setting(url), password=secret, **settings)  # type: ignore[arg-type]
    )
    assert testing.collect(collector)["redis_up"] == {(): 1}

    file.write_text("two")
    for node in redis_cluster.nodes:
        node.client.execute_command("ACL", "SETUSER", "bts", "resetpass", ">two")
        node.client.execute_command("CLIENT", "KILL", "USER", "bts")

    samples = testing.collect(collector)
    assert samples["redis_up"] == {(): 1}
    assert set(samples["redis_cluster_node_up"].values()) == {1}
    collector.stop()
    for node in redis_cluster.nodes:
        node.client.execute_command("ACL", "DELUSER", "bts")


def test_a_sentinels_password_that_changes(
    redis_server: RedisServer,
    redis_collector: MakeCollector,
    redis_listener: Listen,
    tmp_path: Path,
) -> None:
    """If a sentinel refuses the password, it is read from the file again."""
    file, secret = changing(tmp_path)

    def sentinel(connection: socket.socket) -> None:
        heard = connection.recv(65536)
        while heard:
            if b"one" in heard:
                connection.sendall(b"-WRONGPASS invalid username-password pair\r\n")
            elif b"GET-MASTER" in heard:
                port = str(redis_server.port)
                text = f"*2\r\n$9\r\n127.0.0.1\r\n${len(port)}\r\n{port}\r\n"
                connection.sendall(text.encode())
            else:
                connection.sendall(b"+OK\r\n")
            heard = connection.recv(65536)

    url = redis_listener(sentinel)
    file.write_text("two")
    settings = SentinelSettings(master="m", addresses=(url,), password=secret)

    samples = testing.collect(redis_collector("redis://ignored", sentinel=settings))

    assert samples["redis_up"] == {(): 1}
