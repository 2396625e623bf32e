"""bts-exporter itself, as a process that serves the settings of a test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from servers import Process, free_port, listens

#: Starts an exporter with settings and further flags.
StartExporter = Callable[..., "Exporter"]


class Exporter(Process):
    """An exporter on a free loopback port."""

    def __init__(self, folder: Path, settings: str, *flags: str, enter: Sequence[str] = ()) -> None:
        """Start it; `enter` is what the command line begins with, such as nsenter and its arguments."""
        self.config = folder / "config.yaml"
        self.config.write_text(settings)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._argv = [
            *enter,
            sys.executable,
            "-m",
            "bts_exporter",
            f"--config.file={self.config}",
            f"--web.listen-address={self.address}",
            *flags,
        ]
        super().__init__(self._argv, folder)
        self.ready(lambda: listens(self.port))

    def restart(self) -> None:
        """End it, and start it again with the same settings and address."""
        self.kill()
        super().__init__(self._argv, self.config.parent)
        self.ready(lambda: listens(self.port))

    def get(
        self, path: str, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, str]:
        """Return status and text of the answer to one request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def samples(
        self, path: str = "/metrics"
    ) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return one scrape's samples by name and labels."""
        status, text = self.get(path)
        assert status == 200, text
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Return one sample of a new scrape; None when it is not served."""
        return self.samples().get((name, frozenset(labels.items())))


@pytest.fixture
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartExporter]:
    """Return a function that starts an exporter; all end with the test."""
    running: list[Exporter] = []

    def start(settings: str, *flags: str, enter: Sequence[str] = ()) -> Exporter:
        folder = tmp_path_factory.mktemp("exporter")
        running.append(Exporter(folder, settings, *flags, enter=enter))
        return running[-1]

    yield start
    for server in running:
        server.kill()
