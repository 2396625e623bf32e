"""The lag of all destinations, from the common metrics of queue depth and lag in a scrape's samples.

The page, the API and the command `lag` show the same report. An unknown value is None, never 0.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from bts_exporter.backlog import CONSUMED, LABELS, LAG_METHOD, PUBLISHED, RATE_SECONDS
from bts_exporter.collection.runner import Runner, Snapshot
from bts_exporter.metric import Key, Metric

#: The version of the report's JSON: it rises if a field is removed or changes its meaning.
VERSION = 1
#: Seconds between two counts that a rate needs at least.
SHORTEST_RATE_SECONDS = 5.0

_PREFIX = "messaging_"
#: What all groups of a stream have in common; the metrics have an empty group.
_OF_STREAMS = frozenset(
    ("published_messages_total", "published_per_second", "limit_messages", "retention_seconds")
)
_NO_SAMPLES: Mapping[Key, float] = {}


class Destination(msgspec.Struct, kw_only=True, omit_defaults=False):
    """A queue, or a consumer group of a stream. Numbers are named as their metrics, without `messaging_`."""

    collector: str
    target: str
    system: str
    destination: str
    group: str
    backlog_messages: float | None = None
    in_flight_messages: float | None = None
    consumers: float | None = None
    lag_seconds: float | None = None
    lag_method: str | None = None
    in_flight_oldest_seconds: float | None = None
    in_flight_method: str | None = None
    ack_timeout_seconds: float | None = None
    drain_seconds: float | None = None
    #: False if nothing is consumed, so that the backlog is never drained; `drain_seconds` is None then.
    drains: bool | None = None
    limit_messages: float | None = None
    retention_seconds: float | None = None
    published_messages_total: float | None = None
    consumed_messages_total: float | None = None
    entries_lost_total: float | None = None
    published_per_second: float | None = None
    consumed_per_second: float | None = None

    @property
    def is_consumed(self) -> bool:
        """Whether there is a consumer's side that can be late.

        A stream that nothing reads does not have one, and neither does a place that has only delivered
        messages, such as Celery's key `unacked`.
        """
        is_group = bool(self.group) and self.in_flight_messages is not None
        is_known = self.backlog_messages is not None or self.lag_seconds is not None
        return bool(self.consumers) or is_group or is_known

    @property
    def lag_is_unknown(self) -> bool:
        """Whether messages may wait, and it is not known since when."""
        return self.is_consumed and self.lag_seconds is None and self.backlog_messages != 0


class CollectorState(msgspec.Struct, kw_only=True):
    """How the collection of one collector ended."""

    collector: str
    target: str
    success: bool
    #: Whether an optional target is not there.
    absent: bool
    reason: str | None
    message: str
    #: Age of the samples of a collector with an interval; None if they are of this moment.
    age_seconds: float | None


class LagReport(msgspec.Struct, kw_only=True):
    """All destinations, the latest first, and the state of the collectors that they come from."""

    version: int = VERSION
    #: Unix time.
    time: float
    destinations: list[Destination]
    collectors: list[CollectorState]


#: The fields that a metric's value goes to, by the name of the metric.
_FIELDS = {
    f"{_PREFIX}{field}": field
    for field in Destination.__struct_fields__
    if field.endswith(("_messages", "_seconds", "_total", "consumers"))
}
#: The same for metrics whose label `method` is the value.
_METHODS = {
    f"{_PREFIX}lag_method_info": "lag_method",
    f"{_PREFIX}in_flight_method_info": "in_flight_method",
}


class _Counts(NamedTuple):
    """A count of each destination in 16 bytes: its labels would need ten times as much as their hash."""

    hashes: array[int]
    values: array[float]


class _Reading(NamedTuple):
    """The counts of one collector at a moment on the monotonic clock."""

    time: float
    published: _Counts
    consumed: _Counts


class CountHistory:
    """Counts of earlier scrapes, for rates over the last RATE_SECONDS to twice that.

    It keeps two of a collector's readings.
    """

    def __init__(self) -> None:
        """Begin without readings."""
        self._readings: dict[Runner, tuple[_Reading, _Reading]] = {}

    def observe(self, shots: Iterable[Snapshot], now: float) -> None:
        """Add what was collected at `now`, on the monotonic clock."""
        for shot in shots:
            published, consumed = _counts_of(shot)
            if not (published or consumed):
                continue
            time = now - (shot.age or 0.0)
            _, latest = self._readings.get(shot.runner, (None, None))
            if latest is None or time - latest.time >= RATE_SECONDS:
                reading = _Reading(time, _kept(published), _kept(consumed))
                self._readings[shot.runner] = latest or reading, reading

    def keep_only(self, runners: Iterable[Runner]) -> None:
        """Forget the collectors that a reload has removed."""
        here = set(runners)
        self._readings = {r: kept for r, kept in self._readings.items() if r in here}

    def rates(self, shot: Snapshot, now: float) -> tuple[dict[Key, float], dict[Key, float]]:
        """Return the rates in and out of the destinations in `shot`, as far as they are known."""
        base, _ = self._readings.get(shot.runner, (None, None))
        seconds = 0.0 if base is None else now - (shot.age or 0.0) - base.time
        if base is None or seconds < SHORTEST_RATE_SECONDS:
            return {}, {}
        published, consumed = _counts_of(shot)
        return (
            _rates(base.published, published, seconds),
            _rates(base.consumed, consumed, seconds),
        )


def reports_lag(runner: Runner) -> bool:
    """Return whether a collector may have destinations: those of kernel files have none."""
    if not runner.local or runner.open_ended:
        return True
    return any(metric.name in _FIELDS for metric in type(runner.collector).declared())


def report_of(
    shots: Sequence[Snapshot], history: CountHistory, *, now: float, time: float
) -> LagReport:
    """Return the report of a scrape that ended at `now` on the monotonic clock, and at Unix time `time`."""
    found = [(shot, destinations_of(shot, history, now)) for shot in shots]
    rows = [row for _, destinations in found for row in destinations]
    states = [_state(shot) for shot, rows in found if rows or not shot.runner.local]
    return LagReport(time=time, destinations=sorted(rows, key=rank), collectors=states)


def destinations_of(shot: Snapshot, history: CountHistory, now: float) -> list[Destination]:
    """Return the destinations in the samples of one collector, collected at `now` on the monotonic clock."""
    rows = _values(shot.samples)
    published, consumed = history.rates(shot, now)
    for key, values in rows.items():
        _add_flow(values, "published_per_second", published.get(key))
        _add_flow(values, "consumed_per_second", consumed.get(key))
    _share_with_groups(rows)
    source: dict[str, Any] = {
        "collector": text(shot.runner.name),
        "target": text(shot.runner.target),
    }
    return [Destination(**source, **_named(key), **values) for key, values in rows.items()]


def _values(samples: Mapping[Metric, Mapping[Key, float]]) -> dict[Key, dict[str, Any]]:
    """Return the values of the common metrics by (system, destination, group)."""
    rows: dict[Key, dict[str, Any]] = {}
    for metric, series in samples.items():
        if metric.name in _METHODS and metric.labels == LAG_METHOD.labels:
            for *key, method in series:
                rows.setdefault(tuple(key), {})[_METHODS[metric.name]] = text(method)
        elif metric.name in _FIELDS and metric.labels == LABELS:
            field = _FIELDS[metric.name]
            for labels, value in series.items():
                _add(rows.setdefault(labels, {}), field, value)
    return rows


def _add(values: dict[str, Any], field: str, value: float) -> None:
    """Set a field; JSON has neither NaN nor infinity, which only the time to drain can be."""
    if math.isfinite(value):
        values[field] = float(value)
    if field == "drain_seconds" and not math.isnan(value):
        values["drains"] = math.isfinite(value)


def _add_flow(values: dict[str, Any], field: str, rate: float | None) -> None:
    if rate is not None:
        values[field] = rate


def _share_with_groups(rows: dict[Key, dict[str, Any]]) -> None:
    """Give the groups of a stream what is known of the stream, which then has no row: only its groups can be late."""
    streams = {key[:2]: values for key, values in rows.items() if not key[2]}
    shared = set()
    for key, values in rows.items():
        stream = streams.get(key[:2]) if key[2] else None
        if stream is not None:
            shared.add((*key[:2], ""))
            values.update({f: stream[f] for f in _OF_STREAMS if f in stream and f not in values})
    for key in shared:
        if rows[key].keys() <= {*_OF_STREAMS, "consumers"}:
            del rows[key]


def _named(key: Key) -> dict[str, Any]:
    return {name: text(value) for name, value in zip(LABELS, key, strict=True)}


def text(value: str) -> str:
    """Return a label's value as pages spell it: lone surrogates, of invalid UTF-8, as escapes."""
    return str.encode(value, "utf-8", "backslashreplace").decode()


def rank(row: Destination) -> tuple[object, ...]:
    """Order rows: the latest first, then those whose lag is unknown, then those without lag."""
    lag, waiting = row.lag_seconds or 0.0, row.backlog_messages or 0.0
    names = (row.system, row.target, row.destination, row.group)
    return (-lag, not row.lag_is_unknown, -waiting, *names)


def _state(shot: Snapshot) -> CollectorState:
    outcome = shot.outcome
    return CollectorState(
        collector=text(shot.runner.name),
        target=text(shot.runner.target),
        success=outcome.success,
        absent=not outcome.supported,
        reason=outcome.reason,
        message=text(outcome.message),
        age_seconds=shot.age,
    )


def _counts_of(shot: Snapshot) -> tuple[Mapping[Key, float], Mapping[Key, float]]:
    samples = shot.samples
    return samples.get(PUBLISHED, _NO_SAMPLES), samples.get(CONSUMED, _NO_SAMPLES)


def _kept(series: Mapping[Key, float]) -> _Counts:
    return _Counts(array("q", map(hash, series)), array("d", series.values()))


def _rates(reading: _Counts, counts: Mapping[Key, float], seconds: float) -> dict[Key, float]:
    """Return how fast each count rose; of one that fell, the broker's counter was reset, it is unknown."""
    before = dict(zip(reading.hashes, reading.values, strict=True))
    found = ((key, count, before.get(hash(key))) for key, count in counts.items())
    return {
        key: (count - last) / seconds
        for key, count, last in found
        if last is not None and count >= last
    }


def _queryable(row: Destination) -> Iterator[tuple[str, str]]:
    yield "target", row.target
    yield from ((name, getattr(row, name)) for name in LABELS)


def matching(report: LagReport, wanted: Mapping[str, str]) -> list[Destination]:
    """Return the destinations with these values of target, system, destination and group."""
    chosen = wanted.items()
    return [row for row in report.destinations if chosen <= dict(_queryable(row)).items()]
