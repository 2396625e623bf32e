"""Whom a collector asks: one server, the master that sentinels know, or all of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from bts_collectors.redis.client.cluster import Cluster
from bts_collectors.redis.client.connection import Command, Connection, Reply
from bts_collectors.redis.client.errors import Lost, bare, demoted
from bts_collectors.redis.client.replicas import Places
from bts_collectors.redis.client.reply_guard import ReceiveBudget
from bts_collectors.redis.client.sentinel import Sentinels, SentinelSettings
from bts_exporter import Secret, TargetError, TLSConfig, Url


class Topology:
    """One server to ask, whatever there is behind it. One thread asks."""

    def __init__(
        self,
        url: Url,
        password: Secret | None,
        tls: TLSConfig,
        sentinel: SentinelSettings | None,
        *,
        clustered: bool,
    ) -> None:
        """Take the settings. No I/O here."""
        self._budget = ReceiveBudget()
        connect = partial(Connection, password=password, tls=tls, budget=self._budget)
        self._sentinels = None if sentinel is None else Sentinels(sentinel, url, tls, self._budget)
        self._home = connect(url, find=None if self._sentinels is None else self._sentinels.find)
        self._cluster = Cluster(self._home, connect) if clustered else None
        self._losses: list[TargetError] = []
        #: Whether the server has answered in this collection.
        self._is_answering = False
        #: Where to look for names, in another thread.
        search = partial(Connection, password=password, tls=tls)
        self.places = Places(self._primaries, search, clustered=clustered)

    @property
    def url(self) -> Url:
        """Return where the server is that answers for itself: INFO and the like."""
        return self._home.url

    @property
    def clustered(self) -> bool:
        """Return whether keys are on several nodes."""
        return self._cluster is not None

    def begin(self, deadline: float) -> None:
        """Begin a collection: follow what has moved; TargetError when nothing can be asked."""
        self._losses.clear()
        self._is_answering = False
        self._budget.begin_collection()
        if self._sentinels is not None:
            self._follow(self._sentinels, deadline)
        if self._cluster is not None:
            self._cluster.begin(deadline)

    def ask(
        self, commands: Sequence[Command], deadline: float, ahead: Sequence[Command] = ()
    ) -> list[Reply]:
        """Return the replies to `commands`; `deadline` is on time.monotonic's clock.

        `ahead` is what will be asked next, the same object: one server may begin with it.
        One refused command is a ReplyError in its place, and what is owed by a server that does not
        answer is `Lost`. TargetError when the first commands of a collection get no replies at all.
        """
        self._budget.begin_round()
        if self._cluster is not None:
            return self._cluster.ask(commands, deadline)
        try:
            replies = self._home.ask(commands, deadline, ahead)
        except TargetError as error:
            if not self._is_answering:
                raise
            return [Lost(bare(error))] * len(commands)
        self._is_answering = True
        return replies

    def losses(self) -> list[TargetError]:
        """Return what is wrong with the topology, though something was there to ask."""
        return [*self._losses, *(self._cluster.losses() if self._cluster else ())]

    def states(self) -> Iterator[tuple[str, bool]]:
        """Yield every primary of a cluster, as `host:port`, and whether it answers."""
        if self._cluster is not None:
            yield from self._cluster.states()

    def abort(self) -> None:
        """End all connections for good: who is or comes into `ask` or `places` gets a TargetError."""
        for part in (self._sentinels, self._cluster, self._home, self.places):
            if part is not None:
                part.abort()

    def close(self) -> None:
        """Close all connections, after `abort` and when no thread asks any more."""
        self._home.close()
        self.places.close()
        if self._cluster is not None:
            self._cluster.close()

    def _primaries(self) -> Sequence[Url]:
        return (self._cluster and self._cluster.primaries()) or (self._home.url,)

    def _follow(self, sentinels: Sentinels, deadline: float) -> None:
        """See that we are connected to a master, for each sentinel may have missed a failover."""
        for _ in range(len(sentinels) + 1):
            told = self._home.ask([("INFO", "replication")], deadline)[0]
            if not isinstance(told, bytes) or b"role:slave" not in told:
                return
            sentinels.doubt()
            self._home.close()
        self._losses.append(demoted(self._home.url))
