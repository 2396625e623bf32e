"""Our collectors for programs that use prometheus_client: in a registry of theirs.

A Python service can so serve the machine and its brokers on the /metrics that it has already.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike, fspath
from types import TracebackType
from typing import Self

import prometheus_client
from prometheus_client.registry import Collector as ClientCollector

from bts_exporter import prometheus_text
from bts_exporter.exposition.formats import Format
from bts_exporter.metric import Kind
from bts_exporter.service import Options, Service

_TYPES = {Kind.UNTYPED: "unknown"}


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
        # Of the page, since only a page has each series once and no invalid sample.
        page = exporter.page(exporter.collectors.runners, Format.TEXT, with_self_metrics=False)
        for family in prometheus_text.parse(page.decode(), strict=False):  # keeps empty labels
            yield _converted(family)

    def failures(self) -> list[str]:
        """Return a line for each collector whose latest collection failed, with its reason."""
        return [
            f"{runner.identity}: FAILS ({shown.outcome.reason}): {shown.outcome.message}"
            for runner, shown in self._service.exporter.last.items()
            if shown.outcome is not None and not shown.outcome.success
        ]

    def close(self) -> None:
        """Stop the collectors; a registry that still has this one gets no samples any more."""
        self._service.stop_collectors()
        self._service.exporter.collectors.runners.clear()


def _converted(family: prometheus_text.Family) -> prometheus_client.Metric:
    """Return a family of our page as one of prometheus_client."""
    name, kind = family.name, _TYPES.get(family.kind, str(family.kind))
    if family.kind is Kind.COUNTER:
        name = family.name.removesuffix("_total")
        # prometheus_client appends _total to the name of a counter, also to one that has none.
        kind = "unknown" if name == family.name else kind
    converted = prometheus_client.Metric(name, family.help, kind)
    for sample in family.samples:
        converted.add_sample(family.name + sample.suffix, sample.labels, sample.value)
    return converted
