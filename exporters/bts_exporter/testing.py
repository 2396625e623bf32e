"""A test kit for authors of collectors: collect once, look at the samples."""

from __future__ import annotations

from itertools import chain
from time import monotonic

import msgspec

from bts_exporter.errors import TargetError
from bts_exporter.metric import Metric, label_problem
from bts_exporter.plugin import Collector
from bts_exporter.scrape import Scrape
from bts_exporter.stored_state import Clocks, StoredState

#: Samples by metric name, then by label values (histograms: suffix first, bound last).
Samples = dict[str, dict[tuple[str, ...], float]]


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


def restart(before: Collector, after: Collector, downtime: float = 0.0) -> None:
    """Give `after` what `before` stores, as a restart of the exporter that took `downtime` seconds does.

    AssertionError if `before` stores nothing.
    """
    found = before.save_state()
    if found is None or before.State is None or type(found[1]) is not before.State:
        msg = (
            f"{before!r} stores no state: save_state returned {found!r}, State is {before.State!r}"
        )
        raise AssertionError(msg)
    identity, state = found
    now = Clocks.now()
    saved = Clocks(now.wall - downtime, now.monotonic, now.boottime, boot_id="")
    copy = msgspec.json.decode(msgspec.json.encode(state), type=before.State)
    after.keep_for_restore(StoredState("of the test", identity, saved, copy))


def samples(collector: Collector, scrape: Scrape) -> Samples:
    """Return the samples of `scrape`, checked against what `collector` declares."""
    for reason, message in scrape.losses:
        if reason == "invalid_sample":
            raise AssertionError(message)
    for metric in scrape.samples:
        if not collector.open_ended and not _is_declared(collector, metric):
            msg = f"{metric!r} is emitted and not declared"
            raise AssertionError(msg)
        for problem in filter(None, (label_problem(metric, key) for key in scrape.samples[metric])):
            raise AssertionError(problem)
    return {metric.name: dict(values) for metric, values in scrape.samples.items()}


def _reported(scrape: Scrape) -> TargetError | None:
    """Return what the collector reported, as one error."""
    losses = [(reason, text) for reason, text in scrape.losses if reason != "limited"]
    if not losses:
        return None
    return TargetError(losses[0][0], "; ".join(text for _, text in losses))


def _is_declared(collector: Collector, metric: Metric) -> bool:
    return any(
        metric is declared or (not isinstance(declared, Metric) and declared.has(metric))
        for declared in chain(collector.declared(), collector.declared_by(collector.config))
    )
