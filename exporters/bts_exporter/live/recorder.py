"""Keeps what the live page shows of every scrape: the last values of all destinations, and their last minutes.

A scrape costs a look at the names of a few metrics. Values are copied once in 15 seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bts_exporter.backlog import BACKLOG, CONSUMED, LABELS, LAG_SECONDS, PUBLISHED
from bts_exporter.collection.runner import Runner, Snapshot
from bts_exporter.lag_report import reports_lag
from bts_exporter.live.host_figures import FIGURES, HostFigures
from bts_exporter.live.ring import HISTORY_SECONDS, Ring
from bts_exporter.metric import Key, Metric

#: Destinations that are kept of all collectors: 5 MB hold them with their last 15 minutes.
MOST_DESTINATIONS = 2_000
#: Seconds between two columns of a destination, and of the host.
STEP = 15.0
HOST_STEP = 5.0
#: What is kept of a destination, in this order.
_METRICS = (BACKLOG, LAG_SECONDS, PUBLISHED, CONSUMED)
#: Which of them are counts, and kept as rates.
_COUNTS = (2, 3)
#: What readers of the history call these values.
FIELDS = ("backlog_messages", "lag_seconds", "published_per_second", "consumed_per_second")

_PREFIX = "messaging_"
_NO_SAMPLES: Mapping[Key, float] = {}
_Samples = dict[Metric, dict[Key, float]]


class Latest(NamedTuple):
    """The last known destinations of a collector."""

    #: With the common metrics only.
    shot: Snapshot
    #: When they were collected, on the monotonic clock.
    time: float
    #: How many destinations there are besides those that are kept.
    left_out: int = 0
    #: Whether the collector has failed since, without any destination.
    is_lost: bool = False


class Recorder:
    """The last values and the last minutes of everything that the page shows."""

    def __init__(self) -> None:
        """Begin without values."""
        self.latest: dict[Runner, Latest] = {}
        self.rings: dict[Runner, Ring] = {}
        self.host = Ring(HOST_STEP)
        self.figures = HostFigures()
        #: When something was collected last, on the monotonic clock; None before the first time.
        self.collected_at: float | None = None
        #: When somebody looked last, on the monotonic clock; None before the first time.
        self.viewed_at: float | None = None
        #: Held while values are changed or read.
        self.lock = threading.Lock()
        self._relevant: dict[Runner, bool] = {}

    def record(self, shots: Sequence[Snapshot], now: float) -> None:
        """Keep what was collected at `now`, on the monotonic clock."""
        with self.lock:
            self.collected_at = now
            for shot in shots:
                relevant = self._relevant.get(shot.runner)
                if relevant is None:
                    relevant = self._relevant[shot.runner] = reports_lag(shot.runner)
                if relevant:
                    self._record_destinations(shot, now)
            if self.host.is_due(now):
                self._record_host(shots, now)

    def keep_only(self, runners: Iterable[Runner]) -> None:
        """Forget the collectors that a reload has removed."""
        here = set(runners)
        with self.lock:
            self.latest = {r: kept for r, kept in self.latest.items() if r in here}
            self.rings = {r: kept for r, kept in self.rings.items() if r in here}
            self._relevant = {r: kept for r, kept in self._relevant.items() if r in here}

    def _record_destinations(self, shot: Snapshot, now: float) -> None:
        runner = shot.runner
        samples: _Samples = {
            metric: series
            for metric, series in shot.samples.items()
            if metric.name.startswith(_PREFIX) and series
        }
        if not samples:
            self._record_absence(shot, now)
            return
        ring = self.rings.get(runner)
        if ring is None:
            ring = self.rings[runner] = Ring(STEP, counts=_COUNTS)
        time = now - (shot.age or 0.0)
        is_due = ring.is_due(time)
        count = max(map(len, samples.values()))
        room = self._room_of(runner)
        if count > room:
            if not is_due:  # to choose among many takes longer than to collect few
                return
            samples = _latest_of(samples, room)
        kept = shot._replace(samples=samples, age=None)  # `Latest` has the time
        self.latest[runner] = Latest(kept, time, max(count - room, 0))
        if is_due:
            backlog, lag, published, consumed = (_series(samples, metric) for metric in _METRICS)
            if not published.keys() <= backlog.keys():
                published = _of_groups(published, backlog)
            ring.add(time, (backlog, lag, published, consumed), shot.age or 0.0)

    def _record_absence(self, shot: Snapshot, now: float) -> None:
        """Keep the last known destinations of a collector that fails, as long as its history lasts."""
        known = self.latest.get(shot.runner)
        if known is None:
            return
        if shot.outcome.success or now - known.time > HISTORY_SECONDS:
            del self.latest[shot.runner]
            self.rings.pop(shot.runner, None)
        else:
            self.latest[shot.runner] = known._replace(is_lost=True)

    def _room_of(self, runner: Runner) -> int:
        """Return how many destinations of `runner` may be kept: what others leave, or an equal part."""
        others = [
            max(map(len, known.shot.samples.values()))
            for other, known in self.latest.items()
            if other is not runner
        ]
        return max(MOST_DESTINATIONS - sum(others), MOST_DESTINATIONS // (len(others) + 1))

    def _record_host(self, shots: Sequence[Snapshot], now: float) -> None:
        figures = self.figures.of(shots, now)
        if figures:
            self.host.add(now, [{(name,): figures[name] for name in FIGURES if name in figures}])


def _series(samples: Mapping[Metric, Mapping[Key, float]], wanted: Metric) -> Mapping[Key, float]:
    """Return the samples of one of the common metrics; a relay has its own objects for them."""
    found = samples.get(wanted)
    if found is not None:
        return found
    same = (m for m in samples if m.name == wanted.name and m.labels == wanted.labels)
    return samples.get(next(same, wanted), _NO_SAMPLES)


def _of_groups(published: Mapping[Key, float], keys: Iterable[Key]) -> dict[Key, float]:
    """Return what came into the stream for each of its groups, which have no such count themselves."""
    found = ((key, published.get(key, published.get((key[0], key[1], "")))) for key in keys)
    return {key: count for key, count in found if count is not None}


def _latest_of(samples: _Samples, most: int) -> _Samples:
    """Return the samples of the destinations with the most lag, then of those with the most messages."""
    lag, backlog = _series(samples, LAG_SECONDS), _series(samples, BACKLOG)
    late = [key for key, seconds in lag.items() if seconds > 0]
    keys = sorted(late, key=lag.__getitem__, reverse=True)[:most]
    if len(keys) < most:
        others = backlog.keys() - keys
        keys += sorted(others, key=backlog.__getitem__, reverse=True)[: most - len(keys)]
    chosen = set(keys)
    chosen.update((*key[:2], "") for key in keys)  # what groups of a stream have in common
    return {metric: _only(metric, series, chosen) for metric, series in samples.items()}


def _only(metric: Metric, series: Mapping[Key, float], chosen: set[Key]) -> dict[Key, float]:
    """Return the samples of the chosen destinations."""
    if metric.labels == LABELS:
        return {key: series[key] for key in chosen if key in series}
    width = len(LABELS)
    return {key: value for key, value in series.items() if key[:width] in chosen}
