"""What a collection writes its samples to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import NoReturn

from bts_exporter.errors import DeadlineExceeded, reason_of, text_of
from bts_exporter.metric import Key, Kind, Metric, number
from bts_exporter.scrape_state import ScrapeState

_NO_SAMPLES: dict[Key, float] = {}
_NUMBERS = {int, float}
#: Integers up to here are floating-point numbers, too; others are converted to find out.
_LARGEST = 1 << 1000
_SMALLEST = -_LARGEST
#: What the keys of a compound metric's samples begin with, and those of them that end in a bound.
_SUFFIXES = {Kind.HISTOGRAM: {"_bucket", "_sum", "_count"}, Kind.SUMMARY: {"", "_sum", "_count"}}
_BOUNDED = {Kind.HISTOGRAM: {"_bucket"}, Kind.SUMMARY: {""}}


class Scrape(ScrapeState):
    """What one collection of one collector writes its samples to; not for use by several threads.

    A collector cannot replace its attributes: the engine reads them after the collection.
    """

    __slots__ = (
        "_allows",
        "_chooses",
        "_denies",
        "_room",
    )

    def __init__(
        self,
        deadline: float,
        *,
        max_series: int = 10_000_000,
        allows: re.Pattern[str] | None = None,
        denies: re.Pattern[str] | None = None,
    ) -> None:
        """Give `deadline` on the clock of `time.monotonic`."""
        super().__init__(deadline, max_series)
        self._room = max_series
        self._allows = allows
        self._denies = denies
        self._chooses = allows is not None or denies is not None

    def remaining(self) -> float:
        """Return the seconds left until the deadline, for I/O timeouts; at least a millisecond.

        The engine has already kept back the time that it needs: use all of it.
        """
        return max(self._deadline - monotonic(), 0.001)

    def emit(self, metric: Metric, value: float, *labels: str) -> None:
        """Add one sample; a wrong one is left out and makes the collection a failure.

        DeadlineExceeded once the scrape is over.
        """
        if len(labels) != metric.width or metric.compound:
            self._reject_shape(metric, labels)
            return
        self._put(metric, labels, value)

    def emit_all(self, metric: Metric, samples: Mapping[Key, float]) -> None:
        """Add many samples of one metric by their label values, for a fraction of `emit`'s time each.

        As with `emit` wrong ones are left out; of one emitted twice the latter is served.
        """
        if self._chooses and not self._wants(metric):
            return
        sound = (
            set(map(type, samples)) == {tuple}
            and set(map(len, samples)) == {metric.width}
            and (types := set(map(type, samples.values()))) <= _NUMBERS
            and type(metric) is Metric
            and not metric.compound
            and not self._closed
            and len(samples) <= self._room
            and (int not in types or _all_finite(samples.values()))
        )
        if not sound:  # one by one, to report the wrong ones and keep the others
            for key, value in samples.items():
                if isinstance(key, tuple):
                    self.emit(metric, value, *key)
                else:
                    self._reject(f"{metric.name}: {key!r} is not a tuple of labels")
            return
        there = self._samples.setdefault(metric, {})
        together = len(there) + len(samples)
        there.update(samples)
        self._room -= len(samples)
        if len(there) != together:
            self._reject(f"{metric.name}: emitted twice with the same labels")

    def emit_histogram(
        self, metric: Metric, buckets: Iterable[tuple[float, float]], total: float, *labels: str
    ) -> None:
        """Add one histogram: `(upper bound, cumulative count)` rising to +Inf, and the sum of all values."""
        if len(labels) != metric.width or metric.kind is not Kind.HISTOGRAM:
            self._reject_shape(metric, labels)
            return
        rows: list[tuple[Key, float]] = []
        count = 0.0
        bound = 0.0
        for bound, count in buckets:
            rows.append((("_bucket", *labels, number(bound)), count))
        if bound != float("inf"):
            rows.append((("_bucket", *labels, "+Inf"), count))
        rows += ((("_sum", *labels), total), (("_count", *labels), count))
        self._put_all(metric, rows)

    def emit_summary(
        self,
        metric: Metric,
        quantiles: Iterable[tuple[float, float]],
        total: float | None,
        count: float,
        *labels: str,
    ) -> None:
        """Add one summary: `(quantile, value)`, the sum of all values (None: unknown), their count."""
        if len(labels) != metric.width or metric.kind is not Kind.SUMMARY:
            self._reject_shape(metric, labels)
            return
        rows: list[tuple[Key, float]] = [
            (("", *labels, number(quantile)), value) for quantile, value in quantiles
        ]
        if total is not None:
            rows.append((("_sum", *labels), total))
        rows.append((("_count", *labels), count))
        self._put_all(metric, rows)

    def emit_family(self, metric: Metric, samples: Iterable[tuple[Key, float]]) -> None:
        """Add the samples of one metric as another exporter served them: `(key, value)` pairs.

        A key has the label values. Of a histogram or summary it begins with the suffix of the
        sample's name, such as `_bucket`, and ends with the bound of a bucket or quantile.
        """
        if not metric.compound:
            for key, value in samples:
                self.emit(metric, value, *key)
            return
        distributions: dict[Key, list[tuple[Key, float]]] = {}
        for key, value in samples:
            suffix = key[0] if key else None
            width = 1 + metric.width + (suffix in _BOUNDED[metric.kind])
            if len(key) == width and suffix in _SUFFIXES[metric.kind]:
                distributions.setdefault(key[1 : 1 + metric.width], []).append((key, value))
            else:
                self._reject(f"{metric.name}: {key!r} is not the key of a {metric.kind}")
        for rows in distributions.values():
            self._put_all(metric, rows)

    def replace(self, metric: Metric, value: float, *labels: str) -> None:
        """Set the value of a sample that may have been emitted before; at no moment is there none.

        DeadlineExceeded once the scrape is over.
        """
        samples = self._samples.get(metric)
        if samples is None or labels not in samples or self._closed:
            self.emit(metric, value, *labels)
        elif (converted := self._converted(metric, value)) is not None:
            samples[labels] = converted

    def has(self, metric: Metric, *labels: str) -> bool:
        """Return whether `metric` has a sample: with these label values, or any if none are given."""
        samples = self._samples.get(metric, _NO_SAMPLES)
        return labels in samples if labels else bool(samples)

    def discard(self, metric: Metric, *labels: str) -> None:
        """Remove the sample with these label values, or all of `metric`; nothing if there is none.

        DeadlineExceeded once the scrape is over.
        """
        if self._closed:
            self._raise_closed()
        samples = self._samples.get(metric, _NO_SAMPLES)
        gone = [labels] if labels else list(samples)
        for key in gone:
            if samples.pop(key, None) is not None:
                self._room += 1
        if not samples:
            self._samples.pop(metric, None)

    def report(self, error: Exception) -> None:
        """Count `error` as a loss of this collection, which goes on.

        The collection is a failure; all of its losses are part of the message, and their reasons
        are counted. For what ends the collection, raise the error instead.
        """
        self._lose(reason_of(error), text_of(error))

    def _put_all(self, metric: Metric, rows: Sequence[tuple[Key, float]]) -> None:
        """Add the samples of one distribution; if `max_series` leaves no room for all, none of them."""
        if len(rows) > self._room and not self._closed:
            if not self._chooses or self._wants(metric):
                self._dropped += len(rows)
            return
        samples = self._samples.get(metric, _NO_SAMPLES)
        if not samples.keys().isdisjoint(_totals(metric, rows[0][0]) if rows else ()):
            labels = rows[0][0][1 : 1 + metric.width]
            self._reject(f"{metric.name}: emitted twice with labels {labels!r}")
            return
        for key, value in rows:
            usual = type(value) is float or (type(value) is int and _SMALLEST < value < _LARGEST)
            if samples and usual and key not in samples and not self._closed:
                self._room -= 1
                samples[key] = value
            else:  # the first one, or there is something wrong with it
                self._put(metric, key, value)
                samples = self._samples.get(metric, _NO_SAMPLES)

    def _put(self, metric: Metric, key: Key, value: float) -> None:
        """Add the sample `key` of `metric`."""
        if self._closed:
            self._raise_closed()
        samples = self._samples.get(metric)
        if samples is None:
            if self._chooses and not self._wants(metric):
                return
            if type(metric) is not Metric:
                self._reject(f"{type(metric).__name__} is not a metric")
                return
            samples = self._samples[metric] = {}
        if type(value) is not float and (
            type(value) is not int or not _SMALLEST < value < _LARGEST
        ):
            converted = self._converted(metric, value)
            if converted is None:
                return
            value = converted
        if key in samples:
            self._reject(f"{metric.name}: emitted twice with labels {key!r}")
        elif self._room > 0 or metric.availability:
            self._room -= 1
            samples[key] = value
        else:
            self._dropped += 1

    def _converted(self, metric: Metric, value: float) -> float | None:
        """Return `value` as a float; None after rejecting a sample of `metric` with it."""
        try:
            return float(value)
        except OverflowError:
            self._reject(f"{metric.name}: the value is too large for a floating-point number")
        except (TypeError, ValueError):
            self._reject(f"{metric.name}: {value!r} is not a number")
        return None

    def _raise_closed(self) -> NoReturn:
        msg = "the scrape ended before this collection did"
        raise DeadlineExceeded(msg)

    def _reject(self, message: str) -> None:
        """Count a sample that is left out as a loss."""
        self._lose("invalid_sample", message)

    def _reject_shape(self, metric: Metric, labels: Sequence[str]) -> None:
        if len(labels) != metric.width:
            what = f"takes {metric.width} labels ({', '.join(metric.labels)}), got {len(labels)}"
        else:
            what = f"is a {metric.kind}, which needs another method of emit"
        self._reject(f"{metric.name} {what}")

    def _wants(self, metric: Metric) -> bool:
        if metric in self._unwanted:
            return False
        denied = self._denies is not None and self._denies.fullmatch(metric.name)
        allowed = self._allows is None or metric.availability or self._allows.fullmatch(metric.name)
        if denied or not allowed:
            self._unwanted.add(metric)
            return False
        return True


def _all_finite(values: Iterable[float]) -> bool:
    """Return whether every integer among `values` can be a float."""
    try:
        sum(values, 0.0)
    except OverflowError:
        return False
    return True


def _totals(metric: Metric, key: Key) -> set[Key]:
    """Return keys of the distribution that `key` belongs to, of which each one has at least one."""
    labels = key[1 : 1 + metric.width]
    return {("_count", *labels), ("_sum", *labels), ("_bucket", *labels, "+Inf")}
