"""Samples that tests read by name and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from bts_exporter import prometheus_text
from bts_exporter.exposition.formats import Format
from bts_exporter.exposition.page import Source, render
from bts_exporter.metric import Key, Kind, Metric

_BOUNDS = {Kind.HISTOGRAM: "le", Kind.SUMMARY: "quantile"}


class Sample(NamedTuple):
    """One sample as a scrape serves it."""

    name: str
    labels: dict[str, str]
    value: float

    def __str__(self) -> str:
        labels = ",".join(f'{name}="{value}"' for name, value in self.labels.items())
        return f"{self.name}{{{labels}}} {self.value}" if labels else f"{self.name} {self.value}"


class Readable:
    """What has samples."""

    def each(self) -> Iterator[Sample]:
        """Yield every sample."""
        raise NotImplementedError

    def find(self, name: str, **labels: str) -> list[Sample]:
        """Return the samples of this name that have these labels, and maybe others.

        The name is that of the sample, such as `x_bucket` of a histogram x.
        """
        wanted = labels.items()
        return [s for s in self.each() if s.name == name and wanted <= s.labels.items()]

    def value(self, name: str, **labels: str) -> float:
        """Return the value of the one sample that `find` finds.

        AssertionError, with what there is of this name, if it finds none or several.
        """
        found = self.find(name, **labels)
        if len(found) == 1:
            return found[0].value
        there = [str(sample) for sample in self.find(name)]
        there = there or sorted({sample.name for sample in self.each()}) or ["none"]
        wanted = str(Sample(name, labels, 0)).rpartition(" ")[0]
        msg = f"{len(found) or 'no'} samples of {wanted}; there are:"
        raise AssertionError("\n  ".join([msg, *there]))


class Samples(Readable, dict[str, dict[Key, float]]):
    """The samples of a collection by metric name, then by label values (histograms: suffix first, bound last)."""

    def __init__(self, samples: Mapping[Metric, Mapping[Key, float]]) -> None:
        super().__init__()
        self._by_metric = {metric: dict(values) for metric, values in samples.items()}
        for metric, values in self._by_metric.items():  # several may have one name
            self.setdefault(metric.name, {}).update(values)

    def each(self) -> Iterator[Sample]:
        """Yield every sample."""
        for metric, values in self._by_metric.items():
            bound = (_BOUNDS[metric.kind],) if metric.compound else ()
            for key, value in values.items():
                suffix, labels = (key[0], key[1:]) if metric.compound else ("", key)
                pairs = zip((*metric.labels, *bound), labels, strict=False)
                yield Sample(metric.name + suffix, dict(pairs), value)

    def page(self) -> str:
        """Return the page of these samples, sorted by name and labels."""
        in_order = sorted(self._by_metric, key=lambda metric: metric.name)
        samples = {metric: self._sorted(metric) for metric in in_order}
        return render([Source(samples)], Format.TEXT).decode()

    def _sorted(self, metric: Metric) -> dict[Key, float]:
        # The parts of a histogram or summary stay as they are.
        width = slice(1, 1 + metric.width) if metric.compound else slice(None)
        return dict(sorted(self._by_metric[metric].items(), key=lambda item: item[0][width]))


class Page(Readable):
    """A page of metrics that was served."""

    def __init__(self, text: str) -> None:
        """Parse `text`; ValueError if it is not valid."""
        self.text = text
        self._samples = [
            Sample(family.name + sample.suffix, dict(sample.labels), sample.value)
            for family in prometheus_text.parse(text)
            for sample in family.samples
        ]

    def each(self) -> Iterator[Sample]:
        """Yield every sample."""
        yield from self._samples
