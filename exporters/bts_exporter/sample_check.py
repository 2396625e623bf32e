"""Checks that the samples of a metric fit its type, for metrics that other programs write."""

from __future__ import annotations

from math import inf

from bts_exporter import prometheus_text
from bts_exporter.metric import Kind

#: The labels of one of several histograms or summaries of a family.
Labels = frozenset[tuple[str, str]]

Sample = prometheus_text.Sample


def check_samples(family: prometheus_text.Family) -> tuple[list[Sample], list[str]]:
    """Return the valid samples of a family, and an error for each invalid counter, histogram or summary.

    A histogram without the bucket `+Inf` gets one from its count, and one without a count gets it from
    that bucket.
    """
    samples = list(family.samples)
    if family.kind is Kind.COUNTER:
        return _check_counters(family.name, samples)
    if family.kind not in {Kind.HISTOGRAM, Kind.SUMMARY}:
        return samples, []
    valid: list[Sample] = []
    errors = []
    for labels, group in _groups(family.kind, samples).items():
        error = _negative_count(group)
        if error is None and family.kind is Kind.HISTOGRAM:
            error = _complete(labels, group)
        if error is None:
            valid += group
        else:
            errors.append(f"{family.name}{_shown(labels)}: {error}")
    return valid, errors


def _check_counters(name: str, samples: list[Sample]) -> tuple[list[Sample], list[str]]:
    errors = [
        f"{name}{_shown(frozenset(sample.labels.items()))}: a counter cannot be negative"
        for sample in samples
        if sample.value < 0
    ]
    return [sample for sample in samples if not sample.value < 0], errors


def _groups(kind: Kind, samples: list[Sample]) -> dict[Labels, list[Sample]]:
    """Return the samples by the histogram or summary that they belong to."""
    own = "le" if kind is Kind.HISTOGRAM else "quantile"
    groups: dict[Labels, list[Sample]] = {}
    for sample in samples:
        labels = frozenset(item for item in sample.labels.items() if item[0] != own)
        groups.setdefault(labels, []).append(sample)
    return groups


def _negative_count(group: list[Sample]) -> str | None:
    negative = any(sample.suffix in {"_bucket", "_count"} and sample.value < 0 for sample in group)
    return "a count cannot be negative" if negative else None


def _complete(labels: Labels, group: list[Sample]) -> str | None:
    """Add a missing count or `+Inf` bucket to a histogram; return the error if both are missing."""
    counts = [sample.value for sample in group if sample.suffix == "_count"]
    totals = [
        sample.value
        for sample in group
        if sample.suffix == "_bucket" and float(sample.labels["le"]) == inf
    ]
    if not counts and not totals:
        return "a histogram needs the bucket +Inf, or a count"
    if not totals:
        # After the other buckets, where parsers expect it.
        position = sum(sample.suffix == "_bucket" for sample in group)
        group.sort(key=lambda sample: sample.suffix != "_bucket")
        group.insert(position, Sample("_bucket", {**dict(labels), "le": "+Inf"}, counts[0]))
    if not counts:
        group.append(Sample("_count", dict(labels), totals[0]))
    return None


def _shown(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in sorted(labels)) + "}"
