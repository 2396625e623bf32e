"""One Redis server, from its settings to its samples; the parts have files of their own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import monotonic

from hiredis import ReplyError

from bts_collectors.redis import info, keys, streams
from bts_collectors.redis.connection import Command, Connection, Reply, database
from bts_collectors.redis.discovery import Discovery, Names
from bts_collectors.redis.failures import refusal, unexpected
from bts_collectors.redis.visit import Visit, run
from bts_exporter import (
    Collector,
    CollectorConfig,
    Scrape,
    Secret,
    TargetError,
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


class RedisCollector(Collector):
    """A Redis server: INFO, streams with their consumer groups, sizes of keys."""

    class Config(CollectorConfig, frozen=True):
        """Where the server is and what of its contents to look at."""

        #: redis://, rediss:// (TLS) or unix://; user and number of the database are part of it.
        url: Url = Url("redis", "127.0.0.1", 6379)
        password: Secret | None = None
        #: Streams by name or glob pattern.
        streams: tuple[str, ...] = ()
        #: Keys by name or glob pattern, of which to tell the size.
        keys: tuple[str, ...] = ()

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

    config: Config

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
    from_info = info.METRICS
    from_streams = streams.METRICS
    from_keys = keys.METRICS
    vocabulary = (
        backlog.BACKLOG,
        backlog.IN_FLIGHT,
        backlog.CONSUMERS,
        backlog.LAG_SECONDS,
        backlog.LAG_METHOD,
        backlog.PUBLISHED,
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        stream_names = Names(config.streams, type_="stream")
        key_names = Names(config.keys)
        self._names = {"streams": stream_names, "keys": key_names}
        self._streams = streams.Streams(stream_names)
        self._keys = keys.Keys(key_names)
        self._connection = Connection(config.url, config.password)
        self._discovery = Discovery(
            (stream_names, key_names), Connection(config.url, config.password)
        )
        self._db = f"db{database(config.url)}"
        self._databases: int | None = None
        self._count = 0
        self._collecting = threading.Lock()

    def stop(self) -> None:
        """Close the connections; a collection under way ends with an error."""
        self._discovery.stop()
        self._connection.abort()
        with self._collecting:
            self._connection.close()

    def collect(self, scrape: Scrape) -> None:
        """Emit all there is; TargetError for a dead server, and at the end for what was refused."""
        began = monotonic()
        self._count += 1
        try:
            with self._collecting:
                losses = self._visit(scrape, began + scrape.remaining() * (1 - _RESERVE))
        except TargetError as error:
            self._discovery.error = None  # of the same cause, and over when this one is
            self._report(scrape, began, error, up=False)
            raise
        loss = losses[0] if losses else self._discovery.error
        self._report(scrape, began, loss, up=True)
        self._discovery.refresh()
        if loss is not None:
            raise loss

    def _visit(self, scrape: Scrape, deadline: float) -> Sequence[TargetError]:
        def ask(commands: Sequence[Command]) -> list[Reply]:
            return self._connection.ask(commands, deadline)

        visit = Visit(self.config.url, scrape, self._db)
        if self._databases is None:
            # Once in a life: it cannot change, and a refusal should not fill the server's log.
            answer = ask([("CONFIG", "GET", "databases")])[0]
            self._databases = int(answer[1]) if isinstance(answer, list) and answer else 0
        self._read_info(visit, ask([("INFO", "everything")])[0])
        left = deadline - monotonic()
        self._discovery.first(ask, min(_FIRST_WALK, left * _FIRST_WALK_PART))
        run([self._streams.read(visit), self._keys.read(visit)], ask)
        for setting, names in self._names.items():
            if names.patterns:
                scrape.emit(self.names_known, len(names.all()), setting)
                scrape.emit(self.names_truncated, names.truncated, setting)
        return visit.losses

    def _read_info(self, visit: Visit, reply: Reply) -> None:
        if isinstance(reply, ReplyError):
            error = refusal(visit.url, "INFO", reply)
            if error.reason != "noperm":
                raise error
            visit.losses.append(error)
            return
        fields = (
            info.parse(reply.decode("utf-8", "backslashreplace")) if type(reply) is bytes else {}
        )
        if "redis_version" not in fields:
            raise unexpected(visit.url, "answers INFO with something else than Redis does")
        visit.version = info.version(fields)
        visit.now = info.server_time(fields)
        info.emit(visit.scrape, fields, self._databases or 0)

    def _report(self, scrape: Scrape, began: float, error: TargetError | None, *, up: bool) -> None:
        scrape.emit(self.up, up)
        scrape.emit(self.last_error, error is not None, error.reason if error else "")
        scrape.emit(self.scrapes, self._count)
        scrape.emit(self.duration, monotonic() - began)


COLLECTOR = RedisCollector
