from __future__ import annotations

import importlib
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time

import pytest

import bts_exporter
from bts_exporter import Metric, Scrape, self_metrics
from bts_exporter.collection.outcome import Outcome
from bts_exporter.collection.runner import Snapshot
from bts_exporter.exposition.formats import Format
from bts_exporter.exposition.page import Source, render
from bts_exporter.reload_state import ReloadState
from bts_exporter.self_metrics import DECLARED, CollectorMetrics, ProcessMetrics, ServiceMetrics
from bts_exporter.web.server import Traffic
from servers import wait_until
from stubs import LocalStub, Stub, runner_of

#: Prints the metrics of a process before and after it used more threads, descriptors and CPU.
TAKES_MORE = """
import json, math, socket, threading, time
from bts_exporter import Scrape
from bts_exporter.self_metrics import ProcessMetrics

def process():
    scrape = Scrape(math.inf)
    ProcessMetrics().emit(scrape)
    return {metric.name: samples[()] for metric, samples in scrape.samples.items()}

process()
before = process()
release = threading.Event()
threading.Thread(target=release.wait).start()
with socket.socket(), socket.socket():
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    print(json.dumps([before, process()]))
release.set()
"""


def values(scrape: Scrape) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the samples by metric name."""
    assert scrape.losses == []
    return {metric.name: dict(found) for metric, found in scrape.samples.items()}


def exists(number: int) -> bool:
    """Return whether a file descriptor is open."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def process() -> dict[str, dict[tuple[str, ...], float]]:
    """Return the metrics of this process."""
    scrape = Scrape(math.inf)
    ProcessMetrics().emit(scrape)
    return values(scrape)


def test_names_of_the_own_metrics() -> None:
    """The names of the exporter's own metrics do not change: alerts and dashboards use them."""
    names = sorted(metric.name for metric in DECLARED)

    assert names == [
        "bts_exporter_build_info",
        "bts_exporter_collector_age_seconds",
        "bts_exporter_collector_duration_seconds",
        "bts_exporter_collector_errors_total",
        "bts_exporter_collector_last_success_timestamp_seconds",
        "bts_exporter_collector_optional",
        "bts_exporter_collector_series",
        "bts_exporter_collector_series_dropped_total",
        "bts_exporter_collector_success",
        "bts_exporter_collector_supported",
        "bts_exporter_collector_timeouts_total",
        "bts_exporter_config_last_reload_success_timestamp_seconds",
        "bts_exporter_config_last_reload_successful",
        "bts_exporter_http_connections_cut_total",
        "bts_exporter_http_connections_refused_total",
        "bts_exporter_http_connections_total",
        "bts_exporter_http_open_connections",
        "bts_exporter_push_batches_dropped_total",
        "bts_exporter_push_batches_total",
        "bts_exporter_push_buffered_batches",
        "bts_exporter_push_buffered_bytes",
        "bts_exporter_push_failures_total",
        "bts_exporter_push_last_success_timestamp_seconds",
        "bts_exporter_push_samples_rejected_total",
        "bts_exporter_scrapes_refused_total",
        "bts_exporter_scrapes_total",
        "bts_exporter_state_errors_total",
        "bts_exporter_state_last_save_timestamp_seconds",
        "bts_exporter_web_config_last_reload_success_timestamp_seconds",
        "bts_exporter_web_config_last_reload_successful",
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_threads",
        "process_virtual_memory_bytes",
        "process_virtual_memory_max_bytes",
    ]


def test_counters_are_named_as_counters() -> None:
    """All counters end in `_total`, and no other metrics do."""
    odd = [m.name for m in DECLARED if (m.kind == "counter") != m.name.endswith("_total")]

    assert odd == []


# The collectors


def test_state_of_a_collector_that_works() -> None:
    """A successful collection has success 1, its duration and its number of series."""
    with runner_of(Stub(), name="cache") as runner:
        runner.totals.last_success = 1.7e9
        scrape = Scrape(math.inf)
        CollectorMetrics().emit(scrape, [Snapshot(runner, Outcome(), {Stub.value: {(): 1}}, 0.25)])

    labels = ("stub", "cache")
    assert values(scrape) == {
        "bts_exporter_collector_success": {labels: 1},
        "bts_exporter_collector_supported": {labels: 1},
        "bts_exporter_collector_duration_seconds": {labels: 0.25},
        "bts_exporter_collector_series": {labels: 1},
        "bts_exporter_collector_timeouts_total": {labels: 0},
        "bts_exporter_collector_series_dropped_total": {labels: 0},
        "bts_exporter_collector_last_success_timestamp_seconds": {labels: 1.7e9},
    }


def test_state_of_a_collector_that_fails() -> None:
    """Failures are counted by reason; a collector that never succeeded has no time of success."""
    with runner_of(Stub()) as runner:
        runner.totals.timeouts = 3
        runner.totals.series_dropped = 9
        runner.totals.errors.update({"timeout": 3, "auth": 1})
        scrape = Scrape(math.inf)
        outcome = Outcome(success=False, reason="auth", message="denied")
        CollectorMetrics().emit(scrape, [Snapshot(runner, outcome, {}, 0.5, age=12.5)])

    found = values(scrape)
    assert found["bts_exporter_collector_success"] == {("stub", ""): 0}
    assert found["bts_exporter_collector_supported"] == {("stub", ""): 1}
    assert found["bts_exporter_collector_series"] == {("stub", ""): 0}
    assert found["bts_exporter_collector_age_seconds"] == {("stub", ""): 12.5}
    assert found["bts_exporter_collector_timeouts_total"] == {("stub", ""): 3}
    assert found["bts_exporter_collector_series_dropped_total"] == {("stub", ""): 9}
    assert found["bts_exporter_collector_errors_total"] == {
        ("stub", "", "auth"): 1,
        ("stub", "", "timeout"): 3,
    }
    assert "bts_exporter_collector_last_success_timestamp_seconds" not in found


def test_state_of_a_collector_with_nothing_to_read() -> None:
    """An absent source has success 1 and supported 0, so that alerts can distinguish it from a failure."""
    with runner_of(Stub()) as runner:
        scrape = Scrape(math.inf)
        CollectorMetrics().emit(scrape, [Snapshot(runner, Outcome(supported=False), {}, 0)])

    found = values(scrape)
    assert found["bts_exporter_collector_success"] == {("stub", ""): 1}
    assert found["bts_exporter_collector_supported"] == {("stub", ""): 0}


@pytest.mark.parametrize(
    ("collector", "optional", "expected"),
    [(Stub(), True, {("stub", ""): 1}), (Stub(), False, None), (LocalStub(), True, None)],
)
def test_collector_whose_target_may_be_absent(
    collector: Stub, optional: bool, expected: dict[tuple[str, ...], float] | None
) -> None:
    """Optional targets have a series, so that an alert can distinguish them from absent hardware."""
    with runner_of(collector, optional=optional) as runner:
        scrape = Scrape(math.inf)
        CollectorMetrics().emit(scrape, [Snapshot(runner, Outcome(), {}, 0)])

    assert values(scrape).get("bts_exporter_collector_optional") == expected


# The process


def test_process_metrics_are_those_of_this_process() -> None:
    """Threads, descriptors and CPU time rise with the use of this process."""
    # In a separate process: threads of other tests may still end in this one.
    done = subprocess.run(  # our own interpreter
        [sys.executable, "-c", TAKES_MORE], capture_output=True, text=True, timeout=60, check=True
    )
    before, after = json.loads(done.stdout)

    assert after["process_threads"] - before["process_threads"] == 1
    assert after["process_open_fds"] - before["process_open_fds"] == 2
    assert after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"] >= 0.03


def test_process_metrics_have_their_units() -> None:
    """Memory is in bytes, times are Unix times, and the limit is the current one."""
    found = process()

    page = os.sysconf("SC_PAGE_SIZE")
    assert found["process_resident_memory_bytes"][()] > 5_000_000
    assert found["process_virtual_memory_bytes"][()] >= found["process_resident_memory_bytes"][()]
    assert found["process_resident_memory_bytes"][()] % page == 0
    assert abs(found["process_start_time_seconds"][()] - time.time()) < 60
    wait_until(
        lambda: process()["process_open_fds"][()] == sum(map(exists, range(1000))),
        "the open files are as many as there are",
    )
    assert found["process_max_fds"] == {(): resource.getrlimit(resource.RLIMIT_NOFILE)[0]}
    assert (
        found["process_virtual_memory_max_bytes"][()] >= found["process_virtual_memory_bytes"][()]
    )


def test_open_descriptors_of_an_older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not count the open files, they are counted one by one."""
    real = os.stat

    def stat(path: str) -> os.stat_result:
        found = list(real(path))
        found[6] = 0  # st_size
        return os.stat_result(found)

    with monkeypatch.context() as older:
        older.setattr(self_metrics.os, "stat", stat)
        # Repeated until no other test closes a descriptor in between.
        wait_until(
            lambda: process()["process_open_fds"][()] == sum(map(exists, range(1000))),
            "they are as many as there are",
        )


def test_process_without_a_limit_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that is not set is infinite."""
    monkeypatch.setattr(
        resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )

    found = process()

    assert found["process_max_fds"] == {(): math.inf}
    assert found["process_virtual_memory_max_bytes"] == {(): math.inf}


def test_process_on_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc, psutil provides the same metrics."""
    importlib.import_module("psutil")  # it checks the platform when it is imported
    usual = process()

    def no_proc() -> list[bytes]:
        raise FileNotFoundError(2, "No such file or directory", "/proc/self/stat")

    monkeypatch.setattr(self_metrics, "_own_stat", no_proc)
    monkeypatch.setattr(self_metrics.sys, "platform", "darwin")
    found = process()

    assert found.keys() == usual.keys()
    assert found["process_max_fds"] == usual["process_max_fds"]
    assert found["process_resident_memory_bytes"][()] > 5_000_000
    assert found["process_threads"][()] >= 1


def test_process_without_a_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor, metrics that need none are served."""

    def stat(_: object) -> os.stat_result:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(self_metrics.os, "stat", stat)

    assert set(process()) == {"process_cpu_seconds_total", "process_start_time_seconds"}


# The service


def test_version_and_settings() -> None:
    """The version is a label, and the state of the settings is served."""
    scrape = Scrape(math.inf)
    ServiceMetrics().emit_service(scrape, ReloadState(successful=True, loaded_at=1.7e9))

    assert values(scrape) == {
        "bts_exporter_build_info": {(bts_exporter.__version__, platform.python_version()): 1},
        "bts_exporter_config_last_reload_successful": {(): 1},
        "bts_exporter_config_last_reload_success_timestamp_seconds": {(): 1.7e9},
    }


def test_traffic() -> None:
    """Refused connections have a series for each reason from the start."""
    traffic = Traffic(open=3, accepted=10)
    traffic.count(traffic.refused, "handshake")
    traffic.count(traffic.cut, "write_timeout")
    scrape = Scrape(math.inf)
    ServiceMetrics().emit_traffic(scrape, traffic)

    found = values(scrape)
    assert found["bts_exporter_http_open_connections"] == {(): 3}
    assert found["bts_exporter_http_connections_total"] == {(): 10}
    assert found["bts_exporter_http_connections_refused_total"] == {
        ("connections",): 0,
        ("threads",): 0,
        ("descriptors",): 0,
        ("handshake",): 1,
        ("request",): 0,
        ("unauthorized",): 0,
        ("rate_limit",): 0,
    }
    assert found["bts_exporter_http_connections_cut_total"] == {
        ("header_timeout",): 0,
        ("write_timeout",): 1,
    }


def test_own_metrics_are_no_riddle_in_openmetrics() -> None:
    """No two of the own metrics have one family name in OpenMetrics."""
    samples = {metric: {("x",) * metric.width: 1.0} for metric in DECLARED}

    types = [
        line
        for line in render([Source(samples)], Format.OPENMETRICS).decode().splitlines()
        if line.startswith("# TYPE")
    ]

    assert len({line.split()[2] for line in types}) == len(types) == len(DECLARED)
    assert not [line for line in types if line.endswith("unknown")]
    assert all(isinstance(metric, Metric) for metric in DECLARED)
