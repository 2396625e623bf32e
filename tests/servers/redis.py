"""Debian's redis-server: in memory only, on a free port of the loopback address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from bts_collectors.redis.collector import RedisCollector
from bts_exporter import Secret, TargetError, Url, testing
from servers import Process, free_port, listens, need, wait_until

#: Starts a server of the test's own, with further arguments for redis-server.
MakeRedis = Callable[..., "RedisServer"]
#: Makes a collector from an address, a password and further settings.
MakeCollector = Callable[..., RedisCollector]
#: Starts a listener that does the given to every connection; returns its address.
Listen = Callable[[Callable[[socket.socket], None]], Url]


class RedisServer(Process):
    """A Redis of our own; `client` is redis-py's, which the collector does not use."""

    def __init__(self, folder: Path, *arguments: str, program: str | None = None) -> None:
        """Start it in `folder`; `arguments` are redis-server's own, `program` is another version's."""
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        where = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder))
        program = program or need("redis-server", "redis-server")
        self._argv = [program, *where, "--save", "", *arguments]
        self.client = redis.Redis(port=self.port, retry=None)
        self.restart()

    def restart(self) -> None:
        """Start it, or start it again after `kill`: at the same address, without its data."""
        super().__init__(self._argv, self.folder)
        self.ready(lambda: listens(self.port), seconds=10)

    def kill(self) -> None:
        """End the server and the test's own connection."""
        self.client.close()
        super().kill()

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
    """Give an empty Redis; all tests share it, so do not change its users, settings and process."""
    _shared_redis.clear()
    return _shared_redis


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[MakeRedis]:
    """Give a factory of servers that a test may freeze, kill and configure."""
    servers: list[RedisServer] = []

    def make(*arguments: str, program: str | None = None) -> RedisServer:
        folder = tmp_path / f"redis{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(folder, *arguments, program=program))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def redis_collector() -> Iterator[MakeCollector]:
    """Give a factory of collectors; all are stopped after the test."""
    made: list[RedisCollector] = []

    def make(url: str, password: str | None = None, **settings: Any) -> RedisCollector:
        secret = None if password is None else Secret(password)
        config = RedisCollector.Config(url=Url.from_setting(url), password=secret, **settings)
        made.append(RedisCollector(config))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def failure(collector: RedisCollector, seconds: float = 10) -> tuple[testing.Samples, TargetError]:
    """Return what a collection emits, and the error that it raises or reports."""
    samples, error = testing.look(collector, seconds)
    assert error is not None, "the collection succeeded"
    return samples, error


def reason_when_stopped(collector: RedisCollector) -> str:
    """Return how a collection ends that could go on for minutes, when the collector is stopped."""
    reasons: list[str] = []
    collecting = threading.Thread(
        target=lambda: reasons.append(failure(collector, 600)[1].reason), daemon=True
    )
    stopping = threading.Thread(target=collector.stop, daemon=True)
    collecting.start()
    wait_until(collector._collecting.locked, "the collection is under way")
    stopping.start()
    for thread in (stopping, collecting):
        thread.join(60)
        assert not thread.is_alive()
    (reason,) = reasons
    return reason


def ports_of(samples: testing.Samples) -> set[str]:
    """Return the port that the server says it has whose INFO was collected."""
    identity = next(m for m in RedisCollector.declared() if m.name == "redis_instance_info")
    return {labels[identity.labels.index("tcp_port")] for labels in samples[identity.name]}


def calls(client: redis.Redis, command: str) -> int:
    """Return how often a command was called."""
    stats = client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


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

    def all_ended() -> bool:
        # Again and again: a thread may have accepted a connection since we looked.
        for one in (*listeners, *connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        return not any(thread.is_alive() for thread in threads)

    yield start
    wait_until(all_ended, "listeners ended")
    for one in (*listeners, *connections):
        one.close()
