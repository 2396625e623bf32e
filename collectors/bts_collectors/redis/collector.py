"""One Redis server, from its settings to its samples; the parts have files of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from time import monotonic, time

from bts_collectors.redis.client import address
from bts_collectors.redis.client.command_support import SUPPORTED
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import UP, Ask, Rounds, Visit, run
from bts_collectors.redis.client.credentials import Provider, ProviderSetting
from bts_collectors.redis.client.errors import bare
from bts_collectors.redis.client.keepalive import DEFAULT_KEEPALIVE, Keepalive
from bts_collectors.redis.client.options import ConnectionOptions
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
        #: module:callable that returns a redis.CredentialProvider, in place of user and password.
        credentials: ProviderSetting | None = None
        tls: TLSConfig = TLSConfig()
        #: true, false, or {idle: 30s, interval: 5s, count: 3}.
        keepalive: Keepalive = DEFAULT_KEEPALIVE
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
            if self.credentials is not None and (
                self.password is not None or self.url.username or self.url.password
            ):
                msg = "credentials: the provider gives user and password: remove them from `url` and `password`"
                raise ValueError(msg)
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
        provider = Provider(config.credentials) if config.credentials is not None else None
        options = ConnectionOptions(config.password, provider, config.tls, config.keepalive)
        self._topology = Topology(config.url, options, config.sentinel, clustered=config.cluster)
        self._discovery = Discovery(list(self._names.values()), self._topology.replicas)
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
        visit = Visit(self._topology.url, scrape, self._db, clustered=self._topology.clustered)
        self._begin(visit)
        try:
            with self._collecting:
                self._visit(visit, began + scrape.remaining() * (1 - _RESERVE))
        except TargetError as error:
            self._discovery.error = None  # of the same cause, and over when this one is
            self._report(visit, began, error)
            raise
        losses = visit.losses or ([self._discovery.error] if self._discovery.error else [])
        self._report(visit, began, losses[0] if losses else None)
        self._discovery.refresh()
        for loss in losses[1:]:
            scrape.report(loss)
        if losses:
            raise bare(losses[0])

    def _begin(self, visit: Visit) -> None:
        """Emit first what no limit may drop, and what is right if this collection is given up."""
        visit.set_up(up=False)
        visit.scrape.emit(self.last_error, 1, "timeout")
        visit.scrape.emit(self.scrapes, self._count)

    def _visit(self, visit: Visit, deadline: float) -> None:
        def ask(commands: Sequence[Command], ahead: Sequence[Command]) -> list[Reply]:
            return self._topology.ask(commands, deadline, ahead)

        self._topology.begin(deadline)
        visit.url = self._topology.url
        parts = [self._read_server(visit)]
        if not self._server.is_known:
            # How to read the contents depends on what the server is.
            run(parts, ask)
            parts.clear()
            left = deadline - monotonic()
            self._discovery.first(min(_FIRST_WALK, left * _FIRST_WALK_PART))
        if self._server.is_sentinel:
            self._read_sentinel(visit, parts, ask)
            return
        streams, more_streams = self._streams.read(visit)
        parts += [streams, self._keys.read(visit), self._queues.read(visit)]
        run(parts, ask, [more_streams])
        self._emit_names(visit)
        visit.losses += self._topology.losses()

    def _read_sentinel(self, visit: Visit, parts: Sequence[Rounds], ask: Ask) -> None:
        """Read a sentinel, which has none of the contents that the settings may ask for."""
        run(parts, ask)
        names_wanted = any(names.patterns or names.all() for names in self._names.values())
        if names_wanted or self._queues.are_wanted:
            cure = "name its master in `sentinel: {master: ..., addresses: [...]}`"
            visit.unexpected(f"is a sentinel, which has no keys: {cure}")

    def _read_server(self, visit: Visit) -> Rounds:
        try:
            yield from self._server.read(visit)
        except TargetError as error:
            if not visit.clustered:
                raise
            # The other nodes have keys to tell of. Their clocks are set as ours is.
            visit.now = int(time() * 1000)
            visit.losses.append(bare(error))

    def _emit_names(self, visit: Visit) -> None:
        """Emit which commands there are, which names were found, and which nodes answer."""
        emit = visit.scrape.emit
        self._streams.emit_refusals(visit.scrape)
        if not self._discovery.is_supported:
            visit.unsupported.add("scan")
        for command in visit.unsupported:
            if not visit.scrape.has(SUPPORTED, command):
                emit(SUPPORTED, 0, command)
        for setting, names in self._names.items():
            if names.patterns:
                emit(self.names_known, len(names.all()), setting)
            overfull = setting in self._queues.truncated
            if names.patterns or overfull:
                emit(self.names_truncated, names.truncated or overfull, setting)
        for node, is_up in self._topology.states():
            emit(self.node_up, is_up, node)

    def _report(self, visit: Visit, began: float, error: TargetError | None) -> None:
        reason = error.reason if error else "limited" if visit.scrape.dropped else ""
        visit.scrape.discard(self.last_error)
        visit.scrape.emit(self.last_error, int(bool(reason)), reason)
        visit.scrape.emit(self.duration, monotonic() - began)


COLLECTOR = RedisCollector
