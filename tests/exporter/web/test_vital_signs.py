from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from bts_exporter.web import vital_signs
from bts_exporter.web.server import Server
from bts_exporter.web.vital_signs import VitalSigns
from servers import wait_until
from servers.listener import hello


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """Return a listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def server(sock: socket.socket) -> Iterator[Server]:
    """Return a server that serves on the socket."""
    server = Server([sock], hello)
    server.start()
    yield server
    server.stop()


def test_server_that_serves(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no problem, also if the thread must respond at once."""
    assert server.stalled() == ""
    monkeypatch.setattr(vital_signs, "_RESPONSE_SECONDS", 0.0)

    wait_until(lambda: server.stalled() == "", "it responds")


def test_thread_that_died(sock: socket.socket) -> None:
    """A server without its thread accepts nothing."""
    server = Server([sock], hello)
    problem = server.stalled()
    server.stop()

    assert "has died" in problem


def test_thread_that_does_not_respond(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is alive and makes no turn is reported, until it makes one."""
    signs = VitalSigns([sock])
    alive = threading.current_thread()
    woken: list[bool] = []

    assert signs.problem(alive, lambda: woken.append(True)) == ""
    assert woken == [True]
    assert signs.problem(alive, lambda: None) == ""  # it has some seconds
    monkeypatch.setattr(vital_signs, "_RESPONSE_SECONDS", 0.0)
    assert "does not respond" in signs.problem(alive, lambda: None)
    signs.beat()
    assert signs.problem(alive, lambda: None) == ""


@pytest.mark.parametrize("how", ["shut down", "closed", "replaced"])
def test_socket_that_listens_no_more(how: str) -> None:
    """A listening socket that was shut down, closed or replaced by another file is reported."""
    sock = socket.create_server(("127.0.0.1", 0))
    signs = VitalSigns([sock])
    with socket.create_server(("127.0.0.1", 0)) as other:
        match how:
            case "shut down":
                sock.shutdown(socket.SHUT_RDWR)
            case "closed":
                sock.close()
            case _:
                sock.close()
                sock = other
                signs._sockets = [(other, signs._sockets[0][1])]

        assert "has been closed" in signs.problem(threading.current_thread(), lambda: None)
    sock.close()


def test_no_thread_left(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that can start no thread answers no request."""
    signs = VitalSigns([sock])

    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    problem = signs.problem(threading.current_thread(), lambda: None)

    assert problem.startswith("no thread for a connection: can't start new thread")
