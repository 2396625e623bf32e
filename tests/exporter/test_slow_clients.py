from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from bts_exporter.web import server as server_module
from bts_exporter.web.server import Request, Response
from servers import need, wait_until
from servers.listener import GET, Gate, Listener, Wire, listening, quiet

__all__ = ["quiet"]  # a fixture

HALF = b"GET / HTTP/1.1\r\nHost: te"
LARGE = 64_000_000


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Return a handler that waits until the test lets it respond."""
    gate = Gate()
    yield gate
    gate.open.set()


def large(_: Request) -> Response:
    """Respond with more bytes than any socket buffers."""
    return Response(200, bytes(LARGE))


def cut(listener: Listener, reason: str) -> Callable[[], bool]:
    """Return the condition that one connection was cut for `reason`, and its thread ended."""
    return lambda: listener.traffic.cut[reason] == 1 and listener.traffic.open == 0


def received(wire: Wire) -> int:
    """Return the number of bytes of the response."""
    count = 0
    try:
        while chunk := wire.incoming.read1():
            count += len(chunk)
    except OSError:
        pass
    return count


@pytest.mark.parametrize("sent", [b"", HALF], ids=["silent", "half-sent"])
def test_half_sent_request_is_cut(sent: bytes) -> None:
    """A client that does not finish its request loses its connection."""
    with listening(header_seconds=0.2) as listener, listener.wire() as wire:
        wire.send(sent)
        assert wire.ended()
        wait_until(cut(listener, "header_timeout"), "the connection is counted as cut")


def test_half_sent_second_request_is_cut() -> None:
    """Later requests of a connection have the same deadline as the first."""
    with listening(header_seconds=0.2) as listener, listener.wire() as wire:
        wire.ask()
        wire.send(HALF)
        assert wire.ended()
        wait_until(cut(listener, "header_timeout"), "the connection is counted as cut")


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nHost: test\r\nX: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n",
    ],
    ids=["header", "body"],
)
def test_dripping_request_is_cut(start: bytes) -> None:
    """A client that sends byte by byte is cut at the total deadline."""
    with listening(header_seconds=0.3) as listener, listener.wire() as wire:
        wire.send(start)

        def drip() -> bool:
            try:
                wire.send(b"x")
            except ConnectionError:
                return True
            return False

        wait_until(drip, "the connection is cut")
        wait_until(cut(listener, "header_timeout"), "the connection is counted as cut")


@pytest.mark.usefixtures("quiet")
def test_slow_reader_is_cut() -> None:
    """A client that does not read its response is cut, without a log line."""
    with listening(large, write_seconds=0.3) as listener, listener.wire() as wire:
        wire.send(GET)
        wait_until(cut(listener, "write_timeout"), "the connection is cut")

        # A reset: the kernel keeps nothing of the response for a client that does not read.
        with pytest.raises(ConnectionResetError):
            wire.incoming.read()


def test_dripping_reader_is_cut() -> None:
    """A client that reads its response slowly is cut at the total deadline."""
    with listening(large, write_seconds=0.3) as listener, listener.wire() as wire:
        wire.send(GET)

        def sip() -> bool:
            return not wire.sock.recv(100) or cut(listener, "write_timeout")()

        wait_until(sip, "the connection is cut")
        assert received(wire) < LARGE


def test_idle_connection_ends() -> None:
    """An idle connection is closed after a while, and not counted as cut."""
    with listening(idle_seconds=0.2) as listener, listener.wire() as wire:
        wire.ask()
        assert wire.ended()
    assert listener.traffic.cut == {"header_timeout": 0, "write_timeout": 0}


def test_long_answer_is_waited_for(gate: Gate) -> None:
    """The server has no deadline while the response is computed."""
    bounds = {"header_seconds": 0.1, "idle_seconds": 0.1, "write_seconds": 0.1}
    with listening(gate, **bounds) as listener, listener.wire() as wire:
        wire.send(GET)
        assert gate.inside.acquire(timeout=20)
        with listener.wire() as silent:
            assert silent.ended()  # by now the deadlines are over
        gate.open.set()

        assert wire.answer().body == b"at last\n"


@pytest.mark.usefixtures("quiet")
def test_client_that_goes_away_is_no_error(gate: Gate) -> None:
    """A client that disconnects early causes no log line."""
    with listening(gate) as listener:
        with listener.wire() as wire:
            wire.send(GET)
            assert gate.inside.acquire(timeout=20)
        gate.open.set()
        wait_until(lambda: listener.traffic.open == 0, "the connection is closed")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the server's and the client's side of TLS, with a certificate made for this test."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    argv = [need("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "1"]
    argv += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=test"]
    argv += ["-out", str(cert), "-keyout", str(key)]
    subprocess.run(argv, check=True, capture_output=True)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(cert, key)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname = False
    theirs.load_verify_locations(cert)
    return ours, theirs


def wrapping(context: ssl.SSLContext) -> Callable[[socket.socket], ssl.SSLSocket]:
    """Return a function that wraps a connection with TLS, without a handshake."""
    return lambda sock: context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


def test_serves_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Requests over TLS are answered, several over one connection."""
    ours, theirs = tls
    with listening(wrap=wrapping(ours)) as listener, listener.wire(theirs) as wire:
        assert [wire.ask().body for _ in range(3)] == [b"hello\n"] * 3


def test_silent_clients_do_not_stop_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Clients that do not complete the TLS handshake do not block others."""
    ours, theirs = tls
    with listening(wrap=wrapping(ours), header_seconds=3600) as listener, ExitStack() as stack:
        for sent in (b"", b"\x16\x03\x01") * 5:
            stack.enter_context(listener.wire()).send(sent)
        wait_until(lambda: listener.traffic.open == 10, "all are connected")
        with listener.wire(theirs) as wire:
            assert wire.ask().body == b"hello\n"


def test_half_handshake_is_cut(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """A handshake has the same deadline as a request."""
    ours, _ = tls
    with listening(wrap=wrapping(ours), header_seconds=0.2) as listener:
        with listener.wire() as wire:
            wire.send(b"\x16\x03\x01")
            assert wire.ended()
        wait_until(cut(listener, "header_timeout"), "the connection is counted as cut")
        assert listener.traffic.refused["handshake"] == 0


@pytest.mark.usefixtures("quiet")
def test_slow_reader_of_tls_is_cut(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """The write deadline applies to TLS as well, and nothing is sent in plain text."""
    ours, theirs = tls
    with (
        listening(large, wrap=wrapping(ours), write_seconds=0.3) as listener,
        listener.wire(theirs) as wire,
    ):
        wire.send(GET)
        wait_until(cut(listener, "write_timeout"), "the connection is cut")

        assert received(wire) < LARGE


@pytest.mark.usefixtures("quiet")
def test_failed_handshake_is_counted(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """A client without TLS is counted and not logged."""
    ours, _ = tls
    with listening(wrap=wrapping(ours)) as listener:
        with listener.wire() as wire:
            wire.send(GET)
            wait_until(lambda: listener.traffic.refused["handshake"], "the failure is counted")
        wait_until(lambda: listener.traffic.open == 0, "the connection is closed")


def test_busy_tls_server_refuses_without_a_word(
    gate: Gate, tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TLS client is refused without a response in plain text."""
    monkeypatch.setattr(server_module, "QUEUE_SECONDS", 0)
    ours, theirs = tls
    with (
        listening(gate, wrap=wrapping(ours), max_connections=1) as listener,
        listener.wire(theirs) as busy,
    ):
        busy.send(GET)
        assert gate.inside.acquire(timeout=20)
        with listener.wire() as refused:
            refused.send(b"\x16\x03\x01\x00\x01\x01")
            assert refused.ended()
    assert listener.traffic.refused["connections"] == 1
