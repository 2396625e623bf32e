"""Emits many objects with the same metrics, metric by metric: object by object takes twice as long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bts_exporter import Metric, Scrape, TargetError


class Columns:
    """The label values of objects that have the same metrics."""

    def __init__(self, scrape: Scrape, labels: Sequence[tuple[str, ...]]) -> None:
        """Take the label values of each object. If two are equal, the last one is served."""
        self._scrape = scrape
        self._labels = labels
        if len(set(labels)) < len(labels):
            twice = next(values for values in labels if labels.count(values) > 1)
            message = f"two names have the same label values {twice!r}"
            scrape.report(TargetError("invalid_sample", message))

    def emit(self, metric: Metric, values: Iterable[float | None]) -> None:
        """Emit a metric of each object; an unknown value (None) gives no sample."""
        pairs = zip(self._labels, values, strict=True)
        samples = {labels: value for labels, value in pairs if value is not None}
        if samples:
            self._scrape.emit_all(metric, samples)
