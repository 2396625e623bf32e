"""One Redis server, from its settings to its samples; the parts have files of their own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import monotonic, time

from bts_collectors.redis import keys, queues, server, streams
from bts_collectors.redis.connection import Command, Reply, database
from bts_collectors.redis.discovery import Discovery, Names
from bts_collectors.redis.failures import unexpected
from bts_collectors.redis.queuesettings import QueueSettings
from bts_collectors.redis.sentinel import SentinelSettings
from bts_collectors.redis.topology import Topology
from bts_collectors.redis.visit import Rounds, Visit, run
from bts_exporter import (
    Collector,
    CollectorConfig,
    Duration,
    Metric,
    Scrape,
    Secret,
    TargetError,
    TLSConfig,
    Url,
    backlog,
    counter,
    gauge,
)

_SCHEMES = ("redis", "rediss", "unix")
#: Part of the time left that stays unused, so that a dead server is reported before the scrape ends.
_RESERVE = 0.05
#: Seconds, and part of the time left, for finding names within the first scrape.
_FIRST_WALK = 0.5
_FIRST_WALK_PART = 0.25
#: What comes of a reply in which there is a list where a number should be, or the like.
_MISSHAPEN = (AttributeError, LookupError, TypeError, ValueError)


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

        def __post_init__(self) -> None:
            """Check what the types cannot say."""
            if self.url.scheme not in _SCHEMES:
                msg = f"url: expected {', '.join(f'{s}://' for s in _SCHEMES)}, got {self.url.scheme}://"
                raise ValueError(msg)
            try:
                database(self.url)
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

    up = gauge("redis_up", "Whether the server answered INFO.")
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
        self._db = f"db{database(config.url)}"
        self._count = 0
        self._collecting = threading.Lock()

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
        self._begin(scrape)
        try:
            with self._collecting:
                visit = self._visit(scrape, began + scrape.remaining() * (1 - _RESERVE))
        except TargetError as error:
            self._discovery.error = None  # of the same cause, and over when this one is
            self._report(scrape, began, error, up=False)
            raise
        except _MISSHAPEN as error:
            what = f"answers with something else than Redis does ({type(error).__name__}: {error})"
            failure = unexpected(self._topology.url, what)
            self._report(scrape, began, failure, up=self._server.is_known)
            raise failure from error
        loss = visit.losses[0] if visit.losses else self._discovery.error
        self._report(scrape, began, loss, up=visit.up)
        self._discovery.refresh()
        if loss is not None:
            raise loss

    def _visit(self, scrape: Scrape, deadline: float) -> Visit:
        def ask(commands: Sequence[Command], ahead: Sequence[Command]) -> list[Reply]:
            return self._topology.ask(commands, deadline, ahead)

        self._topology.begin(deadline)
        visit = Visit(self._topology.url, scrape, self._db, clustered=self._topology.clustered)
        parts = [self._read_server(visit)]
        if not self._server.is_known:
            # How to read the contents depends on what the server is.
            run(parts, ask)
            parts.clear()
            left = deadline - monotonic()
            self._discovery.first(min(_FIRST_WALK, left * _FIRST_WALK_PART))
        streams, more_streams = self._streams.read(visit)
        parts += [streams, self._keys.read(visit), self._queues.read(visit)]
        run(parts, ask, [more_streams])
        self._streams.emit_refusals(scrape)
        for setting, names in self._names.items():
            if names.patterns:
                scrape.emit(self.names_known, len(names.all()), setting)
            overfull = setting in self._queues.truncated
            if names.patterns or overfull:
                scrape.emit(self.names_truncated, names.truncated or overfull, setting)
        for node, is_up in self._topology.states():
            scrape.emit(self.node_up, is_up, node)
        visit.losses += self._topology.losses()
        return visit

    def _read_server(self, visit: Visit) -> Rounds:
        try:
            yield from self._server.read(visit)
        except TargetError as error:
            if not visit.clustered:
                raise
            # The other nodes have keys to tell of. Their clocks are set as ours is.
            visit.up = False
            visit.now = int(time() * 1000)
            visit.losses.append(error)
        else:
            self._settle(visit.scrape, self.up, 1)

    def _begin(self, scrape: Scrape) -> None:
        """Emit first what must not fall to `max_series`: it is so if this collection does not end."""
        scrape.emit(self.up, 0)
        scrape.emit(self.last_error, 1, "timeout")
        scrape.emit(self.scrapes, self._count)
        scrape.emit(self.duration, scrape.remaining())

    def _report(self, scrape: Scrape, began: float, error: TargetError | None, *, up: bool) -> None:
        reason = error.reason if error else "limited" if scrape.dropped else ""
        self._settle(scrape, self.up, float(up))
        self._settle(scrape, self.last_error, float(bool(reason)), reason)
        self._settle(scrape, self.duration, monotonic() - began)

    @staticmethod
    def _settle(scrape: Scrape, metric: Metric, value: float, *labels: str) -> None:
        """Put the value that is known now in the place of the one that `_begin` emitted."""
        if metric in scrape.samples:
            scrape.samples[metric] = {labels: value}


COLLECTOR = RedisCollector
