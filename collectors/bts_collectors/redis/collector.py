"""One Redis server, from its settings to its samples; the parts have files of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from time import monotonic, time

from bts_collectors.redis.client import address
from bts_collectors.redis.client.batching import Ask, RequestBatches, run
from bts_collectors.redis.client.command_support import SUPPORTED
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import UP, ScrapeContext
from bts_collectors.redis.client.errors import bare
from bts_collectors.redis.client.sentinel import SentinelSettings
from bts_collectors.redis.client.topology import Topology
from bts_collectors.redis.keyspace import keys
from bts_collectors.redis.keyspace.scanner import Discovery, Names
from bts_collectors.redis.queues import collector as queues
from bts_collectors.redis.queues.config import QueueSettings
from bts_collectors.redis.server import collector as server
from bts_collectors.redis.streams import collector as streams
from bts_exporter import (
    Collector,
    CollectorConfig,
    Duration,
    Match,
    Scrape,
    Secret,
    TargetError,
    TLSConfig,
    Url,
    backlog,
    counter,
    gauge,
)

#: Part of the time left that stays unused, so that a dead server is reported before the scrape ends.
_RESERVE = 0.05
#: Seconds, and part of the time left, for finding names within the first scrape.
_FIRST_WALK = 0.5
_FIRST_WALK_PART = 0.25


_SENTINEL = (
    "Sentinel is a key of its own: sentinel: {master: NAME, addresses: [redis://HOST:26379]}"
)
#: Where keys belong that are not here.
_DATABASE = "the number of the database is the path of url: redis://HOST:6379/0"
_ADVICE = {
    "db": _DATABASE,
    "database": _DATABASE,
    "master": _SENTINEL,
    "master_name": _SENTINEL,
    "sentinels": _SENTINEL,
    "check-keys": "it is called keys",
    "check-streams": "it is called streams",
    "check_keys": "it is called keys",
    "check_streams": "it is called streams",
    "stream": "it is called streams, and is a list",
}


class RedisCollector(Collector):
    """A Redis server: INFO, streams with their consumer groups, sizes of keys."""

    class Config(CollectorConfig, frozen=True):
        """Where the server is and what of its contents to look at."""

        #: redis://, rediss:// (TLS) or unix://; user and number of the database are part of it.
        url: Url = Url("redis", "127.0.0.1", 6379)
        password: Secret | None = None
        tls: TLSConfig = TLSConfig()
        #: Whom to ask where the server is; `url` then tells the scheme, the user and the database.
        sentinel: SentinelSettings | None = None
        #: Whether to look for keys on all primaries of the cluster that the server is part of.
        cluster: bool = False
        #: Whether to count the server's clients by name, user and library.
        clients: bool = False
        #: Whether to tell the distribution of every command's duration, beside its percentiles.
        latency_histograms: bool = False
        #: Streams by name or glob pattern.
        streams: tuple[str, ...] = ()
        #: Whether to tell pending entries and idle time of every single consumer of their groups.
        stream_consumers: bool = False
        #: After how long without a word a consumer that holds pending entries is stale.
        stream_stale_after: Duration = Duration(300)
        #: Keys by name or glob pattern, of which to tell the size.
        keys: tuple[str, ...] = ()
        #: Whether to tell the memory that each of `keys` takes, and the number that a string holds.
        key_memory: bool = False
        key_values: bool = False
        #: Queues of celery, rq, sidekiq, bullmq, dramatiq, arq, huey, and keys that are queues.
        queues: QueueSettings = QueueSettings()

        advice = _ADVICE

        def __post_init__(self) -> None:
            """Check what the types cannot say."""
            if "sentinel" in self.url.scheme:
                msg = f"url: {_SENTINEL}"
                raise ValueError(msg)
            if "cluster" in self.url.scheme:
                msg = (
                    "url: name one node of the cluster as redis://HOST:PORT, and set cluster: true"
                )
                raise ValueError(msg)
            try:
                address.check(self.url)
            except ValueError as error:
                msg = f"url: {error}"
                raise ValueError(msg) from None
            if self.cluster and self.sentinel is not None:
                msg = "cluster and sentinel exclude each other"
                raise ValueError(msg)
            sentinels = self.sentinel.addresses if self.sentinel is not None else ()
            schemes = {url.scheme for url in (self.url, *sentinels)}
            if self.tls != TLSConfig() and "rediss" not in schemes:
                # Nobody means to send a password in the clear who says whom to trust.
                msg = f"tls: only rediss:// speaks TLS, and url is {self.url.scheme}://"
                raise ValueError(msg)

    config: Config
    #: Of 10,000 streams with four groups each there are 920,000.
    default_max_series = 1_000_000

    up = UP
    last_error = gauge(
        "redis_exporter_last_scrape_error",
        "1 with the reason as err if the last collection lost something, else 0.",
        ("err",),
    )
    scrapes = counter("redis_exporter_scrapes_total", "Collections from this server.")
    duration = gauge(
        "redis_exporter_last_scrape_duration_seconds", "How long this collection took."
    )
    names_known = gauge(
        "redis_exporter_discovered_names",
        "Names that the patterns of a setting matched, and those it spells.",
        ("setting",),
    )
    names_truncated = gauge(
        "redis_exporter_discovery_truncated",
        "1 if names may be missing: too many, or the key space is not walked through yet.",
        ("setting",),
    )
    node_up = gauge(
        "redis_cluster_node_up",
        "Whether a primary of CLUSTER SLOTS, host:port, could be asked for its keys.",
        ("node",),
    )
    from_server = server.METRICS
    from_streams = streams.METRICS
    from_keys = keys.METRICS
    from_queues = queues.METRICS
    vocabulary = backlog.VOCABULARY

    def __init__(self, config: Config) -> None:
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
        self._topology = Topology(
            config.url, config.password, config.tls, config.sentinel, clustered=config.cluster
        )
        self._discovery = Discovery(list(self._names.values()), self._topology.places)
        self._db = f"db{address.database(config.url)}"
        self._count = 0
        self._collecting = threading.Lock()

    def matches(self, samples: object) -> Iterator[Match]:  # noqa: ARG002  # names without samples count
        """Yield how many names each pattern matched."""
        for setting, names in self._names.items():
            for pattern, found in names.counts().items():
                yield Match(setting, pattern, found, complete=not names.truncated)

    def stop(self) -> None:
        """Close the connections; a collection under way ends with an error."""
        self._topology.abort()
        self._discovery.stop()
        with self._collecting:
            self._topology.close()

    def collect(self, scrape: Scrape) -> None:
        """Emit all there is; TargetError for a dead server, and at the end for what was refused."""
        began = monotonic()
        self._count += 1
        context = ScrapeContext(
            self._topology.url, scrape, self._db, clustered=self._topology.clustered
        )
        self._begin(context)
        try:
            with self._collecting:
                self._read(context, began + scrape.remaining() * (1 - _RESERVE))
        except TargetError as error:
            self._discovery.error = None  # of the same cause, and over when this one is
            self._report(context, began, error)
            raise
        loss = context.losses[0] if context.losses else self._discovery.error
        self._report(context, began, loss)
        self._discovery.refresh()
        if loss is not None:
            raise bare(loss)

    def _begin(self, context: ScrapeContext) -> None:
        """Emit first what no limit may drop, and what is right if this collection is given up."""
        context.set_up(up=False)
        context.scrape.emit(self.last_error, 1, "timeout")
        context.scrape.emit(self.scrapes, self._count)

    def _read(self, context: ScrapeContext, deadline: float) -> None:
        def ask(commands: Sequence[Command], ahead: Sequence[Command]) -> list[Reply]:
            return self._topology.ask(commands, deadline, ahead)

        self._topology.begin(deadline)
        context.url = self._topology.url
        parts = [self._read_server(context)]
        if not self._server.is_known:
            # How to read the contents depends on what the server is.
            run(parts, ask)
            parts.clear()
            left = deadline - monotonic()
            self._discovery.first(min(_FIRST_WALK, left * _FIRST_WALK_PART))
        if self._server.is_sentinel:
            self._read_sentinel(context, parts, ask)
            return
        streams, more_streams = self._streams.read(context)
        parts += [streams, self._keys.read(context), self._queues.read(context)]
        run(parts, ask, [more_streams])
        self._emit_names(context)
        context.losses += self._topology.losses()

    def _read_sentinel(
        self, context: ScrapeContext, parts: Sequence[RequestBatches], ask: Ask
    ) -> None:
        """Read a sentinel, which has none of the contents that the settings may ask for."""
        run(parts, ask)
        names_wanted = any(names.patterns or names.all() for names in self._names.values())
        if names_wanted or self._queues.are_wanted:
            cure = "name its master in `sentinel: {master: ..., addresses: [...]}`"
            context.unexpected(f"is a sentinel, which has no keys: {cure}")

    def _read_server(self, context: ScrapeContext) -> RequestBatches:
        try:
            yield from self._server.read(context)
        except TargetError as error:
            if not context.clustered:
                raise
            # The other nodes have keys to tell of. Their clocks are set as ours is.
            context.now = int(time() * 1000)
            context.losses.append(bare(error))

    def _emit_names(self, context: ScrapeContext) -> None:
        """Emit which commands there are, which names were found, and which nodes answer."""
        emit = context.scrape.emit
        self._streams.emit_command_support(context.scrape)
        if not self._discovery.is_supported:
            context.unsupported.add("scan")
        told = context.scrape.samples.get(SUPPORTED, {})
        for command in context.unsupported:
            if (command,) not in told:
                emit(SUPPORTED, 0, command)
        for setting, names in self._names.items():
            if names.patterns:
                emit(self.names_known, len(names.all()), setting)
            overfull = setting in self._queues.truncated
            if names.patterns or overfull:
                emit(self.names_truncated, names.truncated or overfull, setting)
        for node, is_up in self._topology.states():
            emit(self.node_up, is_up, node)

    def _report(self, context: ScrapeContext, began: float, error: TargetError | None) -> None:
        reason = error.reason if error else "limited" if context.scrape.dropped else ""
        if there := context.scrape.samples.get(self.last_error):
            there.clear()
            there[reason,] = int(bool(reason))
        context.scrape.emit(self.duration, monotonic() - began)


COLLECTOR = RedisCollector
