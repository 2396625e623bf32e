"""RabbitMQ: a cluster by its management API, or by its Prometheus endpoint or AMQP.

Metric names are those of RabbitMQ's own exporter (rabbitmq_prometheus of 4.x).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING, Protocol

from bts_collectors.rabbitmq.api.client import EXPORTER, MANAGEMENT, connect
from bts_collectors.rabbitmq.api.models import Queue
from bts_collectors.rabbitmq.compat import kbudde
from bts_collectors.rabbitmq.compat.kbudde import KbuddeSource
from bts_collectors.rabbitmq.config import CanarySettings, RabbitMQConfig
from bts_collectors.rabbitmq.errors import Failures
from bts_collectors.rabbitmq.management.listing import QueueLister, is_selected_name
from bts_collectors.rabbitmq.management.source import ManagementSource
from bts_collectors.rabbitmq.metrics import (
    amqp,
    backlog,
    exchanges,
    health,
    nodes,
    overview,
    queues,
    streams,
)
from bts_collectors.rabbitmq.metrics.lag import Lags, LagState
from bts_collectors.rabbitmq.prometheus.source import PrometheusSource, QueueFilter
from bts_collectors.rabbitmq.source_auto import AutoSource
from bts_exporter import Collector, Match, Metric, NameFilter, Scrape, TargetError, TLSConfig, Url

if TYPE_CHECKING:
    from bts_collectors.rabbitmq.amqp.canary import Canary


class MetricSource(Protocol):
    """A source of metrics that is used at each scrape."""

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics; TargetError with all failures."""

    def close(self) -> None:
        """Close the connections and interrupt a running collection; called from another thread."""


class RabbitMQ(Collector):
    """A RabbitMQ cluster, its nodes, queues, streams and exchanges."""

    Config = RabbitMQConfig
    State = LagState
    config: RabbitMQConfig

    overview_metrics = overview.METRICS
    health_metrics = health.METRICS
    node_metrics = nodes.METRICS
    queue_metrics = queues.METRICS
    stream_metrics = streams.METRICS
    exchange_metrics = exchanges.METRICS
    backlog_metrics = backlog.METRICS
    amqp_metrics = amqp.METRICS
    kbudde_metrics = kbudde.METRICS

    def __init__(self, config: RabbitMQConfig, clock: Callable[[], float] = time) -> None:
        """Keep the settings; the first collection connects. `clock` returns Unix time."""
        super().__init__(config)
        self.open_ended = config.source == "prometheus" or config.native is not None
        self._clock = clock
        #: The lags of each possible source of queues, the preferred one first.
        self._lags: list[Lags] = []
        self._sources: list[MetricSource] = [self._source()]
        if config.native is not None:
            self._sources.append(
                PrometheusSource(connect(EXPORTER, config.native, tls=config.tls), clock)
            )
        self._canary = None if config.canary is None else _canary(config.canary, config.tls)
        if self._canary is not None:
            self._sources.append(self._canary)

    def start(self) -> None:
        """Start the canary, if there is one."""
        if self._canary is not None:
            self._canary.start()

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of each source; TargetError with all failures and the reason of the first."""
        failures = Failures()
        for source in self._sources:
            try:
                source.collect(scrape)
            except TargetError as error:
                failures.add(error)
        failures.raise_all()

    def matches(self, samples: Mapping[Metric, Mapping[tuple[str, ...], float]]) -> Iterator[Match]:
        """Yield how many virtual hosts and queues the include patterns select."""
        config = self.config
        found = {
            tuple(key[metric.labels.index(name)] for name in ("vhost", "queue"))
            for metric, series in samples.items()
            if {"vhost", "queue"} <= {*metric.labels} and not metric.compound
            for key in series
        }
        if config.vhosts_include is not None:
            vhosts = len({vhost for vhost, _ in found})
            yield Match("vhosts_include", config.vhosts_include.pattern, vhosts, "virtual hosts")
        if config.queues_include is not None:
            yield Match("queues_include", config.queues_include.pattern, len(found), "queues")

    def save_state(self) -> tuple[str, LagState] | None:
        """Return the histories of the queues and the cluster that they are of; None while it is unknown."""
        known = next((lags for lags in self._lags if lags.identity), None)
        return None if known is None else (known.identity, known.save())

    def stop(self) -> None:
        """Close all connections and interrupt a running collection; called from another thread."""
        for source in self._sources:
            source.close()

    def _source(self) -> MetricSource:
        config = self.config
        if config.over_amqp:
            # pika takes 4 MB: it is loaded only if it is used.
            from bts_collectors.rabbitmq.amqp.source import AmqpSource  # noqa: PLC0415

            amqp_source = AmqpSource(
                config.url, config.password, config.tls, config.declare, self._clock
            )
            self._keep(amqp_source.lags)
            return amqp_source
        vhosts = NameFilter(config.vhosts_include, config.vhosts_exclude)
        names = NameFilter(config.queues_include, config.queues_exclude)

        def is_selected(queue: Queue) -> bool:
            return vhosts(queue.vhost) and is_selected_name(names, queue.name)

        if config.source == "prometheus":
            return self._prometheus(config.url, is_selected)
        client = connect(MANAGEMENT, config.url, config.password, config.tls)
        own_node = config.scope == "node"
        kind = KbuddeSource if config.compat == "kbudde" else ManagementSource
        lister = QueueLister(vhosts, names, config.max_detailed_queues)
        management = kind(client, self._clock, lister, own_node=own_node)
        self._keep(management.lags)
        if config.source == "management" or config.compat:
            return management
        return AutoSource(management, self._prometheus(_exporter_url(config.url), is_selected))

    def _prometheus(self, url: Url, is_selected: QueueFilter) -> PrometheusSource:
        client = connect(EXPORTER, url, self.config.password, self.config.tls)
        source = PrometheusSource(client, self._clock, is_selected)
        self._keep(source.lags)
        return source

    def _keep(self, lags: Lags) -> None:
        """Keep the history of lags across restarts."""
        lags.restore = self.restore
        self._lags.append(lags)


def _canary(settings: CanarySettings, tls: TLSConfig) -> Canary:
    # pika, as above.
    from bts_collectors.rabbitmq.amqp.canary import Canary  # noqa: PLC0415
    from bts_collectors.rabbitmq.amqp.probe import Prober  # noqa: PLC0415

    prober = Prober(settings.url, settings.password, tls, settings.timeout)
    return Canary(prober, settings.queue_types, settings.interval, settings.timeout)


def _exporter_url(url: Url) -> Url:
    """Return the likely address of RabbitMQ's own exporter, for the address of a management API."""
    return replace(url, port=EXPORTER.port) if url.port == MANAGEMENT.port else url


COLLECTOR = RabbitMQ
