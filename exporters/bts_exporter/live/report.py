"""What the live page and its API show: destinations, host, collectors, and how old all of that is."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator
from typing import Literal

import msgspec

import bts_exporter
from bts_exporter.collection.runner import Runner, Totals
from bts_exporter.errors import Reason
from bts_exporter.lag_report import Destination, destinations_of, rank, text
from bts_exporter.live.fixes import FIXES
from bts_exporter.live.headline import Headline, headline
from bts_exporter.live.host_figures import FIGURES
from bts_exporter.live.recorder import Recorder
from bts_exporter.page_service import Exporter
from bts_exporter.reload_state import ReloadState

#: The version of the JSON: it rises if a field is removed or changes its meaning.
VERSION = 1
#: A destination is late with more lag than this, in seconds, as for the alert ConsumerBehind.
LATE_SECONDS = 300.0
#: The same for MQTT: of a saved session, whose file is old; of event times; of a pipeline.
LATE_SESSION_SECONDS, LATE_EVENT_SECONDS, LATE_PIPELINE_SECONDS = 3600.0, 300.0, 30.0
#: It is behind with this share of it.
_BEHIND_SHARE = 0.2
#: Values are stale after so many seconds, or if so many intervals between scrapes have passed.
_STALE_SECONDS = 90.0

DestinationState = Literal["late", "behind", "no_consumer", "lag_unknown", "ok", "outdated"]
CollectorStateName = Literal["failing", "ok", "absent", "waiting"]


class LiveDestination(Destination, kw_only=True):
    """A destination with its state, the age of its numbers, and its recent backlog."""

    #: The id of its collector.
    collector_id: str
    state: DestinationState
    age_seconds: float
    #: A value for each of the times of its collector; None where it is unknown.
    backlog_history: list[float | None]


class Failure(msgspec.Struct, kw_only=True):
    """A failure of a collector, also one that is over."""

    #: Unix time.
    time: float
    reason: Reason | None
    message: str
    #: Whether a collection has succeeded since.
    is_over: bool


class LiveCollector(msgspec.Struct, kw_only=True):
    """A collector, how its last collection ended, and its last failure."""

    #: Name and target, such as redis[cache]; unique.
    id: str
    collector: str
    target: str
    type: str
    #: Whether it reads this host.
    local: bool
    state: CollectorStateName
    #: Why it fails, or is absent, and what to do; empty if it works.
    reason: Reason | None
    message: str
    fix: str
    #: Unix times; None if it does not fail, or has never succeeded or failed.
    failing_since: float | None
    last_success: float | None
    last_failure: Failure | None
    duration_seconds: float | None
    series: int | None
    #: Unix times of the columns of its destinations' histories.
    history_times: list[float]


class Host(msgspec.Struct, kw_only=True):
    """Figures of the host: a value for each of the times."""

    times: list[float]
    figures: dict[str, list[float | None]]
    #: The mount point of the fullest file system.
    fullest_filesystem: str


class LiveReport(msgspec.Struct, kw_only=True):
    """Everything that the page shows."""

    version: int = VERSION
    #: Unix time.
    time: float
    #: Pass it as `since` to get only what was added to the histories since.
    cursor: float
    #: Whether the histories are complete, and not only what was added.
    complete: bool
    host_name: str
    exporter_version: str
    #: Unix time at which the settings were loaded, and why the last reload failed.
    settings_loaded: float
    problems: list[str]
    #: Seconds since the last scrape; None before the first one.
    age_seconds: float | None
    stale_after_seconds: float
    headline: Headline
    destinations: list[LiveDestination]
    #: Destinations that exist besides those, which have the most lag.
    destinations_left_out: int
    host: Host
    collectors: list[LiveCollector]


class _Clock:
    """One moment on both clocks."""

    def __init__(self) -> None:
        self.monotonic = time.monotonic()
        self.unix = time.time()

    def unix_of(self, monotonic: float) -> float:
        return round(self.unix - (self.monotonic - monotonic), 3)


def live_report(exporter: Exporter, reload_state: ReloadState, since: float = 0.0) -> LiveReport:
    """Return what is known now, with the histories after the cursor `since`; nothing is collected."""
    clock = _Clock()
    if since > clock.monotonic:  # of another boot
        since = 0.0
    recorder = exporter.recorder
    with recorder.lock:
        collected_at = recorder.collected_at
        destinations = sorted(_destinations(exporter, clock, since), key=rank)
        left_out = sum(known.left_out for known in recorder.latest.values())
        times = {runner: ring.times(since) for runner, ring in recorder.rings.items()}
        host = _host(recorder, clock, since)
    states = (reload_state, exporter.web_state)
    collectors = [
        _collector(exporter, runner, [clock.unix_of(t) for t in times.get(runner, ())])
        for runner in exporter.collectors.runners
    ]
    return LiveReport(
        time=round(clock.unix, 3),
        cursor=clock.monotonic,
        complete=not since,
        host_name=text(socket.gethostname()),
        exporter_version=bts_exporter.__version__,
        settings_loaded=reload_state.loaded_at,
        problems=[text(state.problem) for state in states if state is not None and state.problem],
        age_seconds=None if collected_at is None else round(clock.monotonic - collected_at, 3),
        stale_after_seconds=_STALE_SECONDS,
        headline=headline(destinations, collectors, collected=collected_at is not None),
        destinations=destinations,
        destinations_left_out=left_out,
        host=host,
        collectors=collectors,
    )


def _destinations(exporter: Exporter, clock: _Clock, since: float) -> Iterator[LiveDestination]:
    recorder = exporter.recorder
    for runner, known in recorder.latest.items():
        ring = recorder.rings[runner]
        backlogs = ring.values(0, since)
        unknown = [float("nan")] * len(ring.times(since))
        age = clock.monotonic - known.time
        outdated = known.is_lost or age > _STALE_SECONDS + (runner.common.interval or 0.0)
        for row in destinations_of(known.shot, exporter.counts, known.time):
            key = (row.system, row.destination, row.group)
            yield LiveDestination(
                **{name: getattr(row, name) for name in Destination.__struct_fields__},
                collector_id=text(runner.identity),
                state="outdated" if outdated else state_of(row),
                age_seconds=round(age, 3),
                backlog_history=_known(backlogs.get(key, unknown)),
            )


def state_of(row: Destination) -> DestinationState:
    """Return whether a destination is late, and if not, what else is wrong with it."""
    late = _late_seconds(row)
    lag = row.lag_seconds or 0.0
    if lag > late:
        return "late"
    if row.backlog_messages and row.consumers == 0:
        return "no_consumer"
    if row.lag_is_unknown:
        return "lag_unknown"
    return "behind" if lag > late * _BEHIND_SHARE else "ok"


def _late_seconds(row: Destination) -> float:
    if row.system != "mqtt":
        return LATE_SECONDS
    if not row.destination:
        return LATE_SESSION_SECONDS
    return LATE_EVENT_SECONDS if row.lag_method == "event_time" else LATE_PIPELINE_SECONDS


def _known(values: list[float]) -> list[float | None]:
    """Return values for JSON: numbers of messages are whole, and unknown ones None."""
    return [int(value) if math.isfinite(value) else None for value in values]


def _host(recorder: Recorder, clock: _Clock, since: float) -> Host:
    values = recorder.host.values(0, since)
    found = {name: values[name,] for name in FIGURES if (name,) in values}
    return Host(
        times=[clock.unix_of(moment) for moment in recorder.host.times(since)],
        figures={
            name: [float(f"{value:.5g}") if math.isfinite(value) else None for value in column]
            for name, column in found.items()
        },
        fullest_filesystem=text(recorder.figures.fullest),
    )


def _collector(exporter: Exporter, runner: Runner, history_times: list[float]) -> LiveCollector:
    last = exporter.last.get(runner)
    outcome = last.outcome if last and last.outcome else runner.outcome
    totals = runner.totals
    state: CollectorStateName = "ok"
    if outcome is None:
        state = "waiting"
    elif not outcome.success:
        state = "failing"
    elif not outcome.supported:
        state = "absent"
    reason = outcome.reason if outcome else None
    return LiveCollector(
        id=text(runner.identity),
        collector=text(runner.name),
        target=text(runner.target),
        type=runner.kind,
        local=bool(runner.local),
        state=state,
        reason=reason,
        message=text(outcome.message) if outcome else "",
        fix=FIXES[reason] if reason else "",
        failing_since=totals.failing_since if state == "failing" else None,
        last_success=totals.last_success or None,
        last_failure=_failure(totals),
        duration_seconds=round(last.duration, 6) if last else None,
        series=last.series if last else None,
        history_times=history_times,
    )


def _failure(totals: Totals) -> Failure | None:
    failure = totals.last_failure
    if failure is None:
        return None
    return Failure(
        time=totals.last_failure_at,
        reason=failure.reason,
        message=text(failure.message),
        is_over=totals.last_failure_at < totals.last_success,
    )
