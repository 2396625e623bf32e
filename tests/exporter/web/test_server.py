from __future__ import annotations

import gc
import http.client
import itertools
import logging
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bts_exporter.web import descriptors
from bts_exporter.web import refusals as refusals_module
from bts_exporter.web import server as server_module
from bts_exporter.web.connections import Phase
from bts_exporter.web.protocol import MAX_PIPELINED
from bts_exporter.web.server import Request, Response, Server, listen
from servers import free_port, wait_until
from servers.listener import GET, Gate, Listener, hello, listening, quiet

__all__ = ["quiet"]  # a fixture

HALF = b"GET / HTTP/1.1\r\nHost: te"


def threads() -> list[str]:
    """Return the names of the threads that serve, the oldest first."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("http-")]


@pytest.fixture(autouse=True)
def _every_thread_ends() -> Iterator[None]:
    yield
    wait_until(lambda: not threads(), "all threads of the server end")


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Return a handler that waits until the test lets it respond."""
    gate = Gate()
    yield gate
    gate.open.set()


def test_serves_on_several_sockets() -> None:
    """One server answers on all of its sockets."""
    with listening(addresses=("127.0.0.1:0", "127.0.0.1:0")) as listener:
        for place in range(2):
            with listener.wire(place=place) as wire:
                assert wire.ask().body == b"hello\n"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_serves_ipv6() -> None:
    """IPv6 is served on separate sockets."""
    with listening(addresses=("[::1]:0",)) as listener, listener.wire() as wire:
        assert wire.ask().body == b"hello\n"


def test_serves_on_a_unix_socket(tmp_path: Path) -> None:
    """A passed socket may be a unix socket."""
    path = str(tmp_path / "http.sock")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    server = Server([sock], hello)
    server.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(path)
        client.sendall(GET)
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
    server.stop()


def test_many_clients_at_once_are_all_answered() -> None:
    """Fifty simultaneous clients get a response each."""
    barrier = threading.Barrier(50)
    statuses: list[int] = []

    def ask(listener: Listener) -> None:
        host, port = listener.places[0]
        client = http.client.HTTPConnection(host, port, timeout=20)
        barrier.wait(20)
        client.request("GET", "/")
        statuses.append(client.getresponse().status)
        client.close()

    with listening() as listener:
        threads = [threading.Thread(target=ask, args=(listener,)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        wait_until(lambda: listener.traffic.open == 0, "all connections are closed")

    assert statuses == [200] * 50
    assert listener.traffic.accepted == 50
    assert sum(listener.traffic.refused.values()) == 0


def test_idle_server_has_one_thread() -> None:
    """Threads start and end with connections."""
    with listening() as listener:
        assert threads() == ["http-accept"]
        with listener.wire() as wire:
            wire.ask()
            assert threads() == ["http-accept", "http-1"]
        wait_until(lambda: threads() == ["http-accept"], "the connection's thread ends")


@pytest.mark.parametrize("sent", [b"", HALF], ids=["silent", "half-sent"])
def test_clients_that_send_no_request_keep_nobody_out(sent: bytes) -> None:
    """Sixty clients with half a request do not delay others."""
    with listening(header_seconds=3600) as listener, ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(listener.wire()).send(sent)
        wait_until(lambda: listener.traffic.open == 60, "all are connected")
        with listener.wire() as wire:
            assert wire.ask().body == b"hello\n"


def test_silent_clients_do_not_fill_the_server() -> None:
    """More clients that send nothing than there are places still leave one for a client that asks."""
    with listening(header_seconds=3600, max_waiting=4) as listener, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(listener.wire())
        wait_until(lambda: listener.traffic.accepted == 20, "all are accepted")
        wait_until(lambda: listener.traffic.open <= 4, "most are given up")
        with listener.wire() as wire:
            assert wire.ask().body == b"hello\n"


def test_idle_connection_makes_room() -> None:
    """A connection kept for later is given up at once when another client needs its place."""
    with listening(max_connections=1) as listener, listener.wire() as first:
        first.ask()
        listener.wait_for(Phase.IDLE)
        with listener.wire() as second:
            assert second.ask().body == b"hello\n"
            assert first.ended()
    assert listener.traffic.cut == {"header_timeout": 0, "write_timeout": 0}


def test_busy_server_refuses(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """When every place is used by a running request, the response is a 503 with `Retry-After`."""
    monkeypatch.setattr(server_module, "QUEUE_SECONDS", 0)
    with listening(gate, max_connections=2) as listener, ExitStack() as stack:
        busy = [stack.enter_context(listener.wire()) for _ in range(2)]
        for wire in busy:
            wire.send(GET)
            assert gate.inside.acquire(timeout=20)
        with listener.wire() as wire:
            refusal = wire.ask()
            assert wire.ended()

        gate.open.set()
        assert [wire.answer().body for wire in busy] == [b"at last\n"] * 2
        with listener.wire() as wire:
            assert wire.ask().status == 200

    assert (refusal.status, refusal.headers["Retry-After"]) == (503, "1")
    assert refusal.body == b"all connections are in use\n"
    assert refusal.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in refusal.headers["Content-Security-Policy"]
    assert gate.asked == 3
    assert listener.traffic.refused["connections"] == 1


def test_refused_clients_that_stay_are_bounded(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused clients that stay are closed, the oldest first, the last one after a time."""
    monkeypatch.setattr(server_module, "QUEUE_SECONDS", 0)
    monkeypatch.setattr(server_module, "MAX_REFUSED", 2)
    bounds = {"header_seconds": 3600, "idle_seconds": 3600, "write_seconds": 3600}
    with listening(gate, max_connections=1, **bounds) as listener, ExitStack() as stack:
        busy = stack.enter_context(listener.wire())
        busy.send(GET)
        assert gate.inside.acquire(timeout=20)
        stayers = [stack.enter_context(listener.wire()) for _ in range(5)]
        for wire in stayers:
            wire.send(GET)
        assert [wire.answer().status for wire in stayers] == [503] * 5

        assert len(listener.server._refusals) <= 2
        wait_until(lambda: not len(listener.server._refusals), "no refused client is left")
        gate.open.set()
        assert busy.answer().status == 200


def test_refused_client_that_goes_is_forgotten(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused client that leaves releases its file descriptor at once."""
    monkeypatch.setattr(server_module, "QUEUE_SECONDS", 0)
    monkeypatch.setattr(refusals_module, "LINGER_SECONDS", 3600)
    with listening(gate, max_connections=1) as listener, listener.wire() as busy:
        busy.send(GET)
        assert gate.inside.acquire(timeout=20)
        with listener.wire() as wire:
            assert wire.ask().status == 503
            assert wire.incoming.read() == b""  # an end, not a reset
        wait_until(lambda: not len(listener.server._refusals), "no refused client is left")


@pytest.mark.usefixtures("quiet")
def test_refused_client_that_is_gone() -> None:
    """A refused client that disconnects at any moment causes no error."""
    with listening() as listener:
        ours, client = socket.socketpair()
        client.close()
        refusals = listener.server._refusals
        refusals.add(ours, b"refused")
        assert ours.fileno() == -1

        # Two events of one poll: a client takes the place of another that has just left.
        refusals.discard(ours)


def test_request_waits_for_a_thread(gate: Gate) -> None:
    """A request that comes while every place is taken is answered as soon as one is free."""
    with (
        listening(gate, max_connections=1) as listener,
        listener.wire() as first,
        listener.wire() as second,
    ):
        first.send(GET)
        assert gate.inside.acquire(timeout=20)
        second.send(GET)
        wait_until(lambda: listener.server._queue, "the second request waits")
        gate.open.set()

        assert [wire.answer().status for wire in (first, second)] == [200, 200]


def test_half_sent_request_gives_way() -> None:
    """A client that does not finish its request loses its place when others wait."""
    with listening(max_waiting=1, header_seconds=3600) as listener, listener.wire() as half:
        half.send(HALF)
        listener.wait_for(Phase.READING)
        with listener.wire() as wire:
            assert wire.ask().status == 200
        assert half.ended()
        assert listener.traffic.cut["header_timeout"] == 1


def test_reader_that_takes_nothing_gives_way() -> None:
    """A client that does not take its answer loses its place when others wait."""

    def answer(request: Request) -> Response:
        return Response(200, bytes(64_000_000) if request.path == "/large" else b"hello\n")

    with listening(answer, max_connections=1) as listener, listener.wire() as greedy:
        greedy.send(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
        listener.wait_for(Phase.WRITING)
        with listener.wire() as wire:
            assert wire.ask().body == b"hello\n"
        wait_until(lambda: listener.traffic.cut["write_timeout"] == 1, "it is counted as cut")


def test_pipelining_ends_when_others_wait(gate: Gate) -> None:
    """A client that has sent further requests already gives its place to others after an answer."""
    with (
        listening(gate, max_connections=1) as listener,
        listener.wire() as greedy,
        listener.wire() as modest,
    ):
        greedy.send(GET * 5)
        assert gate.inside.acquire(timeout=20)
        modest.send(GET)
        wait_until(lambda: listener.server._queue, "the other request waits")
        gate.open.set()

        assert greedy.answer().headers["Connection"] == "close"
        assert greedy.ended()
        assert modest.answer().status == 200


def test_pipelining_is_bounded() -> None:
    """A connection ends after a number of requests that were sent without waiting for answers."""
    with listening() as listener, listener.wire() as wire:
        wire.send(GET * (MAX_PIPELINED + 50))
        answers = [wire.answer() for _ in range(MAX_PIPELINED)]

        assert answers[-2].headers["Connection"] is None
        assert answers[-1].headers["Connection"] == "close"
        assert wire.ended()


def test_pipelined_answers_that_nobody_takes_are_not_made() -> None:
    """A pipelined request is handled after the previous response was sent."""
    count = itertools.count(1)
    asked = []

    def answer(_: Request) -> Response:
        asked.append(next(count))
        return Response(200, bytes(1_000_000))

    with listening(answer, header_seconds=3600) as listener, listener.wire() as greedy:
        greedy.send(GET * 50)
        listener.wait_for(Phase.WRITING)
        with listener.wire() as wire:
            assert wire.ask().status == 200

        assert len(asked) < 20


def test_connections_are_set_up() -> None:
    """Responses are sent without Nagle's delay, and socket's default timeout has no effect."""
    socket.setdefaulttimeout(1.0)
    try:
        with listening() as listener, listener.wire() as wire:
            wire.ask()
            [connection] = listener.server._connections._all()

            assert connection.socket.gettimeout() is None
            assert connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("method", ["start", "__init__"])
def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """If no thread can be started, clients are refused until one can."""

    def fail(*_: object, **__: object) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with listening() as listener:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, method, fail)
            with listener.wire() as wire:
                assert wire.ask().status == 503
            assert listener.traffic.open == 0
        with listener.wire() as wire:
            assert wire.ask().status == 200
    assert listener.traffic.refused["threads"] == 1


@contextmanager
def no_file_descriptor_left() -> Iterator[None]:
    """Let every attempt to open a file or socket fail within the block."""
    gc.collect()  # garbage must not release descriptors in between
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_file_descriptor_to_be_had(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a free descriptor the server logs it once, waits, and then serves."""
    monkeypatch.setattr(descriptors, "_RESERVED", 0)
    with listening() as listener, socket.socket() as client:
        client.settimeout(20)
        refused = listener.traffic.refused
        with no_file_descriptor_left():
            client.connect(listener.places[0])
            wait_until(lambda: refused["descriptors"] >= 2, "accepting is tried again")
        client.sendall(GET)
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "Too many open files; raise the limit of open files" in record.message


def test_some_file_descriptors_are_kept_for_the_listener() -> None:
    """Clients are served one after another though the rest of the process has taken every descriptor."""
    clients = [socket.socket() for _ in range(20)]
    with listening() as listener, ExitStack() as stack, no_file_descriptor_left():
        for client in clients:
            stack.enter_context(client).settimeout(20)
            client.connect(listener.places[0])
            client.sendall(GET)
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_no_file_descriptor_is_no_reason_to_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed accept the server pauses, though the client that waits is still to be accepted."""
    monkeypatch.setattr(descriptors, "_RESERVED", 0)
    monkeypatch.setattr(server_module, "ACCEPT_PAUSE_SECONDS", 3600)
    with listening() as listener, socket.socket() as client:
        with no_file_descriptor_left():
            client.connect(listener.places[0])
            wait_until(lambda: listener.traffic.refused["descriptors"], "accepting fails")
        listener.server.stop()
    assert listener.traffic.refused["descriptors"] == 1


def test_no_file_descriptor_makes_idle_connections_go() -> None:
    """An idle connection is given up for its file descriptor."""
    with listening() as listener, listener.wire() as idle, socket.socket() as client:
        client.settimeout(20)
        idle.ask()
        listener.wait_for(Phase.IDLE)
        with no_file_descriptor_left():
            client.connect(listener.places[0])
            client.sendall(GET)
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        assert idle.ended()


def test_error_of_the_listener_is_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of one connection does not affect the next one."""
    with listening() as listener:
        with monkeypatch.context() as patch:

            def fail(_: socket.socket) -> None:
                message = "a defect"
                raise ValueError(message)

            patch.setattr(listener.server._connections, "admit", fail)
            with listener.wire() as wire:
                wait_until(lambda: caplog.records, "the error is logged")
        with listener.wire() as wire:
            assert wire.ask().status == 200
    assert "a defect" in caplog.text


def test_stop_closes_what_is_idle() -> None:
    """Stopping ends idle connections and the listening socket at once."""
    with listening() as listener, listener.wire() as idle, listener.wire() as silent:
        idle.ask()
        wait_until(lambda: listener.traffic.open == 2, "both are connected")
        listener.server.stop(grace=3600)

        assert idle.ended()
        assert silent.ended()
        with pytest.raises(ConnectionRefusedError):
            listener.wire()


def test_stop_lets_a_running_request_finish(gate: Gate) -> None:
    """A request under way is answered in full, and its connection ends with that."""
    with listening(gate) as listener, listener.wire() as wire:
        wire.send(GET)
        assert gate.inside.acquire(timeout=20)
        stopper = threading.Thread(target=listener.server.stop, args=(3600,))
        stopper.start()
        wait_until(lambda: not accepts(listener), "no further connections are accepted")
        gate.open.set()
        answer = wire.answer()
        assert wire.ended()
        wire.close()
        stopper.join(20)

        assert (answer.body, answer.headers["Connection"]) == (b"at last\n", "close")
        assert not stopper.is_alive()


def test_stop_does_not_wait_longer_than_its_grace(gate: Gate) -> None:
    """A request that does not end in time is given up with its connection."""
    with listening(gate) as listener, listener.wire() as wire:
        wire.send(GET)
        assert gate.inside.acquire(timeout=20)
        listener.server.stop(grace=0.1)

        assert wire.ended()


def test_deadlines_hold_while_stopping() -> None:
    """A half-sent request does not delay the stop."""
    with listening(header_seconds=0.2) as listener, listener.wire() as wire:
        wire.send(HALF)
        wait_until(lambda: listener.traffic.open == 1, "it is connected")
        listener.server.stop(grace=3600)

        assert wire.ended()


def test_stop_twice_and_before_the_start() -> None:
    """A server can be stopped at any time."""
    server = Server([listen(f"127.0.0.1:{free_port()}")], hello)
    server.stop()
    server.stop()


def accepts(listener: Listener) -> bool:
    """Return whether a connection is accepted."""
    try:
        listener.wire().close()
    except ConnectionError:  # refused, or reset if it was still in the queue of the closed socket
        return False
    return True
