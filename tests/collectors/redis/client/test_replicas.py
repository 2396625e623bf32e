from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from bts_collectors.redis.client import replicas as module
from bts_collectors.redis.client.connection import Command, Connection
from bts_collectors.redis.client.replicas import ReplicaSelector, replicas
from bts_exporter import TargetError, Url

PRIMARY = Url("redis", "primary", 6379, path="/2", username="bts")
ONE = Url("redis", "10.0.0.1", 6380, path="/2", username="bts")
TWO = Url("redis", "10.0.0.2", 6380, path="/2", username="bts")

TOLD = b"""\
# Replication\r
role:master\r
connected_slaves:4\r
slave0:ip=10.0.0.1,port=6380,state=online,offset=98,lag=0\r
slave1:ip=10.0.0.3,port=6380,state=wait_bgsave,offset=0,lag=0\r
slave2:ip=10.0.0.4,port=0,state=online,offset=98,lag=1,type=main-channel\r
slave3:ip=10.0.0.2,port=6380,state=online,offset=98,lag=1\r
"""
IN_SYNC = b"role:slave\r\nmaster_link_status:up\r\n"


class Server:
    """Stands in for a connection; `replication` is its INFO, None if it is dead."""

    def __init__(self, replication: bytes | None) -> None:
        self.replication = replication
        self.requests: list[Command] = []
        self.closed = self.aborted = False

    def execute(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Reply to INFO and SCAN, or fail."""
        assert deadline
        self.requests += commands
        if self.replication is None:
            reason = "timeout"
            raise TargetError(reason, "no answer")
        return [self.replication if name == "INFO" else b"OK" for name, *_ in commands]

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def abort(self) -> None:
        """Note it."""
        self.aborted = True


@pytest.fixture
def servers() -> dict[Url, Server]:
    """Give a primary with two replicas in sync."""
    return {PRIMARY: Server(TOLD), ONE: Server(IN_SYNC), TWO: Server(IN_SYNC)}


@pytest.fixture
def selector(servers: dict[Url, Server]) -> ReplicaSelector:
    """Give the selector of the servers for their names."""
    return ReplicaSelector(
        lambda: [PRIMARY], lambda url: cast("Connection", servers[url]), clustered=False
    )


def test_replicas_that_are_in_sync() -> None:
    """Replicas in INFO are used if they are online and announce their address."""
    assert replicas(TOLD, PRIMARY) == [ONE, TWO]
    assert replicas(b"role:slave\r\nslave_repl_offset:1\r\n", PRIMARY) == []
    assert replicas(None, PRIMARY) == []


def test_a_replica_is_preferred(servers: dict[Url, Server], selector: ReplicaSelector) -> None:
    """The first replica in sync is taken; connections that are not used are closed."""
    assert selector() == [servers[ONE]]
    assert servers[PRIMARY].closed
    assert servers[TWO].requests == []


@pytest.mark.parametrize(
    "replication", [None, b"role:slave\r\nmaster_link_status:down\r\n", b"role:master\r\n"]
)
def test_an_unusable_replica_is_skipped(
    servers: dict[Url, Server],
    selector: ReplicaSelector,
    replication: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A replica that does not answer or lost its primary is skipped, and tried again much later."""
    servers[ONE].replication = replication

    assert [selector(), selector()] == [[servers[TWO]]] * 2
    assert len(servers[ONE].requests) == 2
    servers[ONE].replication = IN_SYNC
    monkeypatch.setattr(module, "RETRY_SECONDS", -1.0)
    selector._unusable.clear()
    assert selector() == [servers[ONE]]


def test_a_replica_in_a_cluster(servers: dict[Url, Server]) -> None:
    """In a cluster a replica gets READONLY first, so that it answers for its keys."""
    clustered = ReplicaSelector(
        lambda: [PRIMARY], lambda url: cast("Connection", servers[url]), clustered=True
    )

    assert clustered() == [servers[ONE]]
    assert servers[ONE].requests[0] == ("READONLY",)


def test_without_replicas_the_primary_is_scanned(
    servers: dict[Url, Server], selector: ReplicaSelector
) -> None:
    """If no replica can be used, or INFO names none, the primary is selected."""
    servers[ONE].replication = servers[TWO].replication = None
    assert selector() == [servers[PRIMARY]]

    servers[PRIMARY].replication = b""
    assert selector() == [servers[PRIMARY]]


def test_a_dead_primary_is_left_out(servers: dict[Url, Server]) -> None:
    """In a cluster the primaries that answer are selected; it is an error if none does."""
    other = Url("redis", "other", 6379)
    servers[other] = Server(b"role:master")
    several = ReplicaSelector(
        lambda: [PRIMARY, other], lambda url: cast("Connection", servers[url]), clustered=True
    )
    servers[PRIMARY].replication = None
    assert several() == [servers[other]]

    servers[other].replication = None
    with pytest.raises(TargetError, match="no answer"):
        several()


def test_abort_is_final(servers: dict[Url, Server], selector: ReplicaSelector) -> None:
    """Connections that are made after an abort are aborted, too."""
    selector.abort()
    selector()  # real connections would fail

    assert [server.aborted for server in servers.values()] == [True, True, False]
