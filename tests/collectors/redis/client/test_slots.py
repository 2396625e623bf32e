from __future__ import annotations

import pytest
from hiredis import ReplyError
from redis.crc import key_slot

from bts_collectors.redis.client.slots import Redirection, parse_ranges, redirection
from bts_exporter import Url

HOME = Url("rediss", "home", 7000, path="/1", username="bts")


@pytest.mark.parametrize(
    ("name", "slot"),
    [
        (b"123456789", 12739),  # from the specification
        (b"", 0),
        (b"foo", 12182),
        (b"{foo}bar", 12182),
        (b"a{foo}b{c}", 12182),
        (b"foo{}", 5542),
        (b"foo{", 7673),
        (b"\xff\x00", 1023),
    ],
)
def test_key_slot_a_key(name: bytes, slot: int) -> None:
    """The slot of a key is CRC16 of its name, or of a non-empty tag in the first braces."""
    assert key_slot(name) == slot


def test_ranges() -> None:
    """A node is at the address that it announces, with our login and database."""
    reply = [
        [0, 99, [b"10.0.0.1", 7001, b"id1", []], [b"10.0.0.9", 7009, b"id9", []]],
        [100, 16383, [None, 7002, b"id2", []]],
        [200, 200, [b"", 7003, b"id3"]],
    ]

    assert parse_ranges(reply, HOME) == [
        (0, 99, Url("rediss", "10.0.0.1", 7001, path="/1", username="bts")),
        (100, 16383, Url("rediss", "home", 7002, path="/1", username="bts")),
        (200, 200, Url("rediss", "home", 7003, path="/1", username="bts")),
    ]


@pytest.mark.parametrize(
    "reply", [b"OK", 1, None, [1], [[]], [[0, 1]], [[0, 1, [5, b"x"]]], [b"a"]]
)
def test_other_replies_are_no_ranges(reply: object) -> None:
    """A malformed reply to CLUSTER SLOTS gives no ranges."""
    assert parse_ranges(reply, HOME) is None


@pytest.mark.parametrize(
    ("reply", "slot", "host", "port", "once"),
    [
        ("MOVED 3999 10.0.0.1:6381", 3999, "10.0.0.1", 6381, False),
        ("ASK 3999 node.example:6381", 3999, "node.example", 6381, True),
        ("MOVED 3999 :6381", 3999, "home", 6381, False),
        ("MOVED 3999 2001:db8::1:6381", 3999, "2001:db8::1", 6381, False),
        ("MOVED 99999 h:1", 99999 % 16384, "h", 1, False),
    ],
)
def test_redirections(reply: str, slot: int, host: str, port: int, once: bool) -> None:
    """MOVED and ASK name a slot and another node."""
    url = Url("rediss", host, port, path="/1", username="bts")

    assert redirection(ReplyError(reply), HOME) == Redirection(slot, url, once)


@pytest.mark.parametrize(
    "reply",
    ["ERR no", "MOVED", "MOVED 1", "MOVED x h:1", "MOVED 1 h:port", "ASK 1 h", "BUSY 1 h:1"],
)
def test_other_errors_are_no_redirection(reply: str) -> None:
    """Other errors and malformed redirections are not followed."""
    assert redirection(ReplyError(reply), HOME) is None
