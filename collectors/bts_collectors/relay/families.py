"""Families of another program's page as our metrics: names, labels, and distributions that are whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise

from bts_collectors.relay.config import RESERVED
from bts_exporter import Kind, Metric, Scrape, check_samples, prometheus_text

#: Labels that Prometheus and our engine add to every series. Those of applications are renamed as
#: Prometheus renames them.
_RENAMED = frozenset({"instance", "job", "target"})
_BOUNDS = {Kind.HISTOGRAM: "le", Kind.SUMMARY: "quantile"}
#: The suffix of the samples that have a bound.
_BOUNDED = {Kind.HISTOGRAM: "_bucket", Kind.SUMMARY: ""}
#: Labels of a family: a page with a new one in each sample would take quadratic memory.
MAX_LABELS = 60

Family = prometheus_text.Family
Sample = prometheus_text.Sample
Key = tuple[str, ...]


class Relayed:
    """Emits families, as metrics that stay the same objects from one scrape to the next."""

    def __init__(self, prefix: str, own: Iterable[Metric]) -> None:
        """Put `prefix` in front of all names; those of `own` metrics and of the exporter are left out."""
        self._prefix = prefix
        self._own = {metric.name for metric in own}
        #: Those of the previous scrape: the engine keeps how their series are rendered.
        self._previous: dict[tuple[str, ...], Metric] = {}
        self._metrics: dict[tuple[str, ...], Metric] = {}

    def emit(self, scrape: Scrape, families: Sequence[Family]) -> list[str]:
        """Emit what can be served of each family; return what is wrong with the rest."""
        problems: list[str] = []
        self._previous, self._metrics = self._metrics, {}
        for family in families:
            name = self._prefix + family.name
            if name.startswith(RESERVED) or name in self._own:
                continue
            samples, errors = check_samples(family)
            problems += errors
            if family.kind in _BOUNDS:
                samples = list(_whole(family, samples, problems))
            elif family.kind is Kind.COUNTER:
                samples = list(_known(family, samples, problems))
            problems += self._emit(scrape, family, name, samples)
        return problems

    def _emit(
        self, scrape: Scrape, family: Family, name: str, samples: Sequence[Sample]
    ) -> Iterator[str]:
        """Emit the samples of a family as those of the metric `name`; yield why that is not possible."""
        bound = _BOUNDS.get(family.kind, "")
        labels = list(dict.fromkeys(chain.from_iterable(sample.labels for sample in samples)))
        labels = [label for label in labels if label != bound]
        if len(labels) > MAX_LABELS:
            yield f"{family.name} has {len(labels)} labels (at most {MAX_LABELS})"
            return
        key = (name, family.kind, family.help, *labels)
        metric = self._previous.get(key)
        if metric is None:
            metric = Metric(name, family.help, family.kind, _renamed(labels))
        self._metrics[key] = metric
        pairs = [(_key(sample, labels, bound), sample.value) for sample in samples]
        if metric.compound:
            scrape.emit_family(metric, pairs)
        else:
            scrape.emit_all(metric, dict(pairs))


def _renamed(labels: Sequence[str]) -> list[str]:
    """Return label names with `exported_` in front of those that are not the application's to set."""
    taken, renamed = set(labels), []
    for label in labels:
        free = label
        while free in _RENAMED or (free != label and free in taken):
            free = f"exported_{free}"
        renamed.append(free)
    return renamed


def _key(sample: Sample, labels: Sequence[str], bound: str) -> Key:
    """Return the key of a sample; a label that it lacks is empty."""
    values = tuple([sample.labels.get(label, "") for label in labels])
    if not bound:
        return values
    ends = (sample.labels[bound],) if bound in sample.labels else ()
    return (sample.suffix, *values, *ends)


def _known(family: Family, samples: Iterable[Sample], problems: list[str]) -> Iterator[Sample]:
    """Yield the counters that are numbers: OpenMetrics has no others."""
    for sample in samples:
        if math.isnan(sample.value):
            problems.append(f"{family.name}{_shown(sample.labels)}: a counter cannot be NaN")
        else:
            yield sample


def _whole(family: Family, samples: Iterable[Sample], problems: list[str]) -> Iterator[Sample]:
    """Yield the samples of each histogram or summary that is correct, the bounds in ascending order."""
    own = _BOUNDS[family.kind]
    groups: dict[frozenset[tuple[str, str]], list[Sample]] = {}
    for sample in samples:
        labels = frozenset(item for item in sample.labels.items() if item[0] != own)
        groups.setdefault(labels, []).append(sample)
    for labels, group in groups.items():
        bounded = [sample for sample in group if sample.suffix == _BOUNDED[family.kind]]
        bounded.sort(key=lambda sample: float(sample.labels[own]))
        rest = [sample for sample in group if sample.suffix != _BOUNDED[family.kind]]
        if problem := _wrong(family.kind, bounded, rest):
            problems.append(f"{family.name}{_shown(dict(labels))}: {problem}")
            continue
        yield from (_with_bound(sample, own) for sample in bounded)
        for sample in rest:
            # A program may increment it after the buckets.
            is_count = family.kind is Kind.HISTOGRAM and sample.suffix == "_count"
            yield sample._replace(value=bounded[-1].value) if is_count else sample


def _with_bound(sample: Sample, own: str) -> Sample:
    """Return `sample` with its bound as OpenMetrics and Prometheus 3 spell it: 1.0, not 1."""
    bound = float(sample.labels[own])
    spelled = "+Inf" if bound == math.inf else repr(bound)
    if sample.labels[own] == spelled:
        return sample
    return sample._replace(labels={**sample.labels, own: spelled})


def _wrong(kind: Kind, bounded: Sequence[Sample], rest: Sequence[Sample]) -> str:
    """Return what is wrong with a histogram or summary, empty if nothing is."""
    own = _BOUNDS[kind]
    bounds = [float(sample.labels[own]) for sample in bounded]
    counts = [sample.value for sample in bounded] if kind is Kind.HISTOGRAM else []
    totals = [sample.value for sample in rest if sample.suffix == "_count"]
    if any(own in sample.labels for sample in rest):
        return f"a sum or count has the label {own}"
    if any(math.isnan(bound) for bound in bounds) or len(set(bounds)) < len(bounds):
        return f"{own} is repeated, or not a number"
    if kind is Kind.SUMMARY and not all(0 <= bound <= 1 for bound in bounds):
        return "a quantile is not between 0 and 1"
    if not all(math.isfinite(count) and count == int(count) for count in (*counts, *totals)):
        return "a count is not a whole number"
    if any(after < before for before, after in pairwise(counts)):
        return "a bucket has a smaller count than the one below it"
    return ""


def _shown(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{value[:40]}"' for name, value in sorted(labels.items())[:5])
    return f"{{{pairs}}}"
