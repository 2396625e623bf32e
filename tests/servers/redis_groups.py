"""Redis servers that belong together: a cluster, and a master with a replica under a sentinel's eyes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from bts_collectors.redis.client.slots import SLOTS
from servers import Process, free_port, listens, need, wait_until
from servers.redis import MakeRedis, RedisServer

#: The name under which the sentinel looks after the master; it has a capital letter as any name may.
MASTER = "Orders"


class RedisCluster:
    """Three primaries with a third of the slots each, and a replica of the first."""

    def __init__(self, folder: Path) -> None:
        """Start the nodes and wait until they know each other."""
        self.nodes: list[RedisServer] = []
        try:
            for place in range(4):
                self.nodes.append(self._start(folder / str(place)))
            self._join()
        except BaseException:
            self.kill()
            raise

    def owner(self, key: str) -> RedisServer:
        """Return the node that has a key."""
        slot = key_slot(key.encode())
        (port,) = (
            port
            for first, last, (_, port, *_), *_ in self._slots(self.nodes[0])
            if first <= slot <= last
        )
        return next(node for node in self.nodes if node.port == port)

    def primaries(self) -> list[RedisServer]:
        """Return the nodes that are primaries now."""
        ports = {port for _, _, (_, port, *_), *_ in self._slots(self.nodes[0])}
        return [node for node in self.nodes if node.port in ports]

    def wait_for_replicas(self) -> None:
        """Return when the replica has all that its primary has."""
        for node in self.primaries():
            if (replicas := node.client.info("replication")["connected_slaves"]) > 0:
                wait_until(lambda: node.client.wait(replicas, 1000), "the replica has it", 60)  # noqa: B023

    def kill(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.kill()

    @staticmethod
    def id_of(node: RedisServer) -> str:
        """Return the id by which a node is known to the others."""
        return str(node.client.execute_command("CLUSTER", "MYID").decode())

    def _start(self, folder: Path) -> RedisServer:
        folder.mkdir()
        return RedisServer(
            folder,
            *("--cluster-enabled", "yes", "--cluster-port", str(free_port())),
            # No failover but where a test asks for one, and none is down for another's sake.
            *("--cluster-node-timeout", "600000", "--cluster-require-full-coverage", "no"),
            *("--repl-diskless-sync-delay", "0"),
        )

    def _join(self) -> None:
        first, second, third, replica = self.nodes
        for place, node in enumerate((first, second, third)):
            start, end = place * SLOTS // 3, (place + 1) * SLOTS // 3 - 1
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", start, end)
        for node in (second, third, replica):
            bus = node.client.config_get("cluster-port")["cluster-port"]
            first.client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        wait_until(lambda: all(self._is_complete(node) for node in self.nodes), "all have met", 60)
        replica.client.execute_command("CLUSTER", "REPLICATE", self.id_of(first))
        wait_until(lambda: self._is_in_sync(replica), "the replica is in sync", 60)

    def _is_complete(self, node: RedisServer) -> bool:
        state = node.client.execute_command("CLUSTER", "INFO")
        known = node.client.execute_command("CLUSTER", "NODES").splitlines()
        return b"cluster_state:ok" in state and len(known) == 4 and len(self._slots(node)) == 3

    @staticmethod
    def _is_in_sync(replica: RedisServer) -> bool:
        return bool(replica.client.info("replication").get("master_link_status") == "up")

    @staticmethod
    def _slots(node: RedisServer) -> list[Any]:
        found: list[Any] = node.client.execute_command("CLUSTER", "SLOTS")
        return found


class Sentinel(Process):
    """A sentinel that monitors one master; its vote is enough for a failover."""

    def __init__(self, folder: Path, master: RedisServer, *lines: str) -> None:
        """Start it in `folder`; `lines` are further ones of its file."""
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        file = folder / "sentinel.conf"
        settings = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 1",
            f"sentinel down-after-milliseconds {MASTER} 1000",
            f"sentinel failover-timeout {MASTER} 10000",
            *lines,
        )
        file.write_text("\n".join((*settings, "")))
        super().__init__([need("redis-server", "redis-server"), str(file), "--sentinel"], folder)
        self.ready(lambda: listens(self.port), seconds=20)
        self.client = redis.Redis(port=self.port, retry=None)

    def master_port(self) -> int:
        """Return the port of the server that it takes for the master."""
        return int(self.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])

    def kill(self) -> None:
        """End it and the test's own connection."""
        self.client.close()
        super().kill()


#: Starts a sentinel of a master, with further lines for its file.
MakeSentinel = Callable[..., Sentinel]


@pytest.fixture(scope="session")
def _shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.kill()


@pytest.fixture
def redis_cluster(_shared_cluster: RedisCluster) -> RedisCluster:
    """Give an empty cluster that tests share: what a test stops it must start again."""
    for node in _shared_cluster.primaries():
        node.clear()
    return _shared_cluster


@pytest.fixture
def redis_pair(make_redis: MakeRedis) -> tuple[RedisServer, RedisServer]:
    """Give a primary and a replica of it that is in sync."""
    primary = make_redis("--repl-diskless-sync-delay", "0")
    replica = make_redis("--replicaof", "127.0.0.1", str(primary.port))
    wait_until(
        lambda: primary.client.info("replication").get("slave0", {}).get("state") == "online",
        "the replica is in sync",
        60,
    )
    return primary, replica


@pytest.fixture
def make_sentinel(tmp_path: Path) -> Iterator[MakeSentinel]:
    """Give a factory of sentinels; all are ended after the test."""
    sentinels: list[Sentinel] = []

    def make(master: RedisServer, *lines: str) -> Sentinel:
        folder = tmp_path / f"sentinel{len(sentinels)}"
        folder.mkdir()
        sentinels.append(Sentinel(folder, master, *lines))
        return sentinels[-1]

    yield make
    for sentinel in sentinels:
        sentinel.kill()
