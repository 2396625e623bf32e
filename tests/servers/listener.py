"""The exporter's HTTP listener with a function behind it, and clients that see every byte."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest

from bts_exporter.web.connections import Phase
from bts_exporter.web.server import Handle, Request, Response, Server, listen
from servers import wait_until

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


class Answer(NamedTuple):
    """What a client got."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Wire:
    """A client's connection, byte by byte."""

    def __init__(self, address: tuple[Any, ...], tls: ssl.SSLContext | None = None) -> None:
        self.sock = socket.create_connection(address[:2], timeout=20)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock)
        self.incoming = self.sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`; ConnectionError if the server is gone."""
        self.sock.sendall(data)

    def answer(self, *, head_only: bool = False) -> Answer:
        """Read one answer; AssertionError where there is none."""
        line = self.incoming.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = http.client.parse_headers(self.incoming)
        length = 0 if head_only else int(headers["Content-Length"])
        return Answer(int(line.split()[1]), headers, self.incoming.read(length))

    def ask(self, request: bytes = GET) -> Answer:
        """Send one request and read its answer."""
        self.send(request)
        return self.answer()

    def ended(self) -> bool:
        """Wait for the end of the connection; False if there is something to read instead."""
        try:
            return self.incoming.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        """End the connection."""
        self.incoming.close()
        self.sock.close()


class Listener:
    """A running server on 127.0.0.1."""

    def __init__(self, handle: Handle, addresses: tuple[str, ...], **options: Any) -> None:
        sockets = [listen(address) for address in addresses]
        self.places = [sock.getsockname() for sock in sockets]
        self.server = Server(sockets, handle, **options)
        self.traffic = self.server.traffic
        self.server.start()

    def wire(self, tls: ssl.SSLContext | None = None, *, place: int = 0) -> Wire:
        """Connect to the server, on one of its sockets."""
        return Wire(self.places[place], tls)

    def wait_for(self, phase: Phase) -> None:
        """Wait until all connections are in `phase`: a client has its answer before the thread knows."""
        connections = self.server._connections
        wait_until(
            lambda: {connection.phase for connection in connections._all()} == {phase},
            f"all connections are {phase.name.lower()}",
        )


def hello(_: Request) -> Response:
    """Answer any request."""
    return Response(200, b"hello\n")


class Gate:
    """A function that answers when it is let; `inside` is released for each that waits."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.open = threading.Event()
        self.asked = 0

    def __call__(self, _: Request) -> Response:
        """Answer one request as soon as the gate is open."""
        self.asked += 1
        self.inside.release()
        assert self.open.wait(30)
        return Response(200, b"at last\n")


@contextmanager
def listening(
    handle: Callable[[Request], Response] = hello,
    *,
    addresses: tuple[str, ...] = ("127.0.0.1:0",),
    **options: Any,
) -> Iterator[Listener]:
    """Run a server for as long as the block lasts."""
    listener = Listener(handle, addresses, **options)
    try:
        yield listener
    finally:
        listener.server.stop(grace=0)


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Fail the test if anything was logged, or printed to stderr."""
    yield
    assert (caplog.get_records("call"), capfd.readouterr().err) == ([], "")
