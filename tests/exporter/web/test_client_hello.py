from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from bts_exporter.web.client_hello import Hello, look_at

HELLO = b"\x16\x03\x01\x00\x0a0123456789"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends of a TCP connection; ours does not block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
        ours.setblocking(False)
        with ours, client:
            yield ours, client


def readable(sock: socket.socket, seconds: float = 20.0) -> bool:
    """Return whether a selector would report `sock`."""
    return bool(select.select([sock], [], [], seconds)[0])


def test_nothing_has_arrived(pair: tuple[socket.socket, socket.socket]) -> None:
    """A socket without bytes says so as sockets do."""
    with pytest.raises(BlockingIOError):
        look_at(pair[0])


@pytest.mark.parametrize("length", range(1, len(HELLO)))
def test_part_of_a_record(pair: tuple[socket.socket, socket.socket], length: int) -> None:
    """Part of a record leaves the socket unreadable until the record is complete."""
    ours, client = pair
    client.sendall(HELLO[:length])
    assert readable(ours)
    assert look_at(ours) is Hello.PARTIAL
    assert not readable(ours, 0)
    client.sendall(HELLO[length:])
    assert readable(ours)
    found = look_at(ours)
    if found is Hello.PARTIAL:  # now it knows the length
        assert readable(ours)
        found = look_at(ours)
    assert found is Hello.COMPLETE
    assert ours.recv(100) == HELLO
    client.sendall(b"x")
    assert readable(ours)


@pytest.mark.parametrize("length", range(len(HELLO)))
def test_client_that_closes_its_side(
    pair: tuple[socket.socket, socket.socket], length: int
) -> None:
    """The end of a client is seen, also in the middle of a record."""
    ours, client = pair
    client.sendall(HELLO[:length])
    if length:
        assert readable(ours)
        assert look_at(ours) is Hello.PARTIAL
    client.shutdown(socket.SHUT_WR)
    assert readable(ours)
    assert look_at(ours) is (Hello.COMPLETE if length else Hello.GONE)


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (b"GET / HTTP/1.1", Hello.HTTP),
        (b"OPTIONS / HTTP", Hello.HTTP),
        (b"G", Hello.HTTP),
        (b"\x15\x03\x01\x00\x02\x01\x00", Hello.OTHER),
        (b"SSH-2.0", Hello.OTHER),
        (b"\0", Hello.OTHER),
    ],
)
def test_other_protocols(
    pair: tuple[socket.socket, socket.socket], sent: bytes, found: Hello
) -> None:
    """What is no handshake is recognised by its first bytes."""
    ours, client = pair
    client.sendall(sent)
    assert readable(ours)
    assert look_at(ours) is found


def test_unix_socket() -> None:
    """On a unix socket a handshake is not awaited whole: it is readable with its first byte."""
    ours, client = socket.socketpair()
    with ours, client:
        client.sendall(HELLO[:3])
        assert look_at(ours) is Hello.COMPLETE


def test_length_is_bounded(pair: tuple[socket.socket, socket.socket]) -> None:
    """A record that announces more than TLS permits is passed on before all of it has arrived."""
    ours, client = pair
    client.sendall(b"\x16\x03\x01\xff\xff" + bytes(17_000))
    while readable(ours) and look_at(ours) is Hello.PARTIAL:
        pass
    assert ours.recv(5) == b"\x16\x03\x01\xff\xff"
