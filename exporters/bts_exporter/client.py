"""Our collectors for programs that use prometheus_client: in a registry of theirs, or pushed.

A Python service can so serve the machine and its brokers on the /metrics that it has already.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike, fspath
from types import TracebackType
from typing import Self

import prometheus_client
from prometheus_client.registry import Collector as ClientCollector

from bts_exporter.collection.runner import Snapshot
from bts_exporter.errors import PushError
from bts_exporter.metric import Key, Kind, Metric
from bts_exporter.scrape import Scrape
from bts_exporter.self_metrics import CollectorMetrics
from bts_exporter.service import Options, Service

_TYPES = {Kind.UNTYPED: "unknown"}
_BOUNDS = {Kind.HISTOGRAM: "le", Kind.SUMMARY: "quantile"}


class ExporterCollector(ClientCollector):
    """The collectors of a settings file as one custom collector of prometheus_client.

    Each collection asks every configured target once, at the same time, and returns after
    `scrape_timeout` of the settings at the latest. One that hangs or raises loses only its own
    metrics; `bts_exporter_collector_success` shows which. Metrics of the process and of an HTTP
    server are left out: they are the embedding program's.
    """

    def __init__(self, config: str | PathLike[str] | None = None) -> None:
        """Load the settings in the file `config` and start the collectors.

        Without a file the default search applies. ConfigError with every problem in the settings.
        """
        self._service = Service(Options(config_file=None if config is None else fspath(config)))
        self._outcomes = CollectorMetrics()
        self._service.start_collectors()

    def __enter__(self) -> Self:
        """Return itself, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def describe(self) -> Iterator[prometheus_client.Metric]:
        """Yield nothing: a registry would otherwise collect once to learn the names."""
        yield from ()

    def collect(self) -> Iterator[prometheus_client.Metric]:
        """Yield the metric families of one collection."""
        exporter = self._service.exporter
        snapshots = exporter.collectors.collect(
            exporter.collectors.runners, exporter.scrape_timeout
        )
        families: dict[str, prometheus_client.Metric] = {}
        for snapshot in snapshots:
            _add(families, snapshot.samples, constant_labels(snapshot))
        status = Scrape(0)
        self._outcomes.emit(status, snapshots)
        _add(families, status.samples, {})
        yield from families.values()

    def failures(self) -> list[str]:
        """Return a line for each collector whose latest collection failed, with its reason."""
        return [
            f"{runner.identity}: FAILS ({runner.outcome.reason}): {runner.outcome.message}"
            for runner in self._service.exporter.collectors.runners
            if runner.outcome is not None and not runner.outcome.success
        ]

    def close(self) -> None:
        """Stop the collectors; a registry that still has this one gets no samples any more."""
        self._service.stop_collectors()
        self._service.exporter.collectors.runners.clear()


def constant_labels(snapshot: Snapshot) -> dict[str, str]:
    """Return the labels that all series of a collector have."""
    runner = snapshot.runner
    return ({"target": runner.target} if runner.target else {}) | runner.common.labels


def _add(
    families: dict[str, prometheus_client.Metric],
    samples: dict[Metric, dict[Key, float]],
    constant: dict[str, str],
) -> None:
    for metric, values in samples.items():
        family = families.get(metric.name)
        if family is None:
            family = families[metric.name] = _family(metric)
        for key, value in values.items():
            name, labels = _series(metric, key)
            family.add_sample(name, constant | labels, value)


def _family(metric: Metric) -> prometheus_client.Metric:
    if metric.kind is not Kind.COUNTER:
        return prometheus_client.Metric(
            metric.name, metric.help, _TYPES.get(metric.kind, metric.kind)
        )
    name = metric.name.removesuffix("_total")
    # prometheus_client appends _total to the name of a counter, also to one that has none.
    kind = "unknown" if name == metric.name else "counter"
    return prometheus_client.Metric(name, metric.help, kind)


def _series(metric: Metric, key: Key) -> tuple[str, dict[str, str]]:
    """Return the name and the labels of a sample."""
    if not metric.compound:
        return metric.name, dict(zip(metric.labels, key, strict=True))
    suffix, *values = key
    names = metric.labels
    if len(values) > len(names):
        names = (*names, _BOUNDS[metric.kind])
    return metric.name + suffix, dict(zip(names, values, strict=True))


def push(url: str, job: str, config: str | None) -> list[str]:
    """Collect once and replace the metrics of `job` on the Pushgateway at `url`.

    Returns a line for each collector that failed; the others' metrics are pushed all the same.
    PushError when the Pushgateway does not take them; it has these lines, too.
    """
    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    with ExporterCollector(config) as collector:
        registry.register(collector)
        try:
            prometheus_client.push_to_gateway(url, job=job, registry=registry)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            msg = f"push to {url} failed: {reason}; is it the address of a Pushgateway?"
            raise PushError("\n".join([msg, *collector.failures()])) from error
        return collector.failures()
