"""Metrics of one name from several collectors whose metrics are only known at the scrape."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from servers import need, wait_until
from servers.exporter import Exporter, StartExporter
from stubs import drop_in

PLUGIN = """\
from prometheus_client.core import *

class Foreign:
    def collect(self):
{body}
"""
LATENCY = """\
        family = HistogramMetricFamily("latency_seconds", "Latency.", labels=["path"])
        family.add_metric(["/"], [("{bound}", {count}), ("+Inf", {count})], {count})
        yield family
        yield SummaryMetricFamily("size_bytes", "Size.", count_value={count}, sum_value={count})
"""
FIRST = """\
        yield GaugeMetricFamily("jobs", "Jobs.", value=1)
        family = GaugeMetricFamily("size", "Size.", labels=["b", "a"])
        family.add_metric(["2", "1"], 1)
        yield family
"""
SECOND = """\
        family = GaugeMetricFamily("jobs", "Jobs.", labels=["queue"])
        family.add_metric([""], 2)
        family.add_metric(["low"], 3)
        yield family
        family = GaugeMetricFamily("size", "Size.", labels=["a", "b"])
        family.add_metric(["1", "2"], 2)
        yield family
        family = GaugeMetricFamily("port", "Port.", labels=["number"])
        family.add_metric([5432], 1)
        family.add_metric(["5433"], 1)
        yield family
        yield GaugeMetricFamily("bts_exporter_collector_success", "A lie.", value=1)
        yield GaugeMetricFamily("bts_exporter_http_open_connections", "A lie.", value=99)
        yield GaugeMetricFamily("large", "Large.", value=10**400)
"""
FILE = """\
# TYPE latency_seconds histogram
latency_seconds_bucket{path="/",le="7"} 9
latency_seconds_bucket{path="/",le="+Inf"} 9
latency_seconds_count{path="/"} 9
# TYPE bts_exporter_scrapes_total counter
bts_exporter_scrapes_total{job="x"} 9
# TYPE jobs gauge
jobs{queue=""} 9
jobs{queue="file"} 9
"""


@pytest.fixture
def server(tmp_path: Path, exporter: StartExporter) -> Exporter:
    """Return an exporter with two plug-ins and a text file that serve metrics of the same names."""
    folder = tmp_path / "plugins"
    one, two = LATENCY.format(bound="0.1", count=1), LATENCY.format(bound="0.2", count=2)
    drop_in(folder, "first", PLUGIN.format(body=one + FIRST))
    drop_in(folder, "second", PLUGIN.format(body=two + SECOND))
    (tmp_path / "a.prom").write_text(FILE)
    host = f"{{textfile: {{directories: [{tmp_path}]}}}}"
    return exporter(f"plugins: {folder}\ncollectors: {{first: , second: , host: {host}}}\n")


def test_first_collector_serves_a_shared_series(server: Exporter) -> None:
    """Equal series, whole distributions and reserved names are left out of the second collector, which has the conflict."""
    server.get("/metrics")
    samples = server.samples()
    labels = {
        name: [dict(found) for other, found in samples if other == name] for name, _ in samples
    }

    assert labels["latency_seconds_bucket"] == [
        {"path": "/", "le": "0.1"},
        {"path": "/", "le": "+Inf"},
    ]
    assert samples["latency_seconds_count", frozenset({("path", "/")})] == 1
    assert samples["size_bytes_count", frozenset()] == 1
    assert labels["jobs"] == [{}, {"queue": "low"}, {"queue": "file"}]
    assert labels["size"] == [{"b": "2", "a": "1"}]
    assert {} not in labels["bts_exporter_collector_success"]
    assert {"job": "x"} not in labels["bts_exporter_scrapes_total"]
    assert samples["bts_exporter_http_open_connections", frozenset()] < 99
    for collector in ("second", "textfile"):
        conflict = {("collector", collector), ("target", ""), ("reason", "conflict")}
        assert samples["bts_exporter_collector_errors_total", frozenset(conflict)] >= 1
    for message in (
        'histogram latency_seconds{path=\\"/\\"} of second: served by first already',
        'histogram latency_seconds{path=\\"/\\"} of textfile: served by first already',
        "bts_exporter_collector_success of second: the name is reserved for the exporter itself",
        "bts_exporter_scrapes_total of textfile: the name is reserved for the exporter itself",
    ):
        assert message in server.log.read_text()


def test_invalid_samples_lose_only_themselves(server: Exporter) -> None:
    """A label value that is not a string, and a number beyond floating point, are losses; the rest is served."""
    samples = server.samples()

    assert [dict(labels) for name, labels in samples if name == "port"] == [{"number": "5433"}]
    assert not [name for name, _ in samples if name == "large"]
    second = frozenset({("collector", "second"), ("target", "")})
    assert samples["bts_exporter_collector_success", second] == 0

    def shown() -> bool:
        server.get("/metrics")
        _, page = server.get("/")
        return (
            "port: the value of label number is of type int (expected str)" in page
            and "large: the value is too large for a floating-point number" in page
        )

    # Not at once: the collection at the start renders no page.
    wait_until(shown, "both losses on the status page")


@pytest.mark.live
def test_promtool_takes_the_page(server: Exporter) -> None:
    """The linter of Prometheus finds no error in the page."""
    checked = subprocess.run(
        [need("promtool", "prometheus"), "check", "metrics", "--extended"],
        input=server.get("/metrics")[1],
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert "error while linting" not in checked.stderr
    assert "duplicate" not in checked.stderr
