"""The settings of the collector."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from bts_collectors.redis.client import address
from bts_collectors.redis.client.credentials import ProviderSetting
from bts_collectors.redis.client.keepalive import DEFAULT_KEEPALIVE, Keepalive
from bts_collectors.redis.client.sentinel import SentinelSettings
from bts_collectors.redis.queues.config import QueueSettings
from bts_exporter import CollectorConfig, Duration, Secret, TLSConfig, Url

_SENTINEL = (
    "Sentinel is a key of its own: sentinel: {master: NAME, addresses: [redis://HOST:26379]}"
)
_DATABASE = "the number of the database is the path of url: redis://HOST:6379/0"
#: Keys that users of other programs try, and the setting to use instead.
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


class RedisConfig(CollectorConfig, frozen=True):
    """The server, and which of its contents to read."""

    #: redis://, rediss:// (TLS) or unix://, with the user name and the number of the database.
    url: Annotated[Url, Meta(extra_json_schema=Url.schema_of_schemes(*address.SCHEMES))] = Url(
        "redis", "127.0.0.1", 6379
    )
    #: Password of the user in `url`, or of the default user.
    password: Secret | None = None
    #: module:callable that returns a redis.CredentialProvider, in place of user and password.
    credentials: ProviderSetting | None = None
    tls: TLSConfig = TLSConfig()
    #: true, false, or {idle: 30s, interval: 5s, count: 3}.
    keepalive: Keepalive = DEFAULT_KEEPALIVE
    #: The sentinels that know the address of the server. `url` gives scheme, user and database then.
    sentinel: SentinelSettings | None = None
    #: Whether to read the keys of all primaries of the cluster that the server is part of.
    cluster: bool = False
    #: Whether to count the server's clients by name, user and library.
    clients: bool = False
    #: Whether to emit a histogram of the duration of every command, in addition to its percentiles.
    latency_histograms: bool = False
    #: Streams by name or glob pattern.
    streams: tuple[str, ...] = ()
    #: Whether to emit pending entries and idle time of every consumer of the streams' groups.
    stream_consumers: bool = False
    #: Idle time after which a consumer with pending entries is stale.
    stream_stale_after: Duration = Duration(300)
    #: Keys by name or glob pattern whose size to emit.
    keys: tuple[str, ...] = ()
    #: Whether to emit the memory usage of each of `keys`.
    key_memory: bool = False
    #: Whether to emit the number that a string of `keys` holds.
    key_values: bool = False
    #: Queues of celery, rq, sidekiq, bullmq, dramatiq, arq, huey, and keys that are queues.
    queues: QueueSettings = QueueSettings()

    advice = _ADVICE

    def __post_init__(self) -> None:
        """Check what types cannot express."""
        if "sentinel" in self.url.scheme:
            msg = f"url: {_SENTINEL}"
            raise ValueError(msg)
        if "cluster" in self.url.scheme:
            msg = "url: name one node of the cluster as redis://HOST:PORT, and set cluster: true"
            raise ValueError(msg)
        address.check(self.url, *address.SCHEMES)
        if self.credentials is not None and (
            self.password is not None or self.url.username or self.url.password
        ):
            msg = (
                "credentials: the provider gives user and password:"
                " remove them from `url` and `password`"
            )
            raise ValueError(msg)
        if self.cluster and self.sentinel is not None:
            msg = "cluster and sentinel exclude each other"
            raise ValueError(msg)
        sentinels = self.sentinel.addresses if self.sentinel is not None else ()
        self.tls.require_used_by(self.url, *sentinels, schemes=("rediss",))
