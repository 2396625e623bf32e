"""Requests the master's address from Redis Sentinel, whenever a connection to it is opened."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from time import monotonic
from typing import Annotated

from hiredis import ReplyError
from msgspec import Meta

from bts_collectors.redis.client.address import TCP_SCHEMES, check, database, with_host
from bts_collectors.redis.client.connection import Connection
from bts_collectors.redis.client.credentials import Provider, ProviderSetting
from bts_collectors.redis.client.errors import command_error, unexpected, without_traceback
from bts_collectors.redis.client.options import ConnectionOptions
from bts_collectors.redis.client.reply_guard import ReceiveBudget
from bts_exporter import CollectorConfig, Secret, TargetError, Url

DEFAULT_PORT = 26379


class SentinelSettings(CollectorConfig, frozen=True):
    """The sentinels, and the name of the master."""

    #: Name of the master, as the sentinels know it.
    master: str
    #: redis:// or rediss:// (TLS); a user is part of it.
    addresses: Annotated[
        tuple[Annotated[Url, Meta(extra_json_schema=Url.schema_of_schemes(*TCP_SCHEMES))], ...],
        Meta(extra_json_schema={"minItems": 1}),
    ]
    #: Password of the sentinels.
    password: Secret | None = None
    #: module:callable, in place of a password.
    credentials: ProviderSetting | None = None

    def __post_init__(self) -> None:
        """Check the combination of settings."""
        if self.credentials is not None and (
            self.password is not None or any(url.username or url.password for url in self.addresses)
        ):
            msg = "credentials: the provider gives user and password: remove them from `addresses` and `password`"
            raise ValueError(msg)
        if not self.addresses:
            msg = "addresses: at least one sentinel is needed, such as redis://10.0.0.1:26379"
            raise ValueError(msg)
        for url in self.addresses:
            check(url, *TCP_SCHEMES, key="addresses")
            if number := database(url):
                msg = f"addresses: a sentinel has no databases: move /{number} from {url} to the end of `url`"
                raise ValueError(msg)


class Sentinels:
    """Requests the address from one sentinel after the other, beginning with the last one that answered."""

    def __init__(
        self,
        settings: SentinelSettings,
        url: Url,
        options: ConnectionOptions,
        budget: ReceiveBudget | None = None,
    ) -> None:
        """Take the settings; `url` has scheme, login and database of the master. No I/O here.

        TLS and keepalive are those of `options`, the login is the sentinels' own.
        """
        provider = Provider(settings.credentials) if settings.credentials is not None else None
        own = replace(options, password=settings.password, provider=provider)
        self._master = settings.master
        self._url = url
        self._connections = deque(
            Connection(replace(address, port=address.port or DEFAULT_PORT), own, budget=budget)
            for address in settings.addresses
        )

    def __len__(self) -> int:
        """Return how many sentinels there are."""
        return len(self._connections)

    def find(self, deadline: float) -> Url:
        """Return the master's address; TargetError with every sentinel's error if none knows it."""
        errors: list[TargetError] = []
        for sentinel in list(self._connections):
            try:
                return self._request_address(sentinel, deadline)
            except TargetError as error:
                errors.append(without_traceback(error))
                self.demote_first()
            finally:
                sentinel.close()
        reasons = "; ".join(map(str, errors))
        msg = f"no sentinel knows the address of the master {self._master!r}: {reasons}"
        raise TargetError(errors[0].reason, msg)

    def demote_first(self) -> None:
        """Move the first sentinel to the end: it failed, or its address was not the master's."""
        self._connections.rotate(-1)

    def abort(self) -> None:
        """End all connections forever: a running or later `find` raises TargetError."""
        for sentinel in list(self._connections):
            sentinel.abort()

    def _request_address(self, sentinel: Connection, deadline: float) -> Url:
        now = monotonic()
        request = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
        # Half of the time at most, so that a server that hangs leaves time for the others.
        reply = sentinel.execute([request], now + (deadline - now) / 2)[0]
        match reply:
            case [bytes(host), bytes(port)] if port.isdigit():
                return with_host(self._url, host.decode("utf-8", "replace"), int(port))
            case ReplyError():
                raise command_error(sentinel.url, "SENTINEL", reply)
            case None:
                raise unexpected(sentinel.url, f"knows no master named {self._master!r}")
            case _:
                what = f"sent an unexpected reply to SENTINEL {request[1]}"
                raise unexpected(sentinel.url, what)
