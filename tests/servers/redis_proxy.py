"""A proxy in front of a real Redis that answers one command in a way of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hiredis import Reader, pack_command

from servers import wait_until

#: Behaves oddly at a command: is given the client's connection; returning False closes it.
Oddity = Callable[[socket.socket], bool]
#: Starts a proxy to a port, for a command such as `LATENCY LATEST`; returns the proxy's port.
MakeProxy = Callable[[int, str, Oddity], int]


class RedisProxy:
    """Passes all commands on, and all replies back, except one command's."""

    def __init__(self, upstream: int, command: str, oddity: Oddity) -> None:
        """Listen; `upstream` is the port of the real server."""
        self._upstream = upstream
        self._words = [word.encode() for word in command.split()]
        self._oddity = oddity
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def stop(self) -> None:
        """End all connections and threads."""

        def all_ended() -> bool:
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            return not any(thread.is_alive() for thread in self._threads)

        wait_until(all_ended, "the proxy ended")
        for one in self._sockets:
            one.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        commands = Reader()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._upstream)) as server:
            while received := client.recv(65536):
                commands.feed(received)
                while (command := commands.gets()) is not False:
                    if not self._answer(client, server, command):
                        return
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _answer(self, client: socket.socket, server: socket.socket, command: list[bytes]) -> bool:
        if command[: len(self._words)] == self._words:
            kept = self._oddity(client)
            if not kept:
                client.shutdown(socket.SHUT_RDWR)
            return kept
        server.sendall(pack_command(tuple(command)))  # type: ignore[arg-type]  # the stub says: of one word
        replies = Reader()
        while replies.gets() is False:
            received = server.recv(65536)
            replies.feed(received)
            client.sendall(received)
        return True


@pytest.fixture
def redis_proxy() -> Iterator[MakeProxy]:
    """Give a factory of proxies; all are ended after the test."""
    proxies: list[RedisProxy] = []

    def make(upstream: int, command: str, oddity: Oddity) -> int:
        proxies.append(RedisProxy(upstream, command, oddity))
        return proxies[-1].port

    yield make
    for proxy in proxies:
        proxy.stop()
