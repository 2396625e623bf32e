from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any, cast

import pytest
from hiredis import ReplyError
from redis.crc import key_slot

from bts_collectors.redis.client import cluster as module
from bts_collectors.redis.client.cluster import Cluster
from bts_collectors.redis.client.connection import Command, Connection
from bts_collectors.redis.client.errors import NoReplyError, command_error, is_denied
from bts_exporter import TargetError, Url

HOME = Url("redis", "home")
#: The node that has the slots of a and of b.
A, B = Url("redis", "a", 1), Url("redis", "b", 2)
HALVES = [[0, 8191, [b"b", 2, b"B"]], [8192, 16383, [b"a", 1, b"A"]]]

#: The request for the slots of the cluster.
LAYOUT = [("PING",), ("CLUSTER", "SLOTS")]


class Node:
    """Stands in for the connection to a node; has replies by command name, or by name and key."""

    def __init__(self, url: Url) -> None:
        self.url = url
        self.requests: list[list[Command]] = []
        self.replies: dict[str, Any] = {"PING": b"PONG", "CLUSTER": HALVES}
        self.dead = False
        self.closed = self.aborted = False

    def execute(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Reply as configured, or fail."""
        assert deadline > monotonic()
        self.requests.append(list(commands))
        if self.dead:
            reason = "refused"
            raise TargetError(reason, f"{self.url.host} is dead")
        return [self.replies.get(str(c[0]), f"{self.url.host}:{c[-1]}") for c in commands]

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def abort(self) -> None:
        """Note it."""
        self.aborted = True


class Nodes(dict[Url, Node]):
    """All nodes, created when they are first used."""

    def __missing__(self, url: Url) -> Node:
        self[url] = Node(url)
        return self[url]

    def connect(self, url: Url) -> Connection:
        """Return the stand-in for a connection."""
        return cast("Connection", self[url])


@pytest.fixture
def nodes() -> Nodes:
    """Give nodes that answer everything."""
    return Nodes()


@pytest.fixture
def cluster(nodes: Nodes) -> Cluster:
    """Give a cluster of two primaries whose slots were read once, from a third node."""
    cluster = Cluster(nodes.connect(HOME), nodes.connect)
    cluster.begin(later())
    for node in nodes.values():
        node.requests.clear()
    return cluster


def later() -> float:
    """Return a deadline that is far away."""
    return monotonic() + 60


def test_where_the_names_of_these_tests_are() -> None:
    """The names a and b are in different halves of the slots."""
    assert key_slot(b"b") < 8192 <= key_slot(b"a")


def test_commands_go_to_the_owners_of_their_keys(nodes: Nodes, cluster: Cluster) -> None:
    """Each command goes to the node that has its key; those without a key to the address's node."""
    commands: list[Command] = [
        ("LLEN", b"a"),
        ("INFO",),
        ("XINFO", "STREAM", b"b"),
        ("EVAL_RO", "return 1", 1, b"a"),
        ("MEMORY", "USAGE", "b"),
        ("XPENDING", "a", "g"),
        ("LLEN", 1),
    ]

    replies = cluster.execute(commands, later())

    assert [reply.partition(":")[0] for reply in replies] == ["a", "home", "b", "a", "b", "a", "a"]
    assert nodes[A].requests == [[commands[place] for place in (0, 3, 5, 6)]]
    assert nodes[B].requests == [[commands[place] for place in (2, 4)]]
    assert nodes[HOME].requests == [[commands[1]]]


def test_a_node_that_fails_is_lost_alone(nodes: Nodes, cluster: Cluster) -> None:
    """A dead node is tried once in a collection; the replies of the others are complete."""
    nodes[B].dead = True

    first, second = (cluster.execute([("LLEN", b"a"), ("LLEN", b"b")], later()) for _ in range(2))

    for replies in (first, second):
        assert replies[0] == "a:b'a'"
        assert isinstance(replies[1], NoReplyError)
        assert replies[1].error.reason == "refused"
    assert len(nodes[B].requests) == 1
    assert list(map(str, cluster.losses())) == ["b is dead"]
    assert dict(cluster.states()) == {"a:1": True, "b:2": False}


def test_a_failure_makes_us_look_again(nodes: Nodes, cluster: Cluster) -> None:
    """After a failure the slots are read again, and connections to former primaries are closed."""
    nodes[B].dead = True
    cluster.execute([("LLEN", b"b")], later())
    nodes[HOME].replies["CLUSTER"] = [[0, 16383, [b"a", 1, b"A"]]]

    cluster.begin(later())

    assert cluster.execute([("LLEN", b"b")], later()) == ["a:b'b'"]
    assert cluster.losses() == []
    assert nodes[B].closed
    assert list(cluster.primaries()) == [A]


def test_without_the_node_of_the_address_others_tell(nodes: Nodes, cluster: Cluster) -> None:
    """The slots are read from any known node if the node of the address is dead."""
    nodes[HOME].dead = True
    assert isinstance(cluster.execute([("INFO",)], later())[0], NoReplyError)

    cluster.begin(later())

    assert cluster.execute([("LLEN", b"a")], later()) == ["a:b'a'"]
    assert LAYOUT in nodes[A].requests + nodes[B].requests


def test_a_dead_node_of_the_address_at_the_start(nodes: Nodes) -> None:
    """If no other node is known yet, everything is lost after one attempt."""
    nodes[HOME].dead = True
    cluster = Cluster(nodes.connect(HOME), nodes.connect)

    cluster.begin(later())
    replies = cluster.execute([("INFO",), ("LLEN", b"a")], later())

    assert [type(reply) for reply in replies] == [NoReplyError, NoReplyError]
    assert len(nodes[HOME].requests) == 1
    assert list(map(str, cluster.losses())) == ["home is dead"]


def test_the_layout_is_kept(
    nodes: Nodes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slots are read once a minute, as long as no node fails and no slot moves."""
    cluster.begin(later())
    assert nodes[HOME].requests == []

    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.0)
    cluster._due = 0.0
    cluster.begin(later())
    cluster.begin(later())

    assert nodes[HOME].requests == [LAYOUT] * 2


def test_a_refusal_to_tell_the_layout(nodes: Nodes) -> None:
    """If CLUSTER SLOTS is denied, the node of the address gets all commands, and the refusal is an error."""
    nodes[HOME].replies["CLUSTER"] = ReplyError("NOPERM no permissions")
    cluster = Cluster(nodes.connect(HOME), nodes.connect)
    for _ in range(2):
        cluster.begin(later())

    assert cluster.execute([("LLEN", b"a")], later()) == ["home:b'a'"]
    assert [error.reason for error in cluster.losses()] == ["noperm"]
    assert nodes[HOME].requests.count(LAYOUT) == 1


@pytest.mark.parametrize(
    "reply", [b"OK", [[-5, 10**12, [b"a", 1, b"A"]], [5, 4, [b"b", 2, b"B"]]]], ids=["ok", "huge"]
)
def test_a_strange_layout(nodes: Nodes, reply: object) -> None:
    """Every command is sent to a node, whatever the reply to CLUSTER SLOTS is."""
    nodes[HOME].replies["CLUSTER"] = reply
    cluster = Cluster(nodes.connect(HOME), nodes.connect)

    cluster.begin(later())
    (answer,) = cluster.execute([("LLEN", b"a")], later())

    assert answer in {"home:b'a'", "a:b'a'"}
    assert [error.reason for error in cluster.losses()] == ["protocol"][: reply == b"OK"]


def test_moved(nodes: Nodes, cluster: Cluster) -> None:
    """MOVED is followed at once, and later commands for the slot go to the new owner."""
    nodes[A].replies["LLEN"] = ReplyError(f"MOVED {key_slot(b'a')} c:3")

    assert cluster.execute([("LLEN", b"a"), ("LLEN", b"b")], later()) == ["c:b'a'", "b:b'b'"]
    assert cluster.execute([("TYPE", b"a")], later()) == ["c:b'a'"]
    assert len(nodes[A].requests) == 1
    cluster.begin(later())
    assert nodes[HOME].requests == [LAYOUT]


def test_ask(nodes: Nodes, cluster: Cluster) -> None:
    """ASK is followed once, with ASKING in front of the command."""
    nodes[A].replies["LLEN"] = ReplyError(f"ASK {key_slot(b'a')} c:3")

    assert cluster.execute([("LLEN", b"a")] * 2, later()) == ["c:b'a'"] * 2
    assert nodes[Url("redis", "c", 3)].requests == [[("ASKING",), ("LLEN", b"a")] * 2]
    assert cluster.execute([("TYPE", b"a")], later()) == ["a:b'a'"]


def test_a_refusal_names_the_node(nodes: Nodes, cluster: Cluster) -> None:
    """A refusal names the address of the node that refused."""
    nodes[A].replies["LLEN"] = ReplyError("NOPERM no permissions")

    (reply,) = cluster.execute([("LLEN", b"a")], later())

    assert is_denied(reply)
    assert str(command_error(HOME, "LLEN", reply)).startswith(
        "Redis at redis://a:1 refused LLEN: NOPERM"
    )


def test_nodes_that_point_to_each_other(nodes: Nodes, cluster: Cluster) -> None:
    """After some redirections the last one is the reply."""
    slot = key_slot(b"a")
    nodes[A].replies["LLEN"] = ReplyError(f"MOVED {slot} b:2")
    nodes[B].replies["LLEN"] = ReplyError(f"MOVED {slot} a:1")

    (reply,) = cluster.execute([("LLEN", b"a")], later())

    assert str(reply).startswith("MOVED")
    assert len(nodes[A].requests) + len(nodes[B].requests) == 3


def test_abort_reaches_every_node(nodes: Nodes, cluster: Cluster) -> None:
    """An abort applies to all nodes, also to those that are found afterwards."""
    cluster.abort()
    nodes[A].replies["LLEN"] = ReplyError(f"MOVED {key_slot(b'a')} c:3")
    cluster.execute([("LLEN", b"a")], later())

    assert [node.aborted for node in nodes.values()] == [True] * 4
