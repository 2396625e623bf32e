"""Many things with the same metrics, emitted metric by metric: one by one takes twice as long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bts_exporter import Metric, Scrape


class Columns:
    """The label values of things that have the same metrics."""

    def __init__(self, scrape: Scrape, labels: Sequence[tuple[str, ...]]) -> None:
        """Take the label values of each; where two are spelled alike, the latter is served."""
        self._scrape = scrape
        self._labels = labels
        if len(set(labels)) < len(labels):
            twice = next(own for own in labels if labels.count(own) > 1)
            scrape.reject("invalid_sample", f"two names are both spelled {twice!r} as labels")

    def emit(self, metric: Metric, values: Iterable[float | None]) -> None:
        """Emit a metric of each; None is not known and gives no sample."""
        pairs = zip(self._labels, values, strict=True)
        found = {labels: value for labels, value in pairs if value is not None}
        if found:
            self._scrape.emit_all(metric, found)
