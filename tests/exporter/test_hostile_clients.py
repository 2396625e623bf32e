"""Many slow or greedy clients at a time do not block a scraper of the process."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from servers import wait_until
from servers.exporter import Exporter, StartExporter
from stubs import drop_in

SETTINGS = "collectors: {host: }\n"
#: A collector that opens no files.
ABSENT = "collectors: {redis: {url: 'redis://127.0.0.1:1', optional: true}}\n"
SCRAPES = 15

HALF = b"GET /metrics HTTP/1.1\r\nHost: te"
WHOLE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
HALF_BODY = b"POST /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nx"
HEALTHY = b"GET /-/healthy HTTP/1.1\r\nHost: test\r\n\r\n"


class Attackers:
    """Connections that send the same bytes, never read, and come back as soon as they are cut."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self._port = port
        self._stack = stack
        self._sockets: list[tuple[socket.socket, bytes]] = []

    def come(self, count: int, sent: bytes) -> None:
        """Open `count` more connections."""
        for _ in range(count):
            self._sockets.append((self._connect(sent), sent))

    def come_back(self) -> None:
        """Open another connection for each that was cut."""
        for i, (sock, sent) in enumerate(self._sockets):
            if self._is_cut(sock):
                sock.close()
                self._sockets[i] = self._connect(sent), sent

    def _connect(self, sent: bytes) -> socket.socket:
        sock = self._stack.enter_context(socket.socket())
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", self._port))
        wait_until(lambda: self._send(sock, sent), "the kernel accepts the connection")
        return sock

    @staticmethod
    def _send(sock: socket.socket, sent: bytes) -> bool:
        try:
            sock.send(sent)
        except BlockingIOError:
            return False
        except OSError:
            return True  # cut already
        return True

    @staticmethod
    def _is_cut(sock: socket.socket) -> bool:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        try:
            return not sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True


@contextmanager
def attackers(exporter: Exporter) -> Iterator[Attackers]:
    """Yield clients of an exporter, and close all of them in the end."""
    with ExitStack() as stack:
        yield Attackers(exporter.port, stack)


#: The number of clients, and the bytes that each of them sends.
ATTACKS = {
    "half a request": [(200, HALF)],
    "pipelining": [(140, WHOLE * 200)],
    "half a second request": [(200, HEALTHY + HALF)],
    "half a body": [(200, HALF_BODY)],
    "idle": [(200, HEALTHY)],
    "silent": [(200, b"")],
    "all at once": [(60, HALF), (60, WHOLE * 200), (60, HEALTHY + HALF), (60, HEALTHY)],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_good_scrapers_are_served(attack: str, exporter: StartExporter) -> None:
    """Slow and greedy clients from the same address do not block a scraper."""
    process = exporter(SETTINGS)
    with attackers(process) as them:
        for count, sent in ATTACKS[attack]:
            them.come(count, sent)
        statuses = []
        for _ in range(SCRAPES):
            them.come_back()
            statuses.append(process.get("/metrics")[0])

    assert statuses == [200] * SCRAPES


@pytest.mark.parametrize("limit", [64, 128, 256])
def test_few_file_descriptors(limit: int, exporter: StartExporter) -> None:
    """More clients than the process may open files do no harm, during the attack and afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        process = exporter(ABSENT)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with attackers(process) as them:
        them.come(150, HALF)
        them.come(150, WHOLE * 200)
        meanwhile = [process.get("/metrics")[0] for _ in range(3)]
    afterwards = [process.get("/metrics")[0] for _ in range(3)]

    assert (meanwhile, afterwards) == ([200] * 3, [200] * 3)


def test_target_that_hangs(exporter: StartExporter) -> None:
    """Many clients that wait for a hanging target leave room for a scraper."""
    with socket.create_server(("127.0.0.1", 0)) as target, ExitStack() as stack:
        url = f"redis://127.0.0.1:{target.getsockname()[1]}"
        process = exporter(f"collectors: {{redis: {{url: '{url}'}}}}\n")
        them = Attackers(process.port, stack)
        them.come(180, WHOLE * 200)
        hurried = {"X-Prometheus-Scrape-Timeout-Seconds": "1.5"}
        statuses = [process.get("/metrics", hurried)[0] for _ in range(3)]

    assert statuses == [200] * 3


LEAKY = """\
import os
from bts_exporter import Collector, gauge

class Leaky(Collector):
    leaked = gauge("leaked_files", "Files left open.")
    files = []

    def collect(self, scrape):
        try:
            while True:
                self.files.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            scrape.emit(self.leaked, len(self.files))
"""


def test_plugin_that_leaves_no_file_descriptor(exporter: StartExporter, tmp_path: Path) -> None:
    """If a plug-in has taken every file descriptor, scrapes are still answered."""
    drop_in(tmp_path / "plugins", "leaky", LEAKY)
    process = exporter(f"plugins: {tmp_path}/plugins\ncollectors: {{leaky: }}\n")
    resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (256, 256))
    statuses = [process.get("/metrics")[0] for _ in range(SCRAPES)]

    assert statuses == [200] * SCRAPES
    assert (process.value("leaked_files") or 0) > 100
