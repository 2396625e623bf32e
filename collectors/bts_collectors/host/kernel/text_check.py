"""What types promise of samples, checked and completed: files are often written by scripts."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from bts_collectors.host.kernel.text_format import Family, Sample
from bts_exporter import Kind

#: The labels of one of several histograms or summaries of a family.
Labels = frozenset[tuple[str, str]]


def sound(family: Family) -> Iterator[str]:
    """Complete the samples of a family, leave out those that cannot be completed, and yield the errors.

    A histogram gets the bucket `+Inf`, which holds as many as its count, or its count from that bucket.
    """
    if family.kind is Kind.COUNTER:
        yield from _counters(family)
    elif family.kind in {Kind.HISTOGRAM, Kind.SUMMARY}:
        samples: list[Sample] = []
        for labels, group in _groups(family).items():
            problem = _problem(group)
            if problem is None and family.kind is Kind.HISTOGRAM:
                problem = _complete(labels, group)
            if problem is None:
                samples += group
            else:
                yield f"{family.name}{_shown(labels)}: {problem}"
        family.samples = samples


def _counters(family: Family) -> Iterator[str]:
    negative = [sample for sample in family.samples if sample.value < 0]
    if negative:
        family.samples = [sample for sample in family.samples if not sample.value < 0]
    for sample in negative:
        labels = frozenset(sample.labels.items())
        yield f"{family.name}{_shown(labels)}: a counter cannot be below 0"


def _groups(family: Family) -> dict[Labels, list[Sample]]:
    """Return the samples by the histogram or summary that they are of."""
    own = "le" if family.kind is Kind.HISTOGRAM else "quantile"
    groups: dict[Labels, list[Sample]] = {}
    for sample in family.samples:
        labels = frozenset(item for item in sample.labels.items() if item[0] != own)
        groups.setdefault(labels, []).append(sample)
    return groups


def _problem(group: list[Sample]) -> str | None:
    negative = any(sample.suffix in {"_bucket", "_count"} and sample.value < 0 for sample in group)
    return "a count cannot be below 0" if negative else None


def _complete(labels: Labels, group: list[Sample]) -> str | None:
    """Add what a histogram lacks; return the error where it cannot be added."""
    counts = [sample.value for sample in group if sample.suffix == "_count"]
    totals = [
        sample.value
        for sample in group
        if sample.suffix == "_bucket" and float(sample.labels["le"]) == inf
    ]
    if not counts and not totals:
        return "a histogram needs the bucket +Inf, or a count"
    if not totals:
        # Behind the other buckets, where parsers look for it.
        place = sum(sample.suffix == "_bucket" for sample in group)
        group.sort(key=lambda sample: sample.suffix != "_bucket")
        group.insert(place, Sample("_bucket", {**dict(labels), "le": "+Inf"}, counts[0]))
    if not counts:
        group.append(Sample("_count", dict(labels), totals[0]))
    return None


def _shown(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in sorted(labels)) + "}"
