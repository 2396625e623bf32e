"""Debian's redis-server: in memory only, on a free port of the loopback address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from bts_exporter import Url
from servers import Process, free_port, listens, need

#: Starts a server of the test's own, with further arguments for redis-server.
MakeRedis = Callable[..., "RedisServer"]
#: Starts a listener that does the given to every connection; returns its address.
Listen = Callable[[Callable[[socket.socket], None]], Url]


class RedisServer(Process):
    """A Redis of our own; `client` is redis-py's, which the collector does not use."""

    def __init__(self, folder: Path, *arguments: str, port: int = 0) -> None:
        """Start it in `folder`; `arguments` are redis-server's own."""
        self.folder = folder
        self.arguments = arguments
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        program = need("redis-server", "redis-server")
        where = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder))
        super().__init__([program, *where, "--save", "", *arguments], folder)
        self.ready(lambda: listens(self.port), seconds=10)
        self.client = redis.Redis(port=self.port, retry=None)

    def kill(self) -> None:
        """End the server and the test's own connection."""
        if hasattr(self, "client"):
            self.client.close()
        super().kill()

    def again(self) -> RedisServer:
        """Return a new server at the same address, with the same arguments and no data."""
        self.kill()
        return RedisServer(self.folder, *self.arguments, port=self.port)

    def clear(self) -> None:
        """Put the server back as it was new, but for its configuration."""
        self.client.flushall()
        self.client.config_resetstat()


@pytest.fixture(scope="session")
def _shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def redis_server(_shared_redis: RedisServer) -> RedisServer:
    """Give an empty Redis; all tests share it, so leave its users, settings and process alone."""
    _shared_redis.clear()
    return _shared_redis


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[MakeRedis]:
    """Give a factory of servers that a test may freeze, kill and configure."""
    servers: list[RedisServer] = []

    def make(*arguments: str) -> RedisServer:
        folder = tmp_path / f"redis{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(folder, *arguments))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def redis_listener() -> Iterator[Listen]:
    """Give a function that starts a listener which is no Redis; all are closed after the test."""
    listeners: list[socket.socket] = []
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(listener: socket.socket, behave: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            with suppress(OSError):
                behave(connection)

    def start(behave: Callable[[socket.socket], None]) -> Url:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threads.append(threading.Thread(target=serve, args=(listener, behave), daemon=True))
        threads[-1].start()
        return Url("redis", "127.0.0.1", listener.getsockname()[1])

    yield start
    for one in (*listeners, *connections):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
    for thread in threads:
        thread.join(10)
