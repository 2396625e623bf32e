"""Collects the metrics of one Redis server; the parts have packages of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from time import monotonic, time

from bts_collectors.redis.client import address
from bts_collectors.redis.client.batching import Execute, RequestBatches, run
from bts_collectors.redis.client.command_support import SUPPORTED
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import UP, ScrapeContext
from bts_collectors.redis.client.credentials import Provider
from bts_collectors.redis.client.options import ConnectionOptions
from bts_collectors.redis.client.topology import Topology
from bts_collectors.redis.config import RedisConfig
from bts_collectors.redis.keyspace import keys
from bts_collectors.redis.keyspace.scanner import KeyspaceScanner, Names
from bts_collectors.redis.queues import collector as queues
from bts_collectors.redis.server import collector as server
from bts_collectors.redis.streams import collector as streams
from bts_exporter import Collector, Match, Scrape, TargetError, backlog, counter, gauge

#: Time for finding names within the first scrape: at most so many seconds, and this part of the rest.
_FIRST_WALK_SECONDS = 0.5
_FIRST_WALK_PART = 0.25


class RedisCollector(Collector):
    """A Redis server: INFO, streams with their consumer groups, sizes of keys, queues."""

    Config = RedisConfig
    State = queues.QueuesState
    config: RedisConfig
    #: 10,000 streams with four groups each have 920,000 series.
    default_max_series = 1_000_000

    up = UP
    last_error = gauge(
        "redis_exporter_last_scrape_error",
        "1 with the reason as err if the last scrape was incomplete, else 0.",
        ("err",),
    )
    scrapes = counter("redis_exporter_scrapes_total", "Scrapes of this server.")
    duration = gauge("redis_exporter_last_scrape_duration_seconds", "Duration of the last scrape.")
    names_known = gauge(
        "redis_exporter_discovered_names",
        "Names that the setting names or that its patterns matched (SCAN).",
        ("setting",),
    )
    names_truncated = gauge(
        "redis_exporter_discovery_truncated",
        "1 if names may be missing, because there are too many or the first SCAN is not finished; else"
        " 0.",
        ("setting",),
    )
    node_up = gauge(
        "redis_cluster_node_up",
        "1 if a primary of CLUSTER SLOTS, host:port, answered in this scrape, else 0.",
        ("node",),
    )
    from_server = server.METRICS
    from_streams = streams.METRICS
    from_keys = keys.METRICS
    from_queues = queues.METRICS
    from_backlog = backlog.VOCABULARY

    def __init__(self, config: RedisConfig) -> None:
        super().__init__(config)
        stream_names = Names(config.streams, type_="stream")
        key_names = Names(config.keys)
        self._queues = queues.Queues(config.queues)
        self._names = {"streams": stream_names, "keys": key_names, **self._queues.names}
        self._server = server.Server(
            clients=config.clients, latency_histograms=config.latency_histograms
        )
        self._streams = streams.Streams(
            stream_names,
            stale_after=config.stream_stale_after,
            each_consumer=config.stream_consumers,
        )
        self._keys = keys.Keys(key_names, memory=config.key_memory, values=config.key_values)
        provider = Provider(config.credentials) if config.credentials is not None else None
        options = ConnectionOptions(config.password, provider, config.tls, config.keepalive)
        self._topology = Topology(config.url, options, config.sentinel, clustered=config.cluster)
        self._scanner = KeyspaceScanner(list(self._names.values()), self._topology.replicas)
        self._db = f"db{address.database(config.url)}"
        self._count = 0
        #: The server of the previous collection; empty while it is unknown.
        self._identity = ""
        self._collecting = threading.Lock()

    def matches(self, samples: object) -> Iterator[Match]:  # noqa: ARG002  # names without samples count
        """Yield how many names each pattern matched."""
        for setting in ("streams", "keys"):
            names = self._names[setting]
            for pattern, count in names.counts().items():
                yield Match(setting, pattern, count, complete=not names.truncated)
        yield from self._queues.matches()

    def save_state(self) -> tuple[str, queues.QueuesState] | None:
        """Return what is known about lists; None while the server is unknown."""
        return (self._identity, self._queues.save()) if self._identity else None

    def _identify(self, context: ScrapeContext) -> None:
        """Restore what is known about the lists of this server."""
        if context.run_id and context.run_id != self._identity and self._queues.are_configured:
            self._identity = context.run_id
            if stored := self.restore(context.run_id):
                self._queues.restore(stored)

    def stop(self) -> None:
        """Close the connections. A collection in another thread ends with an error."""
        self._topology.abort()
        self._scanner.stop()
        with self._collecting:
            self._topology.close()

    def collect(self, scrape: Scrape) -> None:
        """Emit all metrics; TargetError for a dead server.

        Errors that cost only some metrics are reported to `scrape`.
        """
        began = monotonic()
        self._count += 1
        context = ScrapeContext(
            self._topology.url, scrape, self._db, clustered=self._topology.clustered
        )
        self._begin(context)
        try:
            with self._collecting:
                self._read(context, monotonic() + scrape.remaining())
        except TargetError as error:
            # The same cause stopped the scanner. Its error ends together with this error.
            self._scanner.error = None
            self._emit_result(context, began, error.reason)
            raise
        scan_error = self._scanner.error  # another thread may change it
        if scan_error is not None and not context.reason:
            context.report(scan_error)
        self._emit_result(context, began, context.reason)
        self._scanner.refresh()

    def _begin(self, context: ScrapeContext) -> None:
        """Emit the metrics that no limit may drop, with their values for a scrape that times out."""
        context.set_up(up=False)
        context.scrape.emit(self.last_error, 1, "timeout")
        context.scrape.emit(self.scrapes, self._count)

    def _read(self, context: ScrapeContext, deadline: float) -> None:
        def execute(commands: Sequence[Command], ahead: Sequence[Command]) -> list[Reply]:
            return self._topology.execute(commands, deadline, ahead)

        self._topology.begin(deadline)
        context.url = self._topology.url
        readers = [self._read_server(context)]
        if not self._server.is_known:
            # How to read the contents depends on the kind and version of the server.
            run(readers, execute)
            readers.clear()
            remaining = deadline - monotonic()
            self._scanner.wait_for_first_walk(
                min(_FIRST_WALK_SECONDS, remaining * _FIRST_WALK_PART)
            )
        self._identify(context)
        if self._server.is_sentinel:
            self._read_sentinel(context, readers, execute)
            return
        others: Sequence[RequestBatches] = ()
        if self.config.streams:
            first, *others = self._streams.read(context)
            readers.append(first)
        if self.config.keys:
            readers.append(self._keys.read(context))
        if self._queues.are_configured:
            readers.append(self._queues.read(context))
        run(readers, execute, others)
        self._identify(context)
        self._emit_names(context)
        for error in self._topology.losses():
            context.report(error)

    def _read_sentinel(
        self, context: ScrapeContext, readers: Sequence[RequestBatches], execute: Execute
    ) -> None:
        """Read a sentinel, which has no keys."""
        run(readers, execute)
        names_wanted = any(names.patterns or names.all() for names in self._names.values())
        if names_wanted or self._queues.are_configured:
            cure = "name its master in `sentinel: {master: ..., addresses: [...]}`"
            context.unexpected(f"is a sentinel, which has no keys: {cure}")

    def _read_server(self, context: ScrapeContext) -> RequestBatches:
        try:
            yield from self._server.read(context)
        except TargetError as error:
            if not context.clustered:
                raise
            # The other nodes are read nevertheless. Their clocks should agree with ours.
            context.now = int(time() * 1000)
            context.report(error)

    def _emit_names(self, context: ScrapeContext) -> None:
        """Emit which commands are supported, how many names are known, and which nodes answer."""
        emit = context.scrape.emit
        self._streams.emit_command_support(context.scrape)
        self._queues.emit_command_support(context.scrape)
        if not self._scanner.is_supported:
            context.unsupported.add("scan")
        for command in context.unsupported:
            if not context.scrape.has(SUPPORTED, command):
                emit(SUPPORTED, 0, command)
        for setting, names in self._names.items():
            if names.patterns:
                emit(self.names_known, len(names.all()), setting)
            overfull = setting in self._queues.truncated
            if names.patterns or overfull:
                emit(self.names_truncated, names.truncated or overfull, setting)
        for node, is_up in self._topology.states():
            emit(self.node_up, is_up, node)

    def _emit_result(self, context: ScrapeContext, began: float, reason: str) -> None:
        if not reason and context.scrape.dropped:
            reason = "limited"
        context.scrape.discard(self.last_error)
        context.scrape.emit(self.last_error, int(bool(reason)), reason)
        context.scrape.emit(self.duration, monotonic() - began)


COLLECTOR = RedisCollector
