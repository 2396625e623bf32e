"""Checks of the metrics that a collector declares."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from bts_exporter.metric import Kind, Metric, Template
from bts_exporter.plugin import Collector
from bts_exporter.test_kit.samples import Samples

#: Units that are not base units, and what to use instead.
_UNITS = {
    **dict.fromkeys(("milliseconds", "millis", "ms", "microseconds", "us", "nanoseconds", "ns"), "seconds"),
    **dict.fromkeys(("minutes", "hours", "days"), "seconds"),
    **dict.fromkeys(("kilobytes", "kb", "kib", "megabytes", "mb", "mib", "gigabytes", "gb", "gib", "bits"), "bytes"),
    **dict.fromkeys(("percent", "percentage", "pct"), "ratio"),
    "fahrenheit": "celsius",
}  # fmt: skip
_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
#: Labels that Prometheus or the exporter sets.
_SET_BY_OTHERS = {"instance": "Prometheus", "job": "Prometheus", "target": "the exporter"}


def not_emitted(collector: Collector | type[Collector], *samples: Samples) -> list[str]:
    """Return the names of the metrics that a collector declares and that none of `samples` has.

    Give samples of several collections if no single one emits everything.
    """
    declared = list(collector.declared())
    if isinstance(collector, Collector):
        declared += collector.declared_by(collector.config)
    emitted = {name for found in samples for name in found}
    # A name that is declared as such is not one of a template.
    others = emitted - {metric.name for metric in declared}
    return sorted(
        metric.name
        for metric in declared
        if metric.name not in emitted
        and not (isinstance(metric, Template) and _has(metric, others))
    )


def naming_problems(cls: type[Collector]) -> list[str]:
    """Return where the metrics of a collector break the conventions of Prometheus; empty if they keep them."""
    declared = list(cls.declared())
    problems = [problem for metric in declared for problem in _problems_of(metric)]
    names = Counter(metric.name for metric in declared)
    return problems + [f"{name} is declared twice" for name in names if names[name] > 1]


def _has(template: Template, names: set[str]) -> bool:
    pattern = re.escape(template.name).replace(re.escape("{field}"), ".+")
    return any(re.fullmatch(pattern, name) for name in names)


def _problems_of(metric: Metric | Template) -> Iterator[str]:
    name = metric.name.replace("{field}", "field")
    if not _SNAKE.fullmatch(name):
        yield f"{name}: expected lower-case words with one underscore between them"
    if metric.kind is Kind.COUNTER and not name.endswith("_total"):
        yield f"{name}: the name of a counter ends in _total"
    if metric.kind is not Kind.COUNTER and name.endswith("_total"):
        yield f"{name}: only the name of a counter ends in _total"
    if name.endswith(("_count", "_sum", "_bucket")):
        yield f"{name}: _{name.rpartition('_')[2]} is the end of a part of a histogram or summary"
    words = name.split("_")
    yield from (
        f"{name}: {word} is not a base unit: use {_UNITS[word]}" for word in words if word in _UNITS
    )
    if words[-1] in {"gauge", "counter", "histogram", "summary"}:
        yield f"{name}: the type of a metric is not part of its name"
    if name.startswith("bts_exporter_"):
        yield f"{name}: the exporter's own metrics begin with bts_exporter_"
    if not metric.help.strip():
        yield f"{name}: the help is empty"
    yield from _problems_of_labels(name, metric)


def _problems_of_labels(name: str, metric: Metric | Template) -> Iterator[str]:
    for label in metric.labels:
        if not _SNAKE.fullmatch(label):
            yield f"{name}: label {label}: expected lower-case words with one underscore between them"
        if label in _SET_BY_OTHERS:
            yield f"{name}: label {label} is set by {_SET_BY_OTHERS[label]}"
        if label in {"le", "quantile"}:
            yield f"{name}: label {label} belongs to histograms and summaries"
