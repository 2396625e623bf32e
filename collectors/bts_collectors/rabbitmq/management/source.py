"""The management API as the source: the only place that knows a whole cluster and every version has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bts_collectors.rabbitmq.api import models
from bts_collectors.rabbitmq.api.models import STREAM, Node, Overview, Queue, depth, owner
from bts_collectors.rabbitmq.api.requests import Round
from bts_collectors.rabbitmq.api.responses import content
from bts_collectors.rabbitmq.management.listing import Listing
from bts_collectors.rabbitmq.management.stream_leaders import Owners
from bts_collectors.rabbitmq.metrics import backlog, exchanges, nodes, overview, queues, streams
from bts_collectors.rabbitmq.metrics.exchanges import Exchange
from bts_collectors.rabbitmq.metrics.health import Alarms, collect_health
from bts_collectors.rabbitmq.metrics.lag import Lags
from bts_exporter import HttpClient, Scrape

#: The part of the time left after which a target that does not answer is reported.
PATIENCE = 0.95
#: The part of the time left that a question may take which is not the one that matters most.
SHARE = 0.5

OVERVIEW_PATH = "/api/overview"


class Management:
    """A cluster, question by question; how its answers are called is for subclasses to change."""

    def __init__(
        self, client: HttpClient, clock: Callable[[], float], listing: Listing, *, own_node: bool
    ) -> None:
        """Ask through `client`; with `own_node`, show the node that answers and no other.

        `clock` gives Unix time.
        """
        self._client = client
        self._clock = clock
        self._own_node = own_node
        self._listing = listing
        self._lags = Lags()
        self._owners = Owners()
        self._streams = streams.Streams()
        #: The overview of the collection under way, empty where there is none.
        self.whole = Overview()
        #: Whether there is one.
        self.is_up = False

    def collect(self, scrape: Scrape) -> None:
        """Ask for the whole, its health, its nodes and its queues; TargetError names what failed."""
        self.go_on(scrape, self.begin(scrape))

    def begin(self, scrape: Scrape) -> Round:
        """Ask for the whole; `is_up` says whether there was an answer."""
        asked = Round(self._client, PATIENCE * scrape.remaining())
        whole = asked.ask(OVERVIEW_PATH, partial(content, decoder=models.OVERVIEW))
        self.is_up = whole is not None
        self.whole = whole or Overview()
        return asked

    def go_on(self, scrape: Scrape, asked: Round) -> None:
        """Ask for the rest and emit all; TargetError names what failed."""
        self.emit_whole(scrape, up=self.is_up)
        if not self.is_up and asked.failures[0].reason != "protocol":
            asked.end()  # nobody there, or nobody who would answer the rest
        self._collect_nodes(scrape, asked)
        self._collect_queues(scrape, asked)
        self._collect_exchanges(scrape, asked)
        asked.end()

    def close(self) -> None:
        """Close the connection, and break off a collection under way."""
        self._client.close()

    def emit_whole(self, scrape: Scrape, *, up: bool) -> None:
        """Emit whether there is an overview, and what it holds."""
        scrape.emit(overview.UP, up)
        if up:
            overview.emit_overview(scrape, self.whole, cluster=not self._own_node)

    def emit_nodes(self, scrape: Scrape, found: Sequence[Node], alarms: Alarms | None) -> None:
        """Emit what is known of each node."""
        nodes.emit_nodes(scrape, found, alarms)

    def emit_builds(self, scrape: Scrape, found: Sequence[Node]) -> None:
        """Emit the versions of the nodes that run."""
        overview.emit_builds(scrape, self.whole, found)

    def emit_queue(self, scrape: Scrape, queue: Queue, now: float) -> None:
        """Emit what is known of a queue; `now` is Unix time."""
        queues.emit_queue(scrape, queue, now)

    def emit_detailed(self, scrape: Scrape, found: Sequence[Queue]) -> None:
        """Emit what has names of its own for alerts of single queues."""
        queues.emit_detailed(scrape, found)

    def emit_exchanges(self, scrape: Scrape, found: Sequence[Exchange]) -> None:
        """Emit what is known of each exchange."""
        exchanges.emit_exchanges(scrape, found)

    def _collect_nodes(self, scrape: Scrape, asked: Round) -> None:
        alarms = collect_health(scrape, asked)
        found = asked.ask("/api/nodes", partial(content, decoder=models.NODES), SHARE)
        own = [node for node in found or () if self._shows(node.name)]
        self.emit_nodes(scrape, own, alarms)
        if self.is_up:
            self.emit_builds(scrape, own)

    def _collect_queues(self, scrape: Scrape, asked: Round) -> None:
        found = self._listing.ask(asked, self.whole)
        if found is None:
            return
        if found.hidden is not None:
            scrape.emit(queues.PERMISSION_GAP, found.hidden)
        if self._own_node:
            self._owners.complete(asked, found.queues)
        shown = [queue for queue in found.queues if self._shows(owner(queue))]
        now = self._clock()
        lags = self._lags.observe(shown, now, found.unlisted)
        queues.emit_quorum(scrape, shown)
        # Of more series than `max_series` allows, those that say most are served: how much waits in
        # each queue and for how long, then the rest of what all brokers have, then details, each
        # time beginning with the deepest queues.
        shown.sort(key=depth, reverse=True)
        backlog.emit_backlogs(scrape, shown, lags)
        self._collect_streams(scrape, asked, shown)
        backlog.emit_flows(scrape, shown, lags)
        for queue in shown:
            self.emit_queue(scrape, queue, now)
            queues.emit_auto_ack(scrape, queue, found.blind)
        self.emit_detailed(scrape, shown)

    def _collect_streams(self, scrape: Scrape, asked: Round, shown: Sequence[Queue]) -> None:
        keys = [(queue.vhost, queue.name) for queue in shown if queue.type == STREAM]
        # Without statistics that question is an error.
        if keys and self.whole.disable_stats is not True:
            consumers = asked.ask(streams.PATH, streams.read_consumers, SHARE)
            if consumers is not None:
                self._streams.emit(scrape, keys, consumers)

    def _collect_exchanges(self, scrape: Scrape, asked: Round) -> None:
        # Exchanges are the cluster's: each node would show the same.
        if not self._own_node and exchanges.want_exchanges(self.whole):
            read = partial(content, decoder=exchanges.EXCHANGES)
            found = asked.ask(exchanges.exchanges_path(), read, SHARE)
            self.emit_exchanges(scrape, [e for e in found or () if self._listing.vhosts(e.vhost)])

    def _shows(self, node: str | None) -> bool:
        """Return whether what is on `node` is to be shown; all of it where the own node is unknown."""
        return not self._own_node or self.whole.node in {None, node}
