"""RabbitMQ over its management API, the only place that knows a whole cluster and every version has.

Metrics are named as RabbitMQ's own exporter (rabbitmq_prometheus of 4.x) names them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import time

from bts_collectors.rabbitmq import nodes, overview, queues, shapes, vocabulary
from bts_collectors.rabbitmq.answers import check_passes, content
from bts_collectors.rabbitmq.client import Client
from bts_collectors.rabbitmq.rounds import Round
from bts_exporter import Collector, CollectorConfig, Scrape, Secret, Url, gauge

#: The part of the time left after which a target that does not answer is reported.
PATIENCE = 0.95
#: The part of the time left that a question may take which is not the one that matters most.
SHARE = 0.5


class RabbitMQ(Collector):
    """A RabbitMQ cluster: the whole, its nodes and its queues."""

    class Config(CollectorConfig, frozen=True):
        """Where the management API is, and as whom to read it."""

        url: Url = Url.from_setting("http://guest:guest@127.0.0.1:15672")
        password: Secret | None = None

        def __post_init__(self) -> None:
            """Refuse what is no address of a management API; ValueError says so."""
            if self.url.scheme not in {"http", "https"}:
                msg = (
                    "url: the management API is read, http://host:15672 or https://...,"
                    f" not {self.url.scheme}://"
                )
                raise ValueError(msg)

    config: Config

    up = gauge("rabbitmq_up", "Whether the management API answers (/api/overview).")
    health = gauge(
        "rabbitmq_health_check_ok",
        "Whether the health check passes (/api/health/checks/{check}).",
        ("check",),
    )
    overview_metrics = overview.METRICS
    node_metrics = nodes.METRICS
    queue_metrics = queues.METRICS
    vocabulary_metrics = vocabulary.METRICS

    def __init__(self, config: Config, clock: Callable[[], float] = time) -> None:
        """Keep the settings; the first collection connects. `clock` gives Unix time."""
        super().__init__(config)
        self._clock = clock
        self._client = Client(config.url, config.password)

    def collect(self, scrape: Scrape) -> None:
        """Ask for the whole, its health, its nodes and its queues; TargetError names what failed."""
        asked = Round(self._client, PATIENCE * scrape.remaining())
        whole = asked.ask("/api/overview", partial(content, decoder=shapes.OVERVIEW))
        scrape.emit(self.up, whole is not None)
        if whole is not None:
            overview.emit_overview(scrape, whole)
        elif asked.failures[0].reason != "protocol":
            asked.end()  # nobody there, or nobody who would answer the rest
        self._collect_health(scrape, asked)
        self._collect_nodes(scrape, asked)
        self._collect_queues(scrape, asked, whole)
        asked.end()

    def stop(self) -> None:
        """Close the connection, and break off a collection under way."""
        self._client.close()

    def _collect_health(self, scrape: Scrape, asked: Round) -> None:
        # At once where /api/nodes is seconds late.
        passes = asked.ask("/api/health/checks/alarms", check_passes, SHARE)
        if passes is not None:
            scrape.emit(self.health, passes, "alarms")

    def _collect_nodes(self, scrape: Scrape, asked: Round) -> None:
        found = asked.ask("/api/nodes", partial(content, decoder=shapes.NODES), SHARE)
        nodes.emit_nodes(scrape, found or ())

    def _collect_queues(self, scrape: Scrape, asked: Round, whole: shapes.Overview | None) -> None:
        path = queues.queues_path(whole)
        found = asked.ask(path, partial(content, decoder=shapes.QUEUES))
        if found is None:
            return
        now = self._clock()
        queues.emit_queues(scrape, found, now)
        vocabulary.emit_vocabulary(scrape, found, now)
        if whole is not None:
            queues.emit_permission_gap(scrape, whole, found)
        self._collect_consumers(scrape, asked, found)

    def _collect_consumers(
        self, scrape: Scrape, asked: Round, found: Sequence[shapes.Queue]
    ) -> None:
        counts = None
        if queues.want_consumers(found):
            read = partial(content, decoder=shapes.CONSUMERS)
            consumers = asked.ask(queues.consumers_path(), read)
            counts = None if consumers is None else queues.count_auto_ack(consumers)
        queues.emit_auto_ack(scrape, found, counts)


COLLECTOR = RabbitMQ
