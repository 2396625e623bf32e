from __future__ import annotations

import struct

import pytest
from pika import exceptions

from bts_collectors.rabbitmq.amqp.frames import MAX_ARRIVING, FrameGuard


def frame(kind: int, payload: bytes) -> bytes:
    """Return a frame of channel 1."""
    return struct.pack(">BHL", kind, 1, len(payload)) + payload + b"\xce"


def check(guard: FrameGuard, sent: bytes, size: int) -> None:
    """Have a guard check what arrives in pieces of `size`."""
    for begin in range(0, len(sent), size):
        guard.check(sent[begin : begin + size])


#: Frames as a broker sends them: a method, a message of three bytes, a heartbeat.
USUAL = (
    frame(1, struct.pack(">HH", 60, 71) + b"x" * 300)
    + frame(2, struct.pack(">HHQ", 60, 0, 3) + b"\0\0")
    + frame(3, b"abc")
    + frame(8, b"")
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 19, 20, 1000])
def test_what_a_broker_sends_passes_however_it_arrives(size: int) -> None:
    """Valid frames are accepted however the network splits them."""
    guard = FrameGuard()
    for _ in range(3):
        check(guard, USUAL, size)

    assert not guard.failure


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (struct.pack(">BHL", 1, 1, 200_000), "a frame of 200000 bytes"),
        (
            struct.pack(">BHL", 2, 1, 14) + struct.pack(">HHQ", 60, 0, 1 << 40),
            "a message of 1099511627776 bytes",
        ),
        (b"\x07\0\0\0\0\0\0", "not AMQP 0-9-1"),
        (USUAL + b"\x09\0\0\0\0\0\0", "not AMQP 0-9-1"),
        (b"AMQP\0\0\x09\x01", "another version"),
        (b"HTTP/1.1 400 Bad Request", "port of HTTP"),
    ],
)
def test_what_is_announced_is_checked_before_it_arrives(sent: bytes, words: str, size: int) -> None:
    """An invalid or oversized frame ends the connection, and the failure names the problem."""
    guard = FrameGuard()

    with pytest.raises(exceptions.InvalidFrameError):
        check(guard, sent, size)

    assert words in guard.failure


def test_more_frames_than_anything_requested_end_the_connection() -> None:
    """Endless small frames end the connection; the next request has the whole limit again."""
    guard = FrameGuard()
    half = frame(8, b"") * (MAX_ARRIVING // 16 + 1)
    for _ in range(3):
        guard.allow()
        guard.check(half)

    with pytest.raises(exceptions.InvalidFrameError):
        guard.check(half)
