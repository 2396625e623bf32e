"""NotPresent, raised before and after samples were emitted, on the page of the real process."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers import wait_until
from servers.exporter import StartExporter
from stubs import drop_in

#: Emits the number of its collections, then raises NotPresent.
PARTLY = """\
from bts_exporter import Collector, CollectorConfig, NotPresent, gauge

class Partly(Collector):
    class Config(CollectorConfig):
        drops: bool = False
    local = True
    collections = gauge("partly_collections", "Collections so far.")
    series = gauge("partly_series", "Series.", ("number",))
    def __init__(self, config):
        super().__init__(config)
        self.count = 0
    def collect(self, scrape):
        self.count += 1
        scrape.emit(self.collections, self.count)
        if self.config.drops:
            scrape.emit_all(self.series, {("1",): 1, ("2",): 2})
        raise NotPresent("the other half is absent")
"""
#: The same for prometheus_client.
FOREIGN = """\
from bts_exporter import NotPresent
from prometheus_client.core import GaugeMetricFamily

class Foreign:
    count = 0
    def collect(self):
        self.count += 1
        yield GaugeMetricFamily("partly_collections", "Collections so far.", value=self.count)
        raise NotPresent("the other half is absent")
"""
#: Raises NotPresent, and records how often it was collected; the first time it is late.
ABSENT = """\
import time
from pathlib import Path
from bts_exporter import Collector, CollectorConfig, NotPresent

class Absent(Collector):
    class Config(CollectorConfig):
        diary: str
        late: bool = False
    def collect(self, scrape):
        with open(self.config.diary, "a") as diary:
            diary.write("x")
        if self.config.late and len(Path(self.config.diary).read_text()) == 1:
            time.sleep(3)
        raise NotPresent("not here")
"""


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """Return settings with the plug-ins; what follows are collectors in flow style."""
    for name, source in (("partly", PARTLY), ("foreign", FOREIGN), ("absent", ABSENT)):
        drop_in(tmp_path / "plugins", name, source)
    return f"plugins: {tmp_path}/plugins\nscrape_timeout: 1s\ncollectors: "


@pytest.mark.parametrize("kind", ["partly", "foreign"])
def test_what_was_emitted_is_fresh_and_a_success(
    exporter: StartExporter, settings: str, kind: str
) -> None:
    """A collector that emits before it finds a part absent is collected at each scrape, and succeeds."""
    server = exporter(f"{settings}{{{kind}: }}")

    counts = []
    for _ in range(3):
        samples = {name: value for (name, _), value in server.samples().items()}
        counts.append(samples["partly_collections"])
        assert samples["bts_exporter_collector_success"] == 1
        assert samples["bts_exporter_collector_supported"] == 1

    # The service also collects once at its start, which may be in between.
    assert counts == sorted(set(counts))


def test_host_collector_that_misses_a_part(exporter: StartExporter, tmp_path: Path) -> None:
    """If one of the two files of `entropy` is absent, the other is served and the collector is supported."""
    folder = tmp_path / "proc/sys/kernel/random"
    folder.mkdir(parents=True)
    entropy = folder / "entropy_avail"
    entropy.write_text("256\n")
    server = exporter(f"collectors: {{host: {{procfs: {tmp_path}/proc}}}}")
    before = server.value("node_entropy_available_bits")
    entropy.write_text("255\n")

    assert (before, server.value("node_entropy_available_bits")) == (256, 255)
    for name in ("success", "supported"):
        metric = f"bts_exporter_collector_{name}"
        assert server.value(metric, collector="entropy", target="") == 1


def test_what_the_settings_leave_out_counts_as_emitted(
    exporter: StartExporter, settings: str
) -> None:
    """A collector whose samples are all filtered out is supported."""
    server = exporter(settings + "{partly: {metrics: {deny: [partly_collections]}}}")

    assert server.value("bts_exporter_collector_supported", collector="partly", target="") == 1


def test_series_that_were_dropped_are_a_failure(exporter: StartExporter, settings: str) -> None:
    """A truncated collection is a failure, also if a part was absent after that."""
    server = exporter(settings + "{partly: {drops: true, max_series: 2}}")

    assert server.value("bts_exporter_collector_success", collector="partly", target="") == 0
    limited = {"collector": "partly", "target": "", "reason": "limited"}
    assert server.value("bts_exporter_collector_errors_total", **limited)


def test_what_is_absent_is_not_looked_for_again(
    exporter: StartExporter, settings: str, tmp_path: Path
) -> None:
    """A collector that emitted nothing is not asked again for a minute."""
    server = exporter(f"{settings}{{absent: {{diary: {tmp_path}/diary}}}}")
    for _ in range(3):
        name = "bts_exporter_collector_supported"
        assert server.value(name, collector="absent", target="") == 0

    assert (tmp_path / "diary").read_text() == "x"


def test_collection_that_was_late_is_not_kept_for_a_minute(
    exporter: StartExporter, settings: str, tmp_path: Path
) -> None:
    """A collector that raised NotPresent after the deadline is collected again."""
    server = exporter(f"{settings}{{absent: {{diary: {tmp_path}/diary, late: true}}}}")
    late = server.value("bts_exporter_collector_success", collector="absent", target="")

    wait_until(
        lambda: server.value("bts_exporter_collector_success", collector="absent", target="") == 1,
        "it is asked again",
    )

    assert late == 0
    assert server.value("bts_exporter_collector_supported", collector="absent", target="") == 0
