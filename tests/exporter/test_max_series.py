"""A collector with more series than `max_series`, on the page of the real process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from servers import wait_until
from servers.exporter import Exporter, StartExporter
from stubs import drop_in

#: Emits ten series, then its `*_up`.
MANY = """\
import time
from bts_exporter import Collector, CollectorConfig, gauge

class Many(Collector):
    class Config(CollectorConfig):
        hangs: bool = False
        fails: bool = False
    series = gauge("many_series", "Series.", ("number",))
    up = gauge("many_up", "Whether the target is up.")
    def collect(self, scrape):
        scrape.emit_all(self.series, {(str(number),): number for number in range(10)})
        scrape.emit(self.up, 1)
        if self.config.hangs:
            time.sleep(600)
        if self.config.fails:
            raise ValueError("after all")
"""
#: The same for prometheus_client, with two distributions.
FOREIGN = """\
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily

class Foreign:
    def collect(self):
        times = HistogramMetricFamily("many_seconds", "Times.", labels=["of"])
        for of in "ab":
            times.add_metric([of], [("0.5", 1), ("1", 2), ("+Inf", 3)], sum_value=2)
        yield times
        series = GaugeMetricFamily("many_series", "Series.", labels=["number"])
        for number in range(10):
            series.add_metric([str(number)], number)
        yield series
        yield GaugeMetricFamily("many_up", "Whether the target is up.", value=1)
"""


class Found(NamedTuple):
    """The state of the collector on a page."""

    series: int
    up: float | None
    success: float | None
    dropped: float | None
    errors: dict[str, float]


Look = Callable[..., Found]


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """Return settings with both plug-ins; what follows is a collector in flow style."""
    drop_in(tmp_path / "plugins", "many", MANY)
    drop_in(tmp_path / "plugins", "foreign", FOREIGN)
    return f"plugins: {tmp_path}/plugins\nscrape_timeout: 1s\ncollectors: "


def look(exporter: Exporter, path: str = "/metrics", kind: str = "many") -> Found:
    """Return the state of the collector of this type on the page at `path`."""
    samples = exporter.samples(path)
    of = {
        name: value
        for (name, labels), value in samples.items()
        if dict(labels).get("collector") == kind and "reason" not in dict(labels)
    }
    return Found(
        series=sum(name == "many_series" for name, _ in samples),
        up=next((value for (name, _), value in samples.items() if name == "many_up"), None),
        success=of.get("bts_exporter_collector_success"),
        dropped=of.get("bts_exporter_collector_series_dropped_total"),
        errors={
            dict(labels)["reason"]: value
            for (name, labels), value in samples.items()
            if name == "bts_exporter_collector_errors_total"
        },
    )


@pytest.mark.parametrize("path", ["/metrics", "/probe?target=x"])
def test_truncated_collector(exporter: StartExporter, settings: str, path: str) -> None:
    """A truncated collection fails with `limited`, and has `max_series` series, its `_up` and its status."""
    server = exporter(settings + "{many: {name: x, max_series: 4}}")
    before = look(server, path)

    after = look(server, path)

    assert (after.series, after.up, after.success) == (4, 1, 0)
    # The service also collects once at its start, which may be in between.
    assert after.errors["limited"] > before.errors["limited"]
    assert after.dropped == 6 * after.errors["limited"]
    assert list(after.errors) == ["limited"]


def test_truncated_collector_that_fails_in_the_end(exporter: StartExporter, settings: str) -> None:
    """The error that ended the collection and the limit are both counted as reasons."""
    server = exporter(settings + "{many: {max_series: 4, fails: true}}")

    found = look(server)

    assert (found.series, found.up, found.success) == (4, 1, 0)
    assert set(found.errors) == {"internal", "limited"}
    assert found.dropped
    assert found.dropped % 6 == 0


def test_truncated_collector_that_hangs(exporter: StartExporter, settings: str) -> None:
    """A late collection serves its samples, and counts those that it dropped."""
    server = exporter(settings + "{many: {max_series: 4, hangs: true}}")
    # The service also collects once at its start: one of the two collections is late, the other busy.
    wait_until(lambda: "timeout" in look(server).errors, "the collection is given up")

    found = look(server)

    assert (found.success, found.dropped) == (0, 6)
    assert set(found.errors) == {"timeout", "limited", "busy"}


def test_truncated_collector_with_an_interval(exporter: StartExporter, settings: str) -> None:
    """Truncation is the same for collections in the background."""
    server = exporter(settings + "{many: {interval: 600s, max_series: 4}}")

    found = look(server)

    assert found == Found(4, 1, 0, 6, {"limited": 1})


def test_truncated_collector_with_an_interval_that_hangs(
    exporter: StartExporter, settings: str
) -> None:
    """A late collection in the background serves its samples, and counts those that it dropped."""
    server = exporter(settings + "{many: {interval: 1s, max_series: 4, hangs: true}}")
    wait_until(lambda: look(server).errors, "the collection is late")

    found = look(server)

    assert found == Found(4, 1, 0, 6, {"timeout": 1, "limited": 1})


def test_truncated_collector_of_prometheus_client(exporter: StartExporter, settings: str) -> None:
    """A prometheus_client collector keeps its `_up`, and no part of a distribution that does not fit."""
    server = exporter(settings + "{foreign: {max_series: 7}}")

    found = look(server, kind="foreign")
    _, text = server.get("/metrics", {"Accept": "application/openmetrics-text;version=1.0.0"})

    assert (found.series, found.up, found.success) == (2, 1, 0)
    assert list(found.errors) == ["limited"]
    [times] = [f for f in text_string_to_metric_families(text) if f.name == "many_seconds"]
    assert {sample.labels["of"] for sample in times.samples} == {"a"}


def test_status_of_every_collector_is_served(exporter: StartExporter, settings: str) -> None:
    """A collector without room for a single series has all its status metrics."""
    server = exporter(settings + "{many: {max_series: 1, metrics: {allow: [nothing]}}, host: }")
    text = server.get("/metrics")[1]

    lines = [line.partition("{")[0] for line in text.splitlines() if 'collector="many"' in line]
    assert set(lines) == {
        f"bts_exporter_collector_{name}"
        for name in (
            "duration_seconds",
            "last_success_timestamp_seconds",
            "series",
            "series_dropped_total",
            "success",
            "supported",
            "timeouts_total",
        )
    }
    assert "many_up 1\n" in text
    assert "many_series" not in text
