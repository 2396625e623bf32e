"""`bts-exporter push` as a process, with real receivers: Prometheus, VictoriaMetrics, a Pushgateway."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from servers import Process, free_port, listens, need, wait_until
from servers.prometheus import Prometheus
from servers.push_receiver import PushReceiver, Response

pytestmark = pytest.mark.live

#: Counts its collections in a file, so that a restart continues; has a series as long as a file exists.
PLUGIN = '''
from pathlib import Path
from bts_exporter import Collector, Scrape, counter, gauge, histogram

FOLDER = Path(__file__).parents[1]

class Steps(Collector):
    """Counts its collections."""
    steps = counter("steps_total", "Collections.")
    there = gauge("there", "Whether the file exists.")
    sizes = histogram("sizes_bytes", "Sizes.")
    def collect(self, scrape: Scrape) -> None:
        file = FOLDER / "steps"
        count = int(file.read_text()) + 1 if file.exists() else 1
        file.write_text(str(count))
        scrape.emit(self.steps, count)
        scrape.emit_histogram(self.sizes, [(1, 2), (float("inf"), 5)], 7.5)
        if (FOLDER / "there").exists():
            scrape.emit(self.there, 1)
'''


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Return a settings file with a collector that counts, and a folder for states."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "steps.py").write_text(PLUGIN)
    (tmp_path / "state").mkdir(mode=0o700)
    file = tmp_path / "config.yaml"
    file.write_text("plugins: plugins\nstate: state\ncollectors: {steps: {}}\n")
    return file


def command(settings: Path, url: str, *flags: str) -> list[str]:
    """Return the command line of a push."""
    common = ["--url", url, "--job=edge", "--instance=site-1", *flags]
    return [sys.executable, "-m", "bts_exporter", f"--config.file={settings}", "push", *common]


def once(settings: Path, url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Push once."""
    return subprocess.run(
        command(settings, url, *flags), capture_output=True, text=True, check=False, timeout=60
    )


class Pusher(Process):
    """A process that pushes every second."""

    def __init__(self, settings: Path, url: str, *flags: str) -> None:
        super().__init__(command(settings, url, "--every=1s", *flags), settings.parent)

    def end(self) -> None:
        """End it as systemd does; AssertionError with its log if it fails."""
        os.kill(self.popen.pid, signal.SIGTERM)
        assert self.popen.wait(60) == 0, self.log.read_text()


@pytest.fixture
def pushers() -> Iterator[list[Pusher]]:
    """Return a list of processes that end with the test."""
    running: list[Pusher] = []
    yield running
    for pusher in running:
        pusher.kill()


def steps(settings: Path) -> int:
    """Return how many collections there were."""
    file = settings.parent / "steps"
    return int(file.read_text() or 0) if file.exists() else 0


def test_outage_and_restart_lose_and_repeat_nothing(
    settings: Path, pushers: list[Pusher], tmp_path: Path
) -> None:
    """With the receiver down and the process restarted, every collection arrives once, in order, with its value.

    A series that disappears, and all series at the end, are stale at once.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}/api/v1/write"
    (tmp_path / "there").touch()
    pushers.append(Pusher(settings, url))
    wait_until(lambda: steps(settings) >= 2, "collections while the receiver is down")
    pushers[0].end()
    before = steps(settings)
    pushers.append(Pusher(settings, url))
    wait_until(lambda: steps(settings) >= before + 2, "collections of the second process")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    prometheus = Prometheus(folder, [], flags=["--web.enable-remote-write-receiver"], port=port)
    try:
        waiting = steps(settings)
        wait_until(lambda: prometheus.query(f"steps_total > {waiting}"), "what waited arrives", 60)
        (tmp_path / "there").unlink()
        wait_until(lambda: not prometheus.query("there"), "a stale marker", 60)
        assert prometheus.query("steps_total")
        pushers[1].end()
        last = steps(settings)

        found = prometheus.values("steps_total[1h]")
        assert [value for _, value in found] == list(range(1, last + 1))
        assert [at for at, _ in found] == sorted({at for at, _ in found})
        assert prometheus.query("steps_total") == []
        assert not list((tmp_path / "state").rglob("*.batch"))
        log = pushers[0].log.read_text()
        assert log.count("push failed") == 2, log  # one line for each process
        assert log.count("push works again") == 1
        assert prometheus.query("last_over_time(bts_exporter_push_failures_total[1h])")
    finally:
        prometheus.stop()


@pytest.fixture
def victoria_metrics(tmp_path: Path) -> Iterator[str]:
    """Return the address of a VictoriaMetrics."""
    program = need("victoria-metrics", "victoria-metrics")
    port = free_port()
    folder = tmp_path / "victoria"
    folder.mkdir()
    argv = [program, f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder / 'data'}"]
    process = Process([*argv, "-search.latencyOffset=0s"], folder)
    try:
        process.ready(lambda: listens(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()


def test_victoria_metrics_gets_one_collection(settings: Path, victoria_metrics: str) -> None:
    """One push by remote write arrives with its labels, a histogram among them."""
    done = once(settings, f"{victoria_metrics}/api/v1/write")

    assert (done.returncode, done.stderr) == (0, "")
    found = {"job": "edge", "instance": "site-1"}
    wait_until(lambda: rows(victoria_metrics, "steps_total"), "the sample can be read")
    assert rows(victoria_metrics, "steps_total") == [({"__name__": "steps_total", **found}, "1")]
    (bucket,) = rows(victoria_metrics, 'sizes_bytes_bucket{le="1"}')
    assert bucket == ({"__name__": "sizes_bytes_bucket", "le": "1", **found}, "2")


def rows(address: str, promql: str) -> list[tuple[dict[str, str], str]]:
    """Return an instant vector as (labels, value)."""
    with urlopen(f"{address}/api/v1/query?{urlencode({'query': promql})}") as answer:
        result: Sequence[dict[str, Any]] = json.load(answer)["data"]["result"]
    return [(row["metric"], row["value"][1]) for row in result]


def test_otlp_receiver_gets_everything_once(
    settings: Path, pushers: list[Pusher], push_receiver: PushReceiver
) -> None:
    """Over OTLP, a receiver (of OpenTelemetry's official definitions) that fails at first gets all, then the end."""
    push_receiver.responses.extend([Response(503, {"Retry-After": "1"}), Response(429)])

    pushers.append(Pusher(settings, push_receiver.address, "--protocol=otlp"))
    wait_until(lambda: len(push_receiver.received) >= 4, "requests")
    settings.write_text("plugins: plugins\ncollectors: {steps: {labels: {site: north}}}\n")
    os.kill(pushers[0].popen.pid, signal.SIGHUP)
    wait_until(lambda: b"north" in gzip.decompress(push_receiver.received[-1].body), "new settings")
    pushers[0].end()

    points = [
        metric.sum.data_points[0]
        for request in push_receiver.received[2:]
        for metric in request.otlp().resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "steps_total"
    ]
    values = [point.as_double for point in points if not point.flags]
    assert values == list(range(1, steps(settings) + 1))
    assert points[-1].flags == 1  # without a value: the end
    assert len({point.start_time_unix_nano for point in points[:2]}) == 1


def test_pushgateway_gets_the_latest_page(
    settings: Path, pushers: list[Pusher], tmp_path: Path
) -> None:
    """At an interval, a Pushgateway has the last collection of this instance, with metrics about pushing."""
    program = need("prometheus-pushgateway", "prometheus-pushgateway")
    port = free_port()
    folder = tmp_path / "gateway"
    folder.mkdir()
    argv = [program, f"--web.listen-address=127.0.0.1:{port}", "--persistence.file="]
    gateway = Process(argv, folder)
    try:
        gateway.ready(lambda: listens(port))
        pushers.append(Pusher(settings, f"http://127.0.0.1:{port}"))

        def page() -> str:
            with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                return str(answer.read().decode())

        wanted = 'bts_exporter_push_last_success_timestamp_seconds{instance="site-1",job="edge"}'
        wait_until(lambda: wanted in page(), "metrics about the first push in the second")
        assert 'steps_total{instance="site-1",job="edge"}' in page()
        pushers[0].end()
    finally:
        gateway.kill()


def test_refusal_is_an_error(settings: Path, push_receiver: PushReceiver) -> None:
    """A single push that is refused exits with 1 and the receiver's words."""
    push_receiver.responses.append(Response(400, body=b"out of bounds"))

    refused = once(settings, f"{push_receiver.address}/api/v1/write")

    assert refused.returncode == 1
    assert "400 Bad Request: out of bounds" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_single_push_keeps_what_could_not_be_sent(
    settings: Path, push_receiver: PushReceiver
) -> None:
    """A push from a timer that fails exits with 1; the next one sends both collections."""
    push_receiver.responses.append(Response(503, body=b"overloaded"))
    url = f"{push_receiver.address}/api/v1/write"

    failed = once(settings, url)
    done = once(settings, url)

    assert failed.returncode == 1
    assert "status 503 Service Unavailable: overloaded" in failed.stderr
    assert (done.returncode, done.stderr) == (0, "")
    values = [
        found.samples[0].value
        for request in push_receiver.received
        for found in request.remote_write().timeseries
        if any(label.value == "steps_total" for label in found.labels)
    ]
    assert values == [1, 1, 2]
