from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bts_exporter.client import ExporterCollector
from bts_exporter.errors import ConfigError
from bts_exporter.testing import HttpServer, reply
from servers import Process, free_port, listens, need

#: A collector type with a metric of each kind, as a plug-in.
PLUGIN = '''
from bts_exporter import Collector, Scrape, counter, gauge, histogram, summary, untyped

class Kinds(Collector):
    """A metric of each kind."""
    level = gauge("kinds_level", "A level.", ("tank",))
    events = counter("kinds_events_total", "Events.")
    odd = counter("kinds_odd_count", "A counter named as the anchor names it.")
    something = untyped("kinds_something", "Something.")
    sizes = histogram("kinds_size_bytes", "Sizes.", ("tank",))
    waits = summary("kinds_wait_seconds", "Waits.")
    def collect(self, scrape: Scrape) -> None:
        scrape.emit(self.level, 1.5, 'a "b"')
        scrape.emit(self.events, 2)
        scrape.emit(self.odd, 3)
        scrape.emit(self.something, 4)
        scrape.emit_histogram(self.sizes, [(1, 2), (float("inf"), 5)], 7.5, "a")
        scrape.emit_summary(self.waits, [(0.5, 0.1)], 0.9, 6)

class Raises(Collector):
    """Fails."""
    def collect(self, scrape: Scrape) -> None:
        raise RuntimeError("broken on purpose")
'''

Series = tuple[str, frozenset[tuple[str, str]]]


def series(page: str) -> dict[Series, float]:
    """Return the samples of a page, without durations and times, which differ each time."""
    return {
        # The parser appends _total to the name of a counter without it.
        (sample.name.replace("odd_count_total", "odd_count"), frozenset(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if "duration" not in sample.name and "timestamp" not in sample.name
    }


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Return a settings file with one working collector that has a name and a label."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    source, _, failing = PLUGIN.partition("class Raises")
    (plugins / "kinds.py").write_text(source)
    heading = "from bts_exporter import Collector, Scrape\n\nclass Raises"
    (plugins / "raises.py").write_text(heading + failing)
    file = tmp_path / "config.yaml"
    file.write_text("plugins: plugins\ncollectors:\n  kinds: {name: one, labels: {site: north}}\n")
    return file


@pytest.fixture
def registry() -> prometheus_client.CollectorRegistry:
    """Return a registry like that of a Python service."""
    return prometheus_client.CollectorRegistry(auto_describe=True)


def test_registry_serves_what_the_exporter_serves(
    settings: Path, registry: prometheus_client.CollectorRegistry
) -> None:
    """Names, labels and values are those of the exporter's own page, for every kind of metric."""
    own = subprocess.run(
        [sys.executable, "-m", "bts_exporter", f"--config.file={settings}",
         "--web.disable-exporter-metrics", "once"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip

    with ExporterCollector(settings) as collector:
        registry.register(collector)
        page = prometheus_client.generate_latest(registry).decode()

    own_only = ("bts_exporter_build_info", "bts_exporter_config", "bts_exporter_scrapes")
    expected = {k: v for k, v in series(own.stdout).items() if not k[0].startswith(own_only)}
    assert series(page) == expected
    assert len([key for key in expected if key[0].startswith("kinds_")]) == 11


def test_collector_that_fails_loses_only_its_own_metrics(
    settings: Path, registry: prometheus_client.CollectorRegistry
) -> None:
    """The metrics of the others are served; the failure is in the metrics and in `failures`."""
    settings.write_text(settings.read_text() + "  raises: {}\n")

    with ExporterCollector(settings) as collector:
        registry.register(collector)
        page = series(prometheus_client.generate_latest(registry).decode())
        failures = collector.failures()

    success = "bts_exporter_collector_success"
    assert page[success, frozenset({("collector", "raises"), ("target", "")})] == 0
    assert page[success, frozenset({("collector", "kinds"), ("target", "one")})] == 1
    assert len(failures) == 1
    assert failures[0].startswith("raises: FAILS (internal): RuntimeError: broken on purpose")


def test_series_that_cannot_be_served_lose_only_themselves(
    settings: Path, registry: prometheus_client.CollectorRegistry
) -> None:
    """As on the exporter's own page, an invalid sample, and a series that another collector serves, are left out."""
    odd = "scrape.emit(self.level, 1.5, 'a \"b\"'); scrape.emit(self.level, 2, 5)"
    plugin = (settings.parent / "plugins" / "kinds.py").read_text()
    plugin = plugin.replace("scrape.emit(self.level, 1.5, 'a \"b\"')", odd)
    (settings.parent / "plugins" / "kinds.py").write_text(plugin)
    twin = "from prometheus_client.core import GaugeMetricFamily\n\nclass Twin:\n    def collect(self):\n"
    twin += "        yield GaugeMetricFamily('kinds_size_bytes', 'Sizes.', value=9)\n"
    (settings.parent / "plugins" / "twin.py").write_text(twin)
    settings.write_text(settings.read_text() + "  twin:\n")

    with ExporterCollector(settings) as collector:
        registry.register(collector)
        page = series(prometheus_client.generate_latest(registry).decode())
        failures = collector.failures()

    constant = {("target", "one"), ("site", "north")}
    assert [labels for name, labels in page if name == "kinds_level"] == [
        frozenset({("tank", 'a "b"'), *constant})
    ]
    assert ("kinds_size_bytes", frozenset()) not in page
    assert page["kinds_events_total", frozenset(constant)] == 2
    assert failures == [
        "kinds[one]: FAILS (invalid_sample): kinds_level: the value of label tank is of type int (expected str)"
    ]


def test_settings_that_are_wrong_are_an_error(settings: Path) -> None:
    """The embedding program gets every problem with its location."""
    settings.write_text("collectors: {kinds: {nme: x}}\nscrape_timeout: never\n")

    with pytest.raises(ConfigError) as caught:
        ExporterCollector(settings)

    assert len(caught.value.problems) == 2


def test_closed_collector_yields_nothing_more(
    settings: Path, registry: prometheus_client.CollectorRegistry
) -> None:
    """A registry that still holds a closed collector serves no samples of it."""
    collector = ExporterCollector(settings)
    registry.register(collector)

    collector.close()

    assert prometheus_client.generate_latest(registry) == b""


@pytest.fixture
def pushgateway(tmp_path: Path) -> Iterator[str]:
    """Return the address of a Pushgateway."""
    program = need("prometheus-pushgateway", "prometheus-pushgateway")
    port = free_port()
    # Debian's default for the file is the system's own.
    argv = [program, f"--web.listen-address=127.0.0.1:{port}", "--persistence.file="]
    process = Process(argv, tmp_path)
    try:
        process.ready(lambda: listens(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()


def push(settings: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Run `bts-exporter push`."""
    return subprocess.run(
        [sys.executable, "-m", "bts_exporter", f"--config.file={settings}",
         "push", f"--url={url}", "--job=nightly"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.live
def test_pushgateway_gets_one_collection(settings: Path, pushgateway: str) -> None:
    """`push` puts the metrics of the collectors under the job, and exits with 0."""
    from urllib.request import urlopen  # noqa: PLC0415  # of this test only

    done = push(settings, pushgateway)

    with urlopen(f"{pushgateway}/metrics") as answer:
        page = series(answer.read().decode())
    labels = {("job", "nightly"), ("instance", ""), ("target", "one"), ("site", "north")}
    assert (done.returncode, done.stderr) == (0, "")
    assert page["kinds_events_total", frozenset(labels)] == 2


@pytest.mark.live
def test_failing_collector_is_told_and_the_others_are_pushed(
    settings: Path, pushgateway: str
) -> None:
    """`push` exits with 1 and names the collector that failed."""
    from urllib.request import urlopen  # noqa: PLC0415  # of this test only

    settings.write_text(settings.read_text() + "  raises: {}\n")

    done = push(settings, pushgateway)

    with urlopen(f"{pushgateway}/metrics") as answer:
        assert "kinds_events_total" in answer.read().decode()
    assert done.returncode == 1
    assert done.stderr.count("RuntimeError: broken on purpose") == 1
    assert done.stderr.startswith("raises: FAILS (internal): ")


def test_address_that_is_no_pushgateway(settings: Path, bts_http_server: HttpServer) -> None:
    """The error names the address and the problem."""
    bts_http_server.otherwise = reply("", 405)

    refused = push(settings, f"http://127.0.0.1:{free_port()}")
    other = push(settings, bts_http_server.url)

    assert (refused.returncode, other.returncode) == (1, 1)
    assert "connection refused; is it the address of a Pushgateway?" in (refused.stderr)
    assert "Method Not Allowed" in other.stderr
    assert "Traceback" not in refused.stderr + other.stderr
