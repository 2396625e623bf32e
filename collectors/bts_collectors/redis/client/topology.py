"""The servers behind one block: a single one, the master that sentinels know, or a whole cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from bts_collectors.redis.client.cluster import Cluster
from bts_collectors.redis.client.connection import Command, Connection, Reply
from bts_collectors.redis.client.errors import NoReplyError, demoted, without_traceback
from bts_collectors.redis.client.options import ConnectionOptions
from bts_collectors.redis.client.replicas import ReplicaSelector
from bts_collectors.redis.client.reply_guard import ReceiveBudget
from bts_collectors.redis.client.sentinel import Sentinels, SentinelSettings
from bts_exporter import TargetError, Url


class Topology:
    """Sends commands to a block's servers as if they were one. For one thread."""

    def __init__(
        self,
        url: Url,
        options: ConnectionOptions,
        sentinel: SentinelSettings | None,
        *,
        clustered: bool,
    ) -> None:
        """Take the settings. No I/O here."""
        self._budget = ReceiveBudget()
        connect = partial(Connection, options=options, budget=self._budget)
        self._sentinels = (
            None if sentinel is None else Sentinels(sentinel, url, options, self._budget)
        )
        self._home = connect(url, find=None if self._sentinels is None else self._sentinels.find)
        self._cluster = Cluster(self._home, connect) if clustered else None
        self._losses: list[TargetError] = []
        #: Whether the server has answered in this collection.
        self._is_answering = False
        #: The connections for finding names, which another thread uses.
        search = partial(Connection, options=options)
        self.replicas = ReplicaSelector(self._primaries, search, clustered=clustered)

    @property
    def url(self) -> Url:
        """Return the address of the server that INFO and similar commands go to."""
        return self._home.url

    @property
    def clustered(self) -> bool:
        """Return whether keys are on several nodes."""
        return self._cluster is not None

    def begin(self, deadline: float) -> None:
        """Begin a collection: follow a failover or resharding; TargetError if no server can be reached."""
        self._losses.clear()
        self._is_answering = False
        self._budget.begin_collection()
        if self._sentinels is not None:
            self._follow(self._sentinels, deadline)
        if self._cluster is not None:
            self._cluster.begin(deadline)

    def execute(
        self, commands: Sequence[Command], deadline: float, ahead: Sequence[Command] = ()
    ) -> list[Reply]:
        """Return the replies to `commands`; `deadline` is on time.monotonic's clock.

        `ahead` is the next request, the same object: a single server may begin with it.
        A refused command is a ReplyError in its place, and a reply of a server that does not answer
        is `NoReplyError`. TargetError when the first commands of a collection get no replies at all.
        """
        self._budget.begin_round()
        if self._cluster is not None:
            return self._cluster.execute(commands, deadline)
        try:
            replies = self._home.execute(commands, deadline, ahead)
        except TargetError as error:
            if not self._is_answering:
                raise
            return [NoReplyError(without_traceback(error))] * len(commands)
        self._is_answering = True
        return replies

    def losses(self) -> list[TargetError]:
        """Return the errors of the topology, of a collection that some server answered."""
        return [*self._losses, *(self._cluster.losses() if self._cluster else ())]

    def states(self) -> Iterator[tuple[str, bool]]:
        """Yield every primary of a cluster, as `host:port`, and whether it answers."""
        if self._cluster is not None:
            yield from self._cluster.states()

    def abort(self) -> None:
        """End all connections forever: a running or later `execute`, or use of `replicas`, raises TargetError."""
        for part in (self._sentinels, self._cluster, self._home, self.replicas):
            if part is not None:
                part.abort()

    def close(self) -> None:
        """Close all connections, after `abort` and when no thread uses them."""
        self._home.close()
        self.replicas.close()
        if self._cluster is not None:
            self._cluster.close()

    def _primaries(self) -> Sequence[Url]:
        return (self._cluster and self._cluster.primaries()) or (self._home.url,)

    def _follow(self, sentinels: Sentinels, deadline: float) -> None:
        """Make sure that the server is a master: a sentinel may have missed a failover."""
        for _ in range(len(sentinels) + 1):
            reply = self._home.execute([("INFO", "replication")], deadline)[0]
            if not isinstance(reply, bytes) or b"role:slave" not in reply:
                return
            sentinels.demote_first()
            self._home.close()
        self._losses.append(demoted(self._home.url))
