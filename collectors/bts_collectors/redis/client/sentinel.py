"""Where the master is that Redis Sentinel looks after: asked whenever a connection is opened."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from time import monotonic

from hiredis import ReplyError

from bts_collectors.redis.client import address
from bts_collectors.redis.client.address import beside
from bts_collectors.redis.client.connection import Connection
from bts_collectors.redis.client.errors import bare, refusal, unexpected
from bts_collectors.redis.client.reply_guard import ReceiveBudget
from bts_exporter import CollectorConfig, Secret, TargetError, TLSConfig, Url

DEFAULT_PORT = 26379


class SentinelSettings(CollectorConfig, frozen=True):
    """Whom to ask for the master, and by what name."""

    master: str
    #: redis:// or rediss:// (TLS); a user is part of it.
    addresses: tuple[Url, ...]
    password: Secret | None = None

    def __post_init__(self) -> None:
        """Check what the types cannot say."""
        if not self.addresses:
            msg = "addresses: at least one sentinel is needed, such as redis://10.0.0.1:26379"
            raise ValueError(msg)
        if wrong := {url.scheme for url in self.addresses} - {"redis", "rediss"}:
            msg = f"addresses: expected redis:// or rediss://, got {wrong.pop()}://"
            raise ValueError(msg)
        for url in self.addresses:
            try:
                number = address.database(url)
                address.check(url)
            except ValueError as error:
                msg = f"addresses: {error}"
                raise ValueError(msg) from None
            if number:
                msg = f"addresses: a sentinel has no databases: write /{number} behind `url` in place of {url}"
                raise ValueError(msg)


class Sentinels:
    """Asks one sentinel after the other, the one first that answered last."""

    def __init__(
        self,
        settings: SentinelSettings,
        url: Url,
        tls: TLSConfig,
        budget: ReceiveBudget | None = None,
    ) -> None:
        """Take whom to ask; `url` has the scheme, login and database of the master. No I/O here."""
        self._master = settings.master
        self._url = url
        self._connections = deque(
            Connection(
                replace(one, port=one.port or DEFAULT_PORT), settings.password, tls, budget=budget
            )
            for one in settings.addresses
        )

    def __len__(self) -> int:
        """Return how many sentinels there are."""
        return len(self._connections)

    def find(self, deadline: float) -> Url:
        """Return the master's address; TargetError with what every sentinel said if none knows it."""
        errors: list[TargetError] = []
        for sentinel in list(self._connections):
            try:
                return self._ask(sentinel, deadline)
            except TargetError as error:
                errors.append(bare(error))
                self.doubt()
            finally:
                sentinel.close()
        what = "; ".join(map(str, errors))
        raise TargetError(errors[0].reason, f"no sentinel tells where {self._master!r} is: {what}")

    def doubt(self) -> None:
        """Ask another sentinel first the next time: the address that this one gave was not the master's."""
        self._connections.rotate(-1)

    def abort(self) -> None:
        """End it for good: another thread that is or comes into `find` gets a TargetError."""
        for sentinel in list(self._connections):
            sentinel.abort()

    def _ask(self, sentinel: Connection, deadline: float) -> Url:
        now = monotonic()
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
        # Half of the time at most, so that one that hangs leaves some for the others.
        reply = sentinel.ask([question], now + (deadline - now) / 2)[0]
        match reply:
            case [bytes(host), bytes(port)] if port.isdigit():
                return beside(self._url, host.decode("utf-8", "replace"), int(port))
            case ReplyError():
                raise refusal(sentinel.url, "SENTINEL", reply)
            case None:
                raise unexpected(sentinel.url, f"knows no master named {self._master!r}")
            case _:
                what = f"answers {question[1]} with something else than a sentinel does"
                raise unexpected(sentinel.url, what)
