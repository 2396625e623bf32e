"""The management API as the source: it describes the whole cluster, in every version of RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bts_collectors.rabbitmq.api import models
from bts_collectors.rabbitmq.api.models import STREAM, Node, Overview, Queue, depth, node_of
from bts_collectors.rabbitmq.api.requests import RequestBatch
from bts_collectors.rabbitmq.management.listing import QueueLister
from bts_collectors.rabbitmq.management.stream_leaders import StreamLeaders
from bts_collectors.rabbitmq.metrics import backlog, exchanges, nodes, overview, queues, streams
from bts_collectors.rabbitmq.metrics.exchanges import Exchange
from bts_collectors.rabbitmq.metrics.health import Alarms, collect_health
from bts_collectors.rabbitmq.metrics.lag import Lags
from bts_exporter import HttpClient, Scrape

#: Share of the time left for a request that is not the most important one.
MAX_SHARE = 0.5

OVERVIEW_PATH = "/api/overview"


class ManagementSource:
    """A cluster, request by request; subclasses choose the names of the metrics."""

    def __init__(
        self,
        client: HttpClient,
        clock: Callable[[], float],
        lister: QueueLister,
        *,
        own_node: bool,
    ) -> None:
        """Send requests through `client`; with `own_node`, emit only the node that answers.

        `clock` returns Unix time.
        """
        self._client = client
        self._clock = clock
        self._own_node = own_node
        self._lister = lister
        self.lags = Lags()
        self._stream_leaders = StreamLeaders()
        self._streams = streams.StreamLags()
        #: The overview of the current collection; empty if the request failed.
        self.overview = Overview()
        #: Whether the request for the overview succeeded.
        self.is_up = False

    def collect(self, scrape: Scrape) -> None:
        """Emit overview, health, nodes, queues and exchanges; TargetError with all failures."""
        self.collect_rest(scrape, self.request_overview(scrape))

    def request_overview(self, scrape: Scrape) -> RequestBatch:
        """Request the overview and set `is_up`."""
        batch = RequestBatch(self._client, scrape.remaining())
        found = batch.get(OVERVIEW_PATH, models.OVERVIEW)
        self.is_up = found is not None
        self.overview = found or Overview()
        return batch

    def collect_rest(self, scrape: Scrape, batch: RequestBatch) -> None:
        """Request everything else and emit all metrics; TargetError with all failures."""
        self.emit_overview(scrape, up=self.is_up)
        if not self.is_up and batch.failures[0].reason != "protocol":
            batch.failures.raise_all()  # other requests would fail in the same way
        self._collect_nodes(scrape, batch)
        self._collect_queues(scrape, batch)
        self._collect_exchanges(scrape, batch)
        batch.failures.raise_all()

    def close(self) -> None:
        """Close the connection and interrupt a running collection; called from another thread."""
        self._client.close()

    def emit_overview(self, scrape: Scrape, *, up: bool) -> None:
        """Emit whether the API answers, and the metrics of the overview."""
        scrape.emit(overview.UP, up)
        if up:
            overview.emit_overview(scrape, self.overview, cluster=not self._own_node)

    def emit_nodes(self, scrape: Scrape, found: Sequence[Node], alarms: Alarms | None) -> None:
        """Emit the metrics of each node; `alarms` is None if they are unknown."""
        nodes.emit_nodes(scrape, found, alarms, self.overview.node)

    def emit_links(self, scrape: Scrape, found: Sequence[Node], members: Sequence[Node]) -> None:
        """Emit the connections of each node to the other members of the cluster."""
        nodes.emit_links(scrape, found, members, self.overview.cluster_name or "")

    def emit_builds(self, scrape: Scrape, found: Sequence[Node]) -> None:
        """Emit the versions of the running nodes."""
        overview.emit_builds(scrape, self.overview, found)

    def emit_queue(self, scrape: Scrape, queue: Queue, now: float) -> None:
        """Emit the metrics of a queue; `now` is Unix time."""
        queues.emit_queue(scrape, queue, now)

    def emit_detailed(self, scrape: Scrape, found: Sequence[Queue]) -> None:
        """Emit the metrics named rabbitmq_detailed_*."""
        queues.emit_detailed(scrape, found)

    def emit_exchanges(self, scrape: Scrape, found: Sequence[Exchange]) -> None:
        """Emit the metrics of each exchange."""
        exchanges.emit_exchanges(scrape, found)

    def _collect_nodes(self, scrape: Scrape, batch: RequestBatch) -> None:
        alarms = collect_health(scrape, batch)
        found = batch.get("/api/nodes", models.NODES, MAX_SHARE)
        members = found or ()
        own = [node for node in members if self._shows(node.name)]
        self.emit_nodes(scrape, own, alarms)
        self.emit_links(scrape, own, members)
        if self.is_up:
            self.emit_builds(scrape, own)

    def _collect_queues(self, scrape: Scrape, batch: RequestBatch) -> None:
        listing = self._lister.request(batch, self.overview)
        if listing is None:
            return
        if listing.hidden is not None:
            scrape.emit(queues.PERMISSION_GAP, listing.hidden)
        if self._own_node:
            self._stream_leaders.complete(batch, listing.queues)
        shown = [queue for queue in listing.queues if self._shows(node_of(queue))]
        now = self._clock()
        if self.overview.cluster_name:
            self.lags.identify(f"cluster {self.overview.cluster_name} (management API)")
        lags = self.lags.observe(shown, now, listing.unlisted)
        queues.emit_quorum(scrape, shown)
        # `max_series` drops the last samples. Depth and lag of all queues come first, then the
        # other messaging_* metrics, then details, each time with the deepest queues first.
        shown.sort(key=depth, reverse=True)
        backlog.emit_backlogs(scrape, shown, lags)
        self._collect_streams(scrape, batch, shown)
        backlog.emit_flows(scrape, shown, lags)
        for queue in shown:
            self.emit_queue(scrape, queue, now)
            queues.emit_auto_ack(scrape, queue, listing.auto_ack)
        self.emit_detailed(scrape, shown)

    def _collect_streams(self, scrape: Scrape, batch: RequestBatch, shown: Sequence[Queue]) -> None:
        keys = [(queue.vhost, queue.name) for queue in shown if queue.type == STREAM]
        # Without statistics, this request fails.
        if keys and self.overview.disable_stats is not True:
            consumers = batch.get_with(streams.PATH, streams.read_consumers, MAX_SHARE)
            if consumers is not None:
                self._streams.emit(scrape, keys, consumers)

    def _collect_exchanges(self, scrape: Scrape, batch: RequestBatch) -> None:
        # Exchanges belong to the cluster: each node would report the same ones.
        if not self._own_node and exchanges.want_exchanges(self.overview):
            found = batch.get(exchanges.exchanges_path(), exchanges.EXCHANGES, MAX_SHARE)
            self.emit_exchanges(scrape, [e for e in found or () if self._lister.vhosts(e.vhost)])

    def _shows(self, node: str | None) -> bool:
        """Return whether objects on `node` are emitted; all are if the node that answers is unknown."""
        return not self._own_node or self.overview.node in {None, node}
