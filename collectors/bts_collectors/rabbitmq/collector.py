"""RabbitMQ: a whole cluster from its management API, or what its other interfaces tell.

Metrics are named as RabbitMQ's own exporter (rabbitmq_prometheus of 4.x) names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING, Protocol

from bts_collectors.rabbitmq.api.client import EXPORTER, MANAGEMENT, connect
from bts_collectors.rabbitmq.api.models import Queue
from bts_collectors.rabbitmq.compat import kbudde
from bts_collectors.rabbitmq.compat.kbudde import Kbudde
from bts_collectors.rabbitmq.config import CanarySettings, RabbitMQConfig
from bts_collectors.rabbitmq.failures import Failures
from bts_collectors.rabbitmq.management.listing import Listing, Selection
from bts_collectors.rabbitmq.management.source import Management
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
from bts_collectors.rabbitmq.prometheus import source as native
from bts_collectors.rabbitmq.prometheus.source import Native
from bts_collectors.rabbitmq.source_auto import Auto
from bts_exporter import Collector, Match, Metric, Scrape, TargetError, TLSConfig, Url

if TYPE_CHECKING:
    from bts_collectors.rabbitmq.amqp.canary import Canary


class Part(Protocol):
    """Something that is asked at each scrape."""

    def collect(self, scrape: Scrape) -> None:
        """Emit what it tells; TargetError names what failed."""

    def close(self) -> None:
        """Close its connections, from another thread, and break off a collection under way."""


class RabbitMQ(Collector):
    """A RabbitMQ cluster: the whole, its nodes and its queues."""

    Config = RabbitMQConfig
    config: RabbitMQConfig

    overview_metrics = overview.METRICS
    health_metrics = health.METRICS
    node_metrics = nodes.METRICS
    queue_metrics = queues.METRICS
    stream_metrics = streams.METRICS
    exchange_metrics = exchanges.METRICS
    vocabulary_metrics = backlog.METRICS
    amqp_metrics = amqp.METRICS
    kbudde_metrics = kbudde.METRICS

    def __init__(self, config: RabbitMQConfig, clock: Callable[[], float] = time) -> None:
        """Keep the settings; the first collection connects. `clock` gives Unix time."""
        super().__init__(config)
        self.open_ended = config.source == "prometheus" or config.native is not None
        self._clock = clock
        self._parts: list[Part] = [self._source()]
        if config.native is not None:
            self._parts.append(Native(connect(EXPORTER, config.native, tls=config.tls), clock))
        self._canary = None if config.canary is None else _canary(config.canary, config.tls)
        if self._canary is not None:
            self._parts.append(self._canary)

    def start(self) -> None:
        """Begin to send messages where that is asked for."""
        if self._canary is not None:
            self._canary.start()

    def collect(self, scrape: Scrape) -> None:
        """Emit what each part tells; TargetError names all that failed, with the first's reason."""
        failures = Failures()
        for part in self._parts:
            try:
                part.collect(scrape)
            except TargetError as error:
                failures.add(error)
        failures.raise_all()

    def matches(self, samples: Mapping[Metric, Mapping[tuple[str, ...], float]]) -> Iterator[Match]:
        """Yield how many virtual hosts and queues the patterns let through."""
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

    def stop(self) -> None:
        """Close all connections, and break off a collection under way."""
        for part in self._parts:
            part.close()

    def _source(self) -> Part:
        config = self.config
        if config.over_amqp:
            # A client library of 4 MB, for those who ask for it.
            from bts_collectors.rabbitmq.amqp.source import Declares  # noqa: PLC0415

            return Declares(config.url, config.password, config.tls, config.declare, self._clock)
        vhosts = Selection(config.vhosts_include, config.vhosts_exclude)
        names = Selection(config.queues_include, config.queues_exclude)

        def wanted(queue: Queue) -> bool:
            return vhosts(queue.vhost) and names(queue.name)

        if config.source == "prometheus":
            return self._native(config.url, wanted)
        client = connect(MANAGEMENT, config.url, config.password, config.tls)
        own_node = config.scope == "node"
        kind = Kbudde if config.compat == "kbudde" else Management
        listing = Listing(vhosts, names, config.max_detailed_queues)
        management = kind(client, self._clock, listing, own_node=own_node)
        if config.source == "management" or config.compat:
            return management
        return Auto(management, self._native(_beside(config.url), wanted))

    def _native(self, url: Url, wanted: native.Wanted) -> Native:
        client = connect(EXPORTER, url, self.config.password, self.config.tls)
        return Native(client, self._clock, wanted)


def _canary(settings: CanarySettings, tls: TLSConfig) -> Canary:
    # As above.
    from bts_collectors.rabbitmq.amqp.canary import Canary  # noqa: PLC0415
    from bts_collectors.rabbitmq.amqp.probe import Prober  # noqa: PLC0415

    prober = Prober(settings.url, settings.password, tls, settings.timeout)
    return Canary(prober, settings.queue_types, settings.interval, settings.timeout)


def _beside(url: Url) -> Url:
    """Return where RabbitMQ's own exporter is likely to be if this is no management API."""
    return replace(url, port=EXPORTER.port) if url.port == MANAGEMENT.port else url


COLLECTOR = RabbitMQ
