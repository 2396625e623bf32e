from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import msgspec
import pytest
from hiredis import Reader

from bts_collectors.redis import COLLECTOR, collector
from bts_collectors.redis.client.sentinel import SentinelSettings
from bts_collectors.redis.collector import RedisCollector
from bts_collectors.redis.server.info_fields import PLAIN
from bts_exporter import Scrape, Secret, TargetError, TLSConfig, Url
from servers.redis import Listen

URL = Url("redis", "example.net")
_TEXT = b"redis_version:7.0.15\r\nrun_id:a\r\nserver_time_usec:1700000000000000\r\nblocked_clients:3\r\n"
INFO = b"$%d\r\n%b\r\n" % (len(_TEXT), _TEXT)
DOCS = Path(__file__).parents[3] / "docs" / "collectors" / "redis.md"


def config(url: Url, **settings: object) -> RedisCollector.Config:
    """Return settings for the server at `url`."""
    return RedisCollector.Config(url=url, **settings)  # type: ignore[arg-type]


def failing(url: Url, **settings: object) -> tuple[Scrape, TargetError]:
    """Return what a failing collection emits, and the error that it raises."""
    scrape = Scrape(monotonic() + 2)
    collector = RedisCollector(config(url, **settings))
    with pytest.raises(TargetError) as caught:
        collector.collect(scrape)
    collector.stop()
    return scrape, caught.value


def replying(reply: bytes) -> Callable[[socket.socket], None]:
    """Return the behaviour of a server that has one reply to every command."""

    def behave(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(reply)

    return behave


def informing(reply: bytes) -> Callable[[socket.socket], None]:
    """Return the behaviour of a server that replies to INFO as Redis does, and to other commands with `reply`."""

    def behave(connection: socket.socket) -> None:
        reader = Reader()
        while received := connection.recv(65536):
            reader.feed(received)
            answers = []
            while (command := reader.gets()) is not False:
                answers.append(INFO if command[0] == b"INFO" else reply)
            connection.sendall(b"".join(answers))

    return behave


def test_the_module_offers_the_collector() -> None:
    """The entry point's name is the collector's class."""
    assert COLLECTOR is RedisCollector


def test_without_settings_the_local_server_is_meant() -> None:
    """The default address is that of a Redis on this host, and no keys are read."""
    default = msgspec.convert({}, RedisCollector.Config)

    assert str(default.url) == "redis://127.0.0.1:6379"
    assert (default.password, default.streams, default.keys) == (None, (), ())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "http://127.0.0.1:6379",
            "url: expected redis://, rediss:// or unix://, got http://127.0.0.1:6379",
        ),
        ("redis://127.0.0.1/cache", "url: expected the number of a database, got 'cache'"),
    ],
)
def test_wrong_addresses_are_refused(url: str, message: str) -> None:
    """An address that cannot be a Redis server's is an error of the settings."""
    with pytest.raises(ValueError, match="url: expected") as caught:
        config(Url.from_setting(url))

    assert str(caught.value) == message


def test_sentinels_have_no_cluster() -> None:
    """A cluster fails over without sentinels: the settings exclude each other."""
    with pytest.raises(ValueError, match="cluster and sentinel exclude each other"):
        config(URL, cluster=True, sentinel=SentinelSettings(master="m", addresses=(URL,)))


def test_tls_settings_without_tls() -> None:
    """TLS settings for an address without TLS are an error: the password would be sent unencrypted."""
    tls = TLSConfig(ca_file="/ca.pem")
    with pytest.raises(ValueError, match="tls: only rediss:// uses TLS, got redis://"):
        config(URL, tls=tls)

    secured = Url("rediss", "example.net")
    assert config(secured, tls=tls).tls is tls
    sentinel = SentinelSettings(master="m", addresses=(secured,))
    assert config(URL, tls=tls, sentinel=sentinel).tls is tls


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol"),
        (b"+OK\r\n", "protocol"),
        (b"$5\r\na:b\r\n\r\n", "protocol"),
        (b"-NOAUTH Authentication required.\r\n", "auth"),
        (b"-BUSY Redis is busy running a script.\r\n", "loading"),
        (b"$-1\r\n", "protocol"),
    ],
    ids=["http", "ok", "no-redis", "noauth", "busy", "nil"],
)
def test_a_server_that_does_not_answer_as_redis(
    redis_listener: Listen, reply: bytes, reason: str
) -> None:
    """Whatever is wrong with the answers, redis_up is 0, with the reason as error."""
    scrape, error = failing(redis_listener(replying(reply)))

    assert error.reason == reason
    assert scrape.samples[RedisCollector.up] == {(): 0}
    assert scrape.samples[RedisCollector.last_error] == {(reason,): 1}
    assert scrape.samples[RedisCollector.scrapes] == {(): 1}


@pytest.mark.parametrize(
    "reply",
    [
        b":1\r\n",
        b"+OK\r\n",
        b"$2\r\n\xff\xfe\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*1\r\n*1\r\n*1\r\n:5\r\n",
        b"*2\r\n$-1\r\n*2\r\n$1\r\na\r\n:9223372036854775807\r\n",
    ],
)
def test_a_server_whose_answers_have_another_shape(redis_listener: Listen, reply: bytes) -> None:
    """The metrics from INFO are served in each scrape, and the rest is an error with a reason."""
    url = redis_listener(informing(reply))
    collector = RedisCollector(config(url, streams=("s", "t"), keys=("k",)))

    for _ in range(2):
        scrape = Scrape(monotonic() + 5)
        collector.collect(scrape)

        assert {reason for reason, _ in scrape.losses} == {"protocol"}
        assert scrape.samples[RedisCollector.up] == {(): 1}
        assert scrape.samples[PLAIN["blocked_clients"]] == {(): 3}
    collector.stop()


def test_a_server_that_never_answers(redis_listener: Listen) -> None:
    """A silent server is down, and the reason is the timeout."""
    scrape, error = failing(redis_listener(lambda _: None))

    assert error.reason == "timeout"
    assert scrape.samples[RedisCollector.up] == {(): 0}


def test_no_secret_is_shown(redis_listener: Listen) -> None:
    """Neither password nor credentials of the address are part of a failure."""
    url = redis_listener(replying(b"-WRONGPASS invalid username-password pair\r\n"))
    url = Url.from_setting(f"redis://someone:hunter2@{url.host}:{url.port}")

    _, error = failing(url, password=Secret("s3cret"))

    assert (
        str(error) == f"Redis at redis://127.0.0.1:{url.port} refused AUTH: WRONGPASS invalid"
        " username-password pair (check `password`, and the user name in `url`)"
    )


def test_every_metric_is_documented() -> None:
    """The page of the collector names every metric that it declares."""
    text = DOCS.read_text()
    names = [metric.name for metric in RedisCollector.declared()]

    assert [name for name in names if f"`{name}`" not in text] == []
    assert len(names) == len(set(names))


def test_every_setting_is_documented() -> None:
    """The page of the collector names every setting."""
    text = DOCS.read_text()

    assert [
        k for k in collector.RedisCollector.Config.__struct_fields__ if f"`{k}`" not in text
    ] == []
