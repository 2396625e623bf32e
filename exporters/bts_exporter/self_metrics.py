"""What the exporter says of itself: its collectors, its settings, its server, its process."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import import_module

import bts_exporter
from bts_exporter.collection.runner import Snapshot, Totals
from bts_exporter.errors import REASONS
from bts_exporter.metric import Key, Metric, counter, gauge
from bts_exporter.push.totals import DROP_REASONS, PushTotals
from bts_exporter.reload_state import ReloadState
from bts_exporter.scrape import Scrape
from bts_exporter.web.server import Traffic

_OF = ("collector", "target")
#: Bytes of /proc/self/stat: a name and 52 numbers fit well.
_STAT_SIZE = 2048


class CollectorMetrics:
    """The state of each collector in this scrape, and its counts since the start."""

    success = gauge(
        "bts_exporter_collector_success",
        "Whether the collection succeeded (1) or failed (0); it succeeds if the source is absent.",
        _OF,
    )
    supported = gauge(
        "bts_exporter_collector_supported",
        "Whether the source exists on this machine (1) or is absent (0).",
        _OF,
    )
    optional = gauge(
        "bts_exporter_collector_optional",
        "1 for a collector whose target may be absent (optional: true); not served for others.",
        _OF,
    )
    duration = gauge(
        "bts_exporter_collector_duration_seconds", "Duration of the collection in seconds.", _OF
    )
    series = gauge(
        "bts_exporter_collector_series", "Number of series that the collection returned.", _OF
    )
    age = gauge(
        "bts_exporter_collector_age_seconds",
        "Age in seconds of the samples of a collector with an interval, which runs in the background.",
        _OF,
    )
    last_success = gauge(
        "bts_exporter_collector_last_success_timestamp_seconds",
        "Unix time of the last successful collection.",
        _OF,
    )
    timeouts = counter(
        "bts_exporter_collector_timeouts_total",
        "Collections that did not end before the deadline.",
        _OF,
    )
    errors = counter(
        "bts_exporter_collector_errors_total",
        f"Failed collections by reason ({', '.join(REASONS)}); one with several reasons counts for each.",
        (*_OF, "reason"),
    )
    dropped = counter(
        "bts_exporter_collector_series_dropped_total",
        "Samples dropped because the collector has more series than max_series.",
        _OF,
    )

    state_saved = gauge(
        "bts_exporter_state_last_save_timestamp_seconds",
        "Unix time at which the collector's state was last saved (state: DIR in the settings).",
        _OF,
    )
    state_errors = counter(
        "bts_exporter_state_errors_total",
        "States that could not be used or saved, by operation (restore: the collector started without its"
        " history; save: a restart would lose the history since the last save).",
        (*_OF, "operation"),
    )

    def emit(self, scrape: Scrape, snapshots: Iterable[Snapshot]) -> None:
        """Emit the state of the collectors of `snapshots`."""
        found = {(shot.runner.name, shot.runner.target): shot for shot in snapshots}
        totals: dict[Key, Totals] = {labels: shot.runner.totals for labels, shot in found.items()}
        # Whole families at once: these are half of the samples of a host's page.
        columns: dict[Metric, dict[Key, float]] = {
            self.success: {of: int(shot.outcome.success) for of, shot in found.items()},
            self.supported: {of: int(shot.outcome.supported) for of, shot in found.items()},
            self.optional: {of: 1 for of, shot in found.items() if shot.runner.may_be_absent},
            self.duration: {of: shot.duration for of, shot in found.items()},
            self.series: {of: shot.series for of, shot in found.items()},
            self.age: {of: shot.age for of, shot in found.items() if shot.age is not None},
            self.last_success: {of: t.last_success for of, t in totals.items() if t.last_success},
            self.timeouts: {of: total.timeouts for of, total in totals.items()},
            self.errors: {
                (*of, reason): count
                for of, total in totals.items()
                for reason, count in sorted(total.errors.items())
            },
            self.dropped: {of: total.series_dropped for of, total in totals.items()},
        }
        columns |= _outcomes(found.values()) | self._states(totals)
        scrape.samples.update((metric, column) for metric, column in columns.items() if column)

    def _states(self, totals: Mapping[Key, Totals]) -> dict[Metric, dict[Key, float]]:
        """Return the metrics of stored states."""
        states = {of: total.state for of, total in totals.items() if total.state is not None}
        return {
            self.state_saved: {of: s.last_save for of, s in states.items() if s.last_save},
            self.state_errors: {
                (*of, operation): count
                for of, state in states.items()
                for operation, count in state.errors.items()
            },
        }


def _outcomes(snapshots: Iterable[Snapshot]) -> dict[Metric, dict[Key, float]]:
    """Return success and duration under the names of the exporters that we are compatible with."""
    columns: dict[Metric, dict[Key, float]] = {}
    for shot in snapshots:
        runner = shot.runner
        if runner.outcome_metrics and not runner.target:
            success, duration = runner.outcome_metrics
            columns.setdefault(success, {})[(runner.name,)] = int(shot.outcome.success)
            columns.setdefault(duration, {})[(runner.name,)] = shot.duration
    return columns


class ProcessMetrics:
    """The standard process metrics of Prometheus' client libraries.

    From /proc/self; from psutil on systems other than Linux.
    """

    cpu = counter(
        "process_cpu_seconds_total", "Total user and system CPU time spent in seconds (times)."
    )
    resident = gauge(
        "process_resident_memory_bytes", "Resident memory size in bytes (/proc/self/stat)."
    )
    virtual = gauge(
        "process_virtual_memory_bytes", "Virtual memory size in bytes (/proc/self/stat)."
    )
    max_virtual = gauge(
        "process_virtual_memory_max_bytes",
        "Maximum amount of virtual memory available in bytes, +Inf if unlimited (RLIMIT_AS).",
    )
    start = gauge(
        "process_start_time_seconds", "Start time of the process since unix epoch in seconds."
    )
    open_fds = gauge("process_open_fds", "Number of open file descriptors (/proc/self/fd).")
    max_fds = gauge("process_max_fds", "Maximum number of open file descriptors (RLIMIT_NOFILE).")
    threads = gauge("process_threads", "Number of threads of the process (/proc/self/stat).")

    def __init__(self) -> None:
        """Remember the start time, which is late by the duration of the imports."""
        self._started = time.time()

    def emit(self, scrape: Scrape) -> None:
        """Emit the metrics that this platform has."""
        times = os.times()
        scrape.emit(self.cpu, times.user + times.system)
        scrape.emit(self.start, self._started)
        try:
            fields = _own_stat()
            fds = _open_fds()
        except OSError:  # another system, or no file descriptor left
            if sys.platform != "linux":
                self._emit_by_psutil(scrape)
            return
        scrape.emit(self.virtual, int(fields[20]))
        scrape.emit(self.resident, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))
        scrape.emit(self.open_fds, fds)
        scrape.emit(self.threads, int(fields[17]))
        self._emit_limits(scrape)

    def _emit_by_psutil(self, scrape: Scrape) -> None:
        process = import_module("psutil").Process()
        memory = process.memory_info()
        scrape.emit(self.resident, memory.rss)
        scrape.emit(self.virtual, memory.vms)
        scrape.emit(self.threads, process.num_threads())
        if hasattr(process, "num_fds"):  # not on Windows
            scrape.emit(self.open_fds, process.num_fds())
            self._emit_limits(scrape)

    def _emit_limits(self, scrape: Scrape) -> None:
        import resource  # noqa: PLC0415  # not on every platform

        limits = {self.max_fds: resource.RLIMIT_NOFILE, self.max_virtual: resource.RLIMIT_AS}
        for metric, which in limits.items():
            limit = resource.getrlimit(which)[0]
            scrape.emit(metric, limit if limit != resource.RLIM_INFINITY else float("inf"))


def _own_stat() -> list[bytes]:
    """Return the fields of /proc/self/stat after the process's name."""
    descriptor = os.open("/proc/self/stat", os.O_RDONLY)
    try:
        return os.read(descriptor, _STAT_SIZE).rpartition(b") ")[2].split()
    finally:
        os.close(descriptor)


def _open_fds() -> int:
    # The size is the number of descriptors since Linux 6.2. Before, it is 0, and they are listed.
    counted = os.stat("/proc/self/fd").st_size  # noqa: PTH116  # no need of Path objects
    return counted or len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208  # the last one lists them


class ServiceMetrics:
    """Version, state of the settings, and traffic of the HTTP server."""

    build = gauge(
        "bts_exporter_build_info",
        "A metric with a constant '1' value, labelled by version and the Python that runs it.",
        ("version", "python_version"),
    )
    reload_successful = gauge(
        "bts_exporter_config_last_reload_successful",
        "Whether the last load of the configuration succeeded; if not, the previous one remains active.",
    )
    reload_time = gauge(
        "bts_exporter_config_last_reload_success_timestamp_seconds",
        "Unix time of the last successful load of the configuration.",
    )
    web_successful = gauge(
        "bts_exporter_web_config_last_reload_successful",
        "Whether the last load of --web.config.file succeeded; if not, the previous content remains active."
        " Not served without this flag.",
    )
    web_time = gauge(
        "bts_exporter_web_config_last_reload_success_timestamp_seconds",
        "Unix time of the last successful load of --web.config.file and of the files that it names.",
    )
    connections = gauge("bts_exporter_http_open_connections", "Open HTTP connections.")
    accepted = counter("bts_exporter_http_connections_total", "HTTP connections accepted.")
    refused = counter(
        "bts_exporter_http_connections_refused_total",
        "HTTP connections and requests refused before they were handled, by reason.",
        ("reason",),
    )
    cut = counter(
        "bts_exporter_http_connections_cut_total",
        "HTTP connections closed because the client was too slow, by phase.",
        ("reason",),
    )
    scrapes_refused = counter(
        "bts_exporter_scrapes_refused_total",
        "Scrapes refused because of --web.max-requests.",
    )
    scrapes = counter("bts_exporter_scrapes_total", "Scrapes answered.")

    def emit_service(
        self, scrape: Scrape, reload_state: ReloadState, web_state: ReloadState | None = None
    ) -> None:
        """Emit the version and the state of the settings."""
        scrape.emit(self.build, 1, bts_exporter.__version__, platform.python_version())
        scrape.emit(self.reload_successful, int(reload_state.successful))
        scrape.emit(self.reload_time, reload_state.loaded_at)
        if web_state is not None:
            scrape.emit(self.web_successful, int(web_state.successful))
            scrape.emit(self.web_time, web_state.loaded_at)

    def emit_traffic(self, scrape: Scrape, traffic: Traffic) -> None:
        """Emit the counts of the HTTP server."""
        scrape.emit(self.connections, traffic.open)
        scrape.emit(self.accepted, traffic.accepted)
        for reason, count in traffic.refused.items():
            scrape.emit(self.refused, count, reason)
        for reason, count in traffic.cut.items():
            scrape.emit(self.cut, count, reason)


class PushMetrics:
    """The counts of the command `push`, which are pushed with the other metrics."""

    last_success = gauge(
        "bts_exporter_push_last_success_timestamp_seconds",
        "Unix time at which the receiver of bts-exporter push last took a batch.",
    )
    batches = counter("bts_exporter_push_batches_total", "Batches that the receiver took.")
    failures = counter(
        "bts_exporter_push_failures_total",
        "Failed requests to the receiver by reason; their batches are sent again, unless they were refused.",
        ("reason",),
    )
    dropped = counter(
        "bts_exporter_push_batches_dropped_total",
        "Batches that were dropped by reason: full or old (the receiver was down for too long), refused (by the"
        " receiver), damaged (on disk).",
        ("reason",),
    )
    rejected = counter(
        "bts_exporter_push_samples_rejected_total",
        "Samples that the receiver refused in batches that it took (partial success of OTLP).",
    )
    buffered = gauge("bts_exporter_push_buffered_batches", "Batches that wait for the receiver.")
    buffered_bytes = gauge(
        "bts_exporter_push_buffered_bytes", "Bytes of the batches that wait for the receiver."
    )

    def emit(self, scrape: Scrape, totals: PushTotals) -> None:
        """Emit the counts."""
        if totals.last_success:
            scrape.emit(self.last_success, totals.last_success)
        scrape.emit(self.batches, totals.batches)
        scrape.emit(self.rejected, totals.rejected_samples)
        scrape.emit(self.buffered, totals.buffered_batches)
        scrape.emit(self.buffered_bytes, totals.buffered_bytes)
        # The thread that sends may add a reason meanwhile.
        for reason, count in list(totals.failures.items()):
            scrape.emit(self.failures, count, reason)
        for reason in DROP_REASONS:
            scrape.emit(self.dropped, totals.dropped[reason], reason)


#: All metrics of the exporter itself.
DECLARED: tuple[Metric, ...] = tuple(
    value
    for owner in (ProcessMetrics, ServiceMetrics, CollectorMetrics, PushMetrics)
    for value in vars(owner).values()
    if isinstance(value, Metric)
)
