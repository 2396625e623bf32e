"""A histogram's state: written by the network thread, read by collections."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from bts_exporter import Metric, Scrape


class Distribution:
    """Counts of values by upper bound, and their sum; for use under the lock of its owner."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Give the upper bounds, rising; one without end follows them."""
        self._bounds = (*bounds, float("inf"))
        self._counts = [0] * len(self._bounds)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def emit(self, scrape: Scrape, metric: Metric, *labels: str) -> None:
        """Emit what was counted so far."""
        buckets = zip(self._bounds, accumulate(self._counts), strict=True)
        scrape.emit_histogram(metric, buckets, self._total, *labels)
