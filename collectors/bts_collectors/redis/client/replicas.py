"""Where to look for names: at a replica, so that nobody who works with the primary waits for us."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from time import monotonic

from hiredis import ReplyError

from bts_collectors.redis.client.address import beside
from bts_collectors.redis.client.connection import Command, Connection, Reply
from bts_collectors.redis.client.errors import bare
from bts_exporter import TargetError, Url

#: Seconds in which a server has to show that it can be used.
PATIENCE = 5.0
#: Seconds for which a replica that cannot be used is left alone: every refusal is a line in its log.
RETRY = 600.0

_REPLICATION: Command = ("INFO", "replication")
_CHECKS: tuple[Command, ...] = (("SCAN", 0, "COUNT", 1), _REPLICATION)
#: Makes a replica in a cluster answer for its keys, rather than point to its primary.
_READONLY: Command = ("READONLY",)
_ONLINE = re.compile(r"^slave\d+:ip=([^,]+),port=([1-9]\d*),state=online,", re.MULTILINE)
_IN_SYNC = "master_link_status:up"


class Places:
    """Gives the connections to walk through all keys with: one for each primary."""

    def __init__(
        self,
        primaries: Callable[[], Sequence[Url]],
        connect: Callable[[Url], Connection],
        *,
        clustered: bool,
    ) -> None:
        """Take what tells the primaries, and what makes connections. No I/O here."""
        self._primaries = primaries
        self._connect = connect
        self._checks = (_READONLY, *_CHECKS) if clustered else _CHECKS
        self._connections: dict[Url, Connection] = {}
        self._left_alone: dict[Url, float] = {}  # until when, monotonic
        self._over = False

    def __call__(self) -> list[Connection]:
        """Return the connections: to a replica that can be used, or else to the primary.

        A primary that cannot be asked is left out; TargetError when there is no other.
        """
        now = monotonic()
        self._left_alone = {url: until for url, until in self._left_alone.items() if until > now}
        chosen: list[Connection] = []
        failures: list[TargetError] = []
        for primary in self._primaries():
            try:
                chosen.append(self._choice(primary))
            except TargetError as error:
                failures.append(bare(error))
        if failures and not chosen:
            raise bare(failures[0])
        for url, connection in list(self._connections.items()):
            if connection not in chosen:
                connection.close()
                del self._connections[url]
        return chosen

    def abort(self) -> None:
        """End all connections for good."""
        self._over = True
        for connection in list(self._connections.values()):
            connection.abort()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()

    def _choice(self, url: Url) -> Connection:
        primary = self._connection(url)
        told = primary.ask([_REPLICATION], monotonic() + PATIENCE)[0]
        for one in replicas(told, url):
            if one not in self._left_alone:
                replica = self._connection(one)
                if self._can_be_used(replica):
                    return replica
                self._left_alone[one] = monotonic() + RETRY
        return primary

    def _connection(self, url: Url) -> Connection:
        connection = self._connections.get(url)
        if connection is None:
            connection = self._connections[url] = self._connect(url)
            if self._over:
                connection.abort()
        return connection

    def _can_be_used(self, replica: Connection) -> bool:
        """Return whether it is in sync, and lets us look for names."""
        try:
            *_, page, told = replica.ask(self._checks, monotonic() + PATIENCE)
        except TargetError:
            return False
        return not isinstance(page, ReplyError) and _IN_SYNC in _text(told)


def replicas(reply: Reply, url: Url) -> list[Url]:
    """Return the replicas in sync that INFO tells of; `url` is the server's that told."""
    found = _ONLINE.findall(_text(reply))
    return [beside(url, host, int(port)) for host, port in found]


def _text(reply: Reply) -> str:
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""
