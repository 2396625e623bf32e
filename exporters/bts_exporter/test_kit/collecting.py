"""One collection in the thread of the test: what the collector raises is passed on."""

from __future__ import annotations

from itertools import chain
from time import monotonic

from bts_exporter.errors import TargetError
from bts_exporter.metric import Metric, label_problem
from bts_exporter.plugin import Collector
from bts_exporter.scrape import Scrape
from bts_exporter.test_kit.samples import Samples


def collect(collector: Collector, seconds: float = 10.0) -> Samples:
    """Return what one collection of `collector` emits.

    What `collect` raises is passed on, and what it reports is raised as a TargetError.
    AssertionError for a sample that a scrape would leave out or for a metric that the collector
    does not declare.
    """
    scrape = Scrape(monotonic() + seconds)
    collector.collect(scrape)
    found = samples(collector, scrape)
    if failure := _reported(scrape):
        raise failure
    return found


def look(collector: Collector, seconds: float = 10.0) -> tuple[Samples, TargetError | None]:
    """Return what one collection of `collector` emits, and the TargetError that it raises or reports."""
    scrape = Scrape(monotonic() + seconds)
    failure = None
    try:
        collector.collect(scrape)
    except TargetError as error:
        failure = error
    return samples(collector, scrape), failure or _reported(scrape)


def samples(collector: Collector, scrape: Scrape) -> Samples:
    """Return the samples of `scrape`; AssertionError if one is invalid or not declared."""
    for reason, message in scrape.losses:
        if reason == "invalid_sample":
            raise AssertionError(message)
    for metric in scrape.samples:
        if not collector.open_ended and not is_declared(collector, metric):
            msg = f"{metric!r} is emitted and not declared"
            raise AssertionError(msg)
        for problem in filter(None, (label_problem(metric, key) for key in scrape.samples[metric])):
            raise AssertionError(problem)
    return Samples(scrape.samples)


def is_declared(collector: Collector, metric: Metric) -> bool:
    """Return whether the collector's class or its settings declare `metric`."""
    return any(
        metric is declared or (not isinstance(declared, Metric) and declared.has(metric))
        for declared in chain(collector.declared(), collector.declared_by(collector.config))
    )


def _reported(scrape: Scrape) -> TargetError | None:
    """Return what the collector reported, as one error."""
    losses = [(reason, text) for reason, text in scrape.losses if reason != "limited"]
    if not losses:
        return None
    return TargetError(losses[0][0], "; ".join(text for _, text in losses))
