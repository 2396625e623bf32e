"""Selects the servers for finding names: replicas, so that the clients of a primary do not wait for SCAN."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from time import monotonic

from hiredis import ReplyError

from bts_collectors.redis.client.address import with_host
from bts_collectors.redis.client.connection import Command, Connection, Reply
from bts_collectors.redis.client.errors import without_traceback
from bts_exporter import TargetError, Url

#: Seconds within which a server must answer to be used.
TIMEOUT_SECONDS = 5.0
#: Seconds after which an unusable replica is tried again: every refusal is a line in its log.
RETRY_SECONDS = 600.0

_REPLICATION: Command = ("INFO", "replication")
_CHECKS: tuple[Command, ...] = (("SCAN", 0, "COUNT", 1), _REPLICATION)
#: Makes a replica in a cluster answer for its keys, rather than point to its primary.
_READONLY: Command = ("READONLY",)
_ONLINE = re.compile(r"^slave\d+:ip=([^,]+),port=([1-9]\d*),state=online,", re.MULTILINE)
_IN_SYNC = "master_link_status:up"


class ReplicaSelector:
    """Returns one connection for each primary, to it or to a replica, for a scan of all keys."""

    def __init__(
        self,
        primaries: Callable[[], Sequence[Url]],
        connect: Callable[[Url], Connection],
        *,
        clustered: bool,
    ) -> None:
        """Take a function for the primaries' addresses, and one for connections. No I/O here."""
        self._primaries = primaries
        self._connect = connect
        self._checks = (_READONLY, *_CHECKS) if clustered else _CHECKS
        self._connections: dict[Url, Connection] = {}
        self._unusable: dict[Url, float] = {}  # when to try again, monotonic
        self._aborted = False

    def __call__(self) -> list[Connection]:
        """Return the connections: to a usable replica, else to the primary.

        A primary that does not answer is left out; TargetError if none answers.
        """
        now = monotonic()
        self._unusable = {url: until for url, until in self._unusable.items() if until > now}
        chosen: list[Connection] = []
        errors: list[TargetError] = []
        for primary in self._primaries():
            try:
                chosen.append(self._choice(primary))
            except TargetError as error:
                errors.append(without_traceback(error))
        if errors and not chosen:
            raise without_traceback(errors[0])
        for url, connection in list(self._connections.items()):
            if connection not in chosen:
                connection.close()
                del self._connections[url]
        return chosen

    def abort(self) -> None:
        """End all connections forever."""
        self._aborted = True
        for connection in list(self._connections.values()):
            connection.abort()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()

    def _choice(self, url: Url) -> Connection:
        primary = self._connection(url)
        info = primary.execute([_REPLICATION], monotonic() + TIMEOUT_SECONDS)[0]
        for address in replicas(info, url):
            if address not in self._unusable:
                replica = self._connection(address)
                if self._is_usable(replica):
                    return replica
                self._unusable[address] = monotonic() + RETRY_SECONDS
        return primary

    def _connection(self, url: Url) -> Connection:
        connection = self._connections.get(url)
        if connection is None:
            connection = self._connections[url] = self._connect(url)
            if self._aborted:
                connection.abort()
        return connection

    def _is_usable(self, replica: Connection) -> bool:
        """Return whether a replica is in sync, and permits SCAN."""
        try:
            *_, page, info = replica.execute(self._checks, monotonic() + TIMEOUT_SECONDS)
        except TargetError:
            return False
        return not isinstance(page, ReplyError) and _IN_SYNC in _text(info)


def replicas(reply: Reply, url: Url) -> list[Url]:
    """Return the replicas in sync, from INFO replication of the server at `url`."""
    return [with_host(url, host, int(port)) for host, port in _ONLINE.findall(_text(reply))]


def _text(reply: Reply) -> str:
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""
