"""More scrapes at once than the exporter answers at a time, against the process."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from servers.exporter import StartExporter
from stubs import drop_in

#: More than there are places for answers.
CROWD = 640
GET = b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"

SELECTABLE = """\
import time
from bts_exporter import Collector, CollectorConfig, gauge

class Part(Collector):
    class Config(CollectorConfig, frozen=True):
        pass
    part = gauge("part", "One of many.", labels=("name",))
    @classmethod
    def build(cls, config):
        made = [cls(config) for _ in range(100)]
        for number, one in enumerate(made):
            one.name = f"part{number}"
        return made
    def collect(self, scrape):
        time.sleep(0.2)
        scrape.emit(self.part, 1, self.name)
"""


def test_clients_that_wait_for_a_target_that_hangs(exporter: StartExporter) -> None:
    """However many scrapes wait for one target that hangs, a scrape of another collector is answered."""
    with socket.create_server(("127.0.0.1", 0)) as target, ExitStack() as stack:
        url = f"redis://127.0.0.1:{target.getsockname()[1]}"
        process = exporter(f"collectors: {{host: , redis: {{url: '{url}'}}}}\n")
        for _ in range(CROWD):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", process.port)))
            sock.sendall(GET)
        statuses = [
            process.get(path, {"X-Prometheus-Scrape-Timeout-Seconds": "10"})[0]
            for path in ("/metrics?collect[]=host", "/-/healthy", "/", "/metrics?collect[]=host")
        ]

    assert statuses == [200] * 4


def test_many_different_selections_at_once(exporter: StartExporter, tmp_path: Path) -> None:
    """A hundred scrapes of a collector each, at the same time, are all answered: they wait for their turn."""
    drop_in(tmp_path / "plugins", "parts", SELECTABLE)
    process = exporter(f"plugins: {tmp_path}/plugins\ncollectors: {{parts: }}\n")

    def scrape(number: int) -> int:
        return process.get(f"/metrics?collect[]=part{number}")[0]

    with ThreadPoolExecutor(100) as pool:
        statuses = list(pool.map(scrape, range(100)))

    assert statuses == [200] * 100
