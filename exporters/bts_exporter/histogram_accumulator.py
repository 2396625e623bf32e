"""Counts observations for a histogram between two scrapes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from bts_exporter.metric import Metric
from bts_exporter.scrape import Scrape


class HistogramAccumulator:
    """Counts of observed values per bucket, and their sum.

    It has no lock: observe and emit under the lock of the object that owns it, or observe in one
    thread only, and accept that a scrape may see a count without its part of the sum.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Take the upper bounds of the buckets in rising order, without +Inf."""
        self._bounds = (*bounds, float("inf"))
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def emit(self, scrape: Scrape, metric: Metric, *labels: str) -> None:
        """Emit the histogram of all values observed so far."""
        buckets = zip(self._bounds, accumulate(self._counts), strict=True)
        scrape.emit_histogram(metric, buckets, self._sum, *labels)
