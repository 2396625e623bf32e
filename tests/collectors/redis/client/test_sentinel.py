from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic

import pytest

from bts_collectors.redis.client.options import ConnectionOptions
from bts_collectors.redis.client.sentinel import Sentinels, SentinelSettings
from bts_exporter import TargetError, Url
from servers import free_port
from servers.redis import Listen

URL = Url("rediss", "ignored", 1, path="/2", username="bts")
KNOWN = b"*2\r\n$8\r\n10.0.0.1\r\n$4\r\n6380\r\n"
UNKNOWN = b"*-1\r\n"


def answering(reply: bytes) -> Callable[[socket.socket], None]:
    """Return the behaviour of a sentinel that replies to one command for each of `replies`."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"+OK\r\n")
        connection.recv(65536)
        connection.sendall(reply)

    return behave


def sentinels(*addresses: Url) -> Sentinels:
    """Return sentinels at `addresses` for the master `orders`."""
    return Sentinels(
        SentinelSettings(master="orders", addresses=addresses), URL, ConnectionOptions()
    )


def test_the_masters_address(redis_listener: Listen) -> None:
    """The master has the sentinel's address, with scheme, user and database of the settings."""
    master = sentinels(redis_listener(answering(KNOWN))).find(monotonic() + 20)

    assert master == Url("rediss", "10.0.0.1", 6380, path="/2", username="bts")


def test_the_next_sentinel_is_tried(redis_listener: Listen) -> None:
    """A sentinel that is dead or does not know the master is skipped, and tried last the next time."""
    dead = Url("redis", "127.0.0.1", free_port())
    connections: list[socket.socket] = []

    def ignorant(connection: socket.socket) -> None:
        connections.append(connection)
        answering(UNKNOWN)(connection)

    several = sentinels(dead, redis_listener(ignorant), redis_listener(answering(KNOWN)))

    for _ in range(2):
        assert several.find(monotonic() + 20).host == "10.0.0.1"
    assert len(connections) == 1


def test_no_sentinel_knows(redis_listener: Listen) -> None:
    """The error has every sentinel's error, and the reason of the first."""
    dead = Url("redis", "127.0.0.1", free_port())
    ignorant = redis_listener(answering(UNKNOWN))

    with pytest.raises(TargetError) as caught:
        sentinels(dead, ignorant).find(monotonic() + 20)

    assert caught.value.reason == "refused"
    assert str(caught.value) == (
        "no sentinel knows the address of the master 'orders':"
        f" Redis at {dead}: connection refused; is Redis running, and does it listen at this address and port?;"
        f" Redis at {ignorant} knows no master named 'orders'"
    )


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"+OK\r\n", "unexpected reply to SENTINEL GET-MASTER-ADDR-BY-NAME"),
        (b"*1\r\n+x\r\n", "unexpected reply to SENTINEL GET-MASTER-ADDR-BY-NAME"),
        (b"*2\r\n+x\r\n+y\r\n", "unexpected reply to SENTINEL GET-MASTER-ADDR-BY-NAME"),
        (b"-ERR unknown command 'SENTINEL'\r\n", "refused SENTINEL: ERR unknown command"),
    ],
)
def test_other_servers_are_no_sentinel(redis_listener: Listen, reply: bytes, said: str) -> None:
    """Another server, such as the master itself, gives an error of its own."""
    with pytest.raises(TargetError, match=said) as caught:
        sentinels(redis_listener(answering(reply))).find(monotonic() + 20)

    assert caught.value.reason == "protocol"


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ((), "addresses: at least one sentinel is needed"),
        ((Url("unix", path="/s"),), "addresses: expected redis:// or rediss://, got unix:///s"),
    ],
)
def test_wrong_settings(addresses: tuple[Url, ...], message: str) -> None:
    """At least one sentinel is required, with a TCP address."""
    with pytest.raises(ValueError, match=message):
        SentinelSettings(master="orders", addresses=addresses)
