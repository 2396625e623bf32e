"""bts-exporter itself, as a process that serves the settings of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bts.programs import ends_with_this_process
from bts_exporter.testing import ExporterProcess
from servers import Process

#: Starts an exporter with settings and further flags.
StartExporter = Callable[..., "Exporter"]


class Exporter(ExporterProcess, Process):
    """An exporter on a free loopback port, whose pages prometheus_client's parser reads."""

    def __init__(self, folder: Path, settings: str, *flags: str, enter: Sequence[str] = ()) -> None:
        enter = [*ends_with_this_process(), *enter]
        ExporterProcess.__init__(self, folder, settings, *flags, enter=enter)

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
