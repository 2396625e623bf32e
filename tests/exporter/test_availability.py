"""Metrics named `*_up` of a collector that is late, and then busy."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers import wait_until
from servers.exporter import Exporter, StartExporter
from stubs import drop_in

#: Emits its `*_up` and other metrics, and hangs until a file appears.
SLOW = """\
import time
from pathlib import Path
from bts_exporter import Collector, CollectorConfig, gauge

class Slow(Collector):
    class Config(CollectorConfig):
        file: str
        corrupt: bool = False
    up = gauge("slow_up", "Whether the target answers.")
    node_up = gauge("slow_node_up", "Whether a node answers.", labels=("node",))
    value = gauge("slow_value", "A value.")
    def collect(self, scrape):
        scrape.emit(self.up, 0)
        scrape.replace(self.up, 1)
        scrape.emit(self.node_up, 1, "a")
        scrape.emit(self.node_up, 0, "b")
        scrape.emit(self.value, 7)
        if self.config.corrupt:
            scrape.samples[5] = scrape.samples[self.value] = 5
        while not Path(self.config.file).exists():
            time.sleep(0.01)
"""
UP = {
    ("slow_up", frozenset[tuple[str, str]]()): 1,
    ("slow_node_up", frozenset({("node", "a")})): 1,
    ("slow_node_up", frozenset({("node", "b")})): 0,
}


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """Return settings with the collector; what follows are more of its own, in flow style."""
    drop_in(tmp_path / "plugins", "slow", SLOW)
    return f"plugins: {tmp_path}/plugins\nscrape_timeout: 600ms\ncollectors: {{slow: {{file: {tmp_path}/end"


def served(server: Exporter) -> tuple[dict[object, float], set[str]]:
    """Return the collector's samples, and the reasons of its failures so far."""
    found = server.samples()
    own = {sample: value for sample, value in found.items() if sample[0].startswith("slow_")}
    reasons = {
        dict(labels)["reason"]
        for (name, labels), count in found.items()
        if name == "bts_exporter_collector_errors_total" and count
    }
    return dict(own), reasons


def test_busy_page_says_what_is_up(exporter: StartExporter, settings: str, tmp_path: Path) -> None:
    """Scrapes behind a collection that hangs serve its availability metrics, and not its others."""
    server = exporter(f"{settings}}}}}")
    wait_until(lambda: "busy" in served(server)[1], "a scrape behind the one that hangs")

    pages = [served(server)[0] for _ in range(2)]
    (tmp_path / "end").touch()
    wait_until(lambda: len(served(server)[0]) == 4, "it is collected again")

    assert pages == [UP, UP]


def test_filter_holds_on_a_busy_page(exporter: StartExporter, settings: str) -> None:
    """Metrics that the settings leave out are on no page, also of a busy collector."""
    server = exporter(f"{settings}, metrics: {{deny: [slow_node_up]}}}}}}")
    wait_until(lambda: "busy" in served(server)[1], "a scrape behind the one that hangs")

    assert served(server)[0] == {("slow_up", frozenset()): 1}


def test_late_collection_with_spoilt_samples(exporter: StartExporter, settings: str) -> None:
    """A late or busy collector with overwritten samples does not affect others."""
    server = exporter(f"{settings}, corrupt: true}}, host: }}")

    late, _ = served(server)
    wait_until(lambda: {"timeout", "busy"} <= served(server)[1], "a late scrape, and one behind it")

    assert (late, served(server)[0]) == (UP, UP)
    assert server.value("node_load1") >= 0
