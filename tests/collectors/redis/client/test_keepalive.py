from __future__ import annotations

import socket
from time import monotonic

import pytest

from bts_collectors.redis.client.connection import Connection
from bts_collectors.redis.client.keepalive import Keepalive
from bts_collectors.redis.client.options import ConnectionOptions
from servers.redis import Listen

OPTIONS = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


@pytest.mark.parametrize(
    ("raw", "on", "numbers"),
    [
        (True, True, [30, 5, 3]),  # the redis package's own
        ({"idle": "1m", "interval": 10, "count": 4}, True, [60, 10, 4]),
        (False, False, None),
    ],
)
def test_the_socket_has_the_options(
    redis_listener: Listen, raw: object, on: bool, numbers: list[int] | None
) -> None:
    """The setting becomes the options of the connection's socket."""
    connection = Connection(
        redis_listener(lambda _: None), ConnectionOptions(keepalive=Keepalive.from_setting(raw))
    )
    connection._connect(monotonic() + 20)
    opened = connection._socket
    assert opened is not None

    assert bool(opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is on
    if numbers is not None:
        assert [opened.getsockopt(socket.IPPROTO_TCP, option) for option in OPTIONS] == numbers
    connection.close()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "expected true, false, or a block"),
        ("30s", "expected true, false, or a block"),
        ({}, "expected true, false, or a block"),
        ({"idel": 1}, "unknown key 'idel'; known: idle, interval, count"),
        ({"idle": "500ms"}, "idle: expected whole seconds"),
        ({"idle": 0}, "idle: expected whole seconds"),
        ({"interval": "often"}, "interval: expected seconds or a duration"),
        ({"count": 0}, "count: expected a number from 1 to 127"),
        ({"count": True}, "count: expected a number from 1 to 127"),
    ],
)
def test_invalid_settings(raw: object, message: str) -> None:
    """An error names the part of the setting and what it expects."""
    with pytest.raises(ValueError, match=message):
        Keepalive.from_setting(raw)
