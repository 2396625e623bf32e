"""The WebSocket against a peer that controls every byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bts_collectors.mqtt.client.websocket import MAX_FRAME, WebSocket, WebSocketError
from servers.mqttfake import accept_websocket, frame


@pytest.fixture
def pair() -> Iterator[tuple[WebSocket, socket.socket]]:
    """Return a WebSocket after its handshake, and the server's end of it."""
    ours, theirs = socket.socketpair()
    server = threading.Thread(target=accept_websocket, args=(theirs,), daemon=True)
    server.start()
    web = WebSocket(ours, "broker", "/mqtt", 10)
    server.join(10)
    web.setblocking(False)
    theirs.settimeout(10)
    yield web, theirs
    web.close()
    theirs.close()


def unmask(data: bytes) -> tuple[int, bytes, bytes]:
    """Return type and payload of a client's first frame, and the bytes after it."""
    size, at = data[1] & 127, 2
    if size == 126:
        size, at = int.from_bytes(data[2:4]), 4
    elif size == 127:
        size, at = int.from_bytes(data[2:10]), 10
    assert data[1] & 128
    mask, body = data[at : at + 4], data[at + 4 : at + 4 + size]
    payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(body))
    return data[0], payload, data[at + 4 + size :]


@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 65_535, 65_536])
def test_sent_data_is_one_masked_frame(pair: tuple[WebSocket, socket.socket], size: int) -> None:
    """For data of any length."""
    web, theirs = pair
    payload = bytes(n % 251 for n in range(size))

    assert web.send(payload) == size
    received = b""
    while len(received) < size + 6:
        received += theirs.recv(1 << 20)
    assert unmask(received) == (0x82, payload, b"")


def test_frame_that_does_not_fit_is_sent_in_pieces_and_once(
    pair: tuple[WebSocket, socket.socket],
) -> None:
    """If the server does not read, the caller repeats the same data until it is sent."""
    web, theirs = pair
    payload = b"x" * 4_000_000
    with pytest.raises(BlockingIOError):
        web.send(payload)
    received = bytearray()
    sent = 0
    while not sent:
        received += theirs.recv(1 << 20)
        with suppress(BlockingIOError):
            sent = web.send(payload)
    while len(received) < len(payload) + 14:
        received += theirs.recv(1 << 20)

    assert sent == len(payload)
    kind, _, rest = received[0], None, bytes(received[len(payload) + 14 :])
    assert (kind, rest) == (0x82, b"")


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 50))
def test_payload_arrives_complete_in_any_pieces(
    pair: tuple[WebSocket, socket.socket], payloads: list[bytes], step: int
) -> None:
    """Frames are joined and pings skipped, wherever the stream is cut."""
    web, theirs = pair
    stream = b"".join(frame(payload) + frame(b"hi", 9) for payload in payloads)
    expected, received = b"".join(payloads), b""
    for at in range(0, len(stream), step):
        theirs.sendall(stream[at : at + step])
        with suppress(BlockingIOError):
            received += web.recv(65536)

    assert received == expected
    for _ in payloads:
        assert unmask(theirs.recv(8))[:2] == (0x8A, b"hi")


def test_close_is_answered_and_ends(pair: tuple[WebSocket, socket.socket]) -> None:
    """Data before the close frame is returned; data after it is not."""
    web, theirs = pair
    theirs.sendall(frame(b"last") + frame(b"\x03\xe8", 8) + frame(b"more"))

    assert (web.recv(65536), web.recv(65536)) == (b"last", b"")
    assert unmask(theirs.recv(100))[:2] == (0x88, b"\x03\xe8")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\x82\x7f" + (MAX_FRAME + 1).to_bytes(8), "more than any MQTT packet"),
        (b"\x82\x7f" + b"\xff" * 8, "more than any MQTT packet"),
        (b"\x89\x7e\x00\x7e", "a control frame of 126 bytes"),
        (b"\x09\x00", "a control frame"),
        (b"\x81\x00", "a text frame"),
        (b"\x83\x00", "a frame of type 3"),
        (b"\xc2\x00", "instead of a binary one"),
        (b"\x82\x80", "a masked frame"),
    ],
)
def test_invalid_frame_is_refused(
    pair: tuple[WebSocket, socket.socket], head: bytes, words: str
) -> None:
    """By its header, before memory for its payload is allocated."""
    web, theirs = pair
    theirs.sendall(head)
    with pytest.raises(WebSocketError, match=words):
        web.recv(65536)


def test_flood_of_pings_does_not_fill_memory(pair: tuple[WebSocket, socket.socket]) -> None:
    """The number of unsent pongs is limited."""
    web, theirs = pair
    pings = frame(b"x" * 125, 9) * 100
    for _ in range(300):
        theirs.sendall(pings)
        with pytest.raises(BlockingIOError):
            web.recv(65536)

    assert len(web._unsent) < 200_000


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "Sec-WebSocket-Accept is wrong"),
        (b"\x20\x02\x00\x00", "does not speak HTTP"),
        (b"HTTP/1.1 101 x\r\n" + b"a: b\r\n" * 4000, "more than 16384 bytes of headers"),
    ],
)
def test_handshake_that_is_not_accepted_is_named(answer: bytes, words: str) -> None:
    """The message quotes the server's reply."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        with pytest.raises(WebSocketError, match=words):
            WebSocket(ours, "broker", "/mqtt", 10)


def test_handshake_has_one_deadline() -> None:
    """Single bytes from the server do not extend it."""
    ours, theirs = socket.socketpair()
    ended = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            theirs.sendall(b"HTTP/1.1 101 x\r\n")
            while not ended.wait(0.02):
                theirs.sendall(b"a")

    server = threading.Thread(target=drip, daemon=True)
    server.start()
    with ours, theirs:
        with pytest.raises(TimeoutError):
            WebSocket(ours, "broker", "/mqtt", 0.3)
        ended.set()
        server.join(10)
