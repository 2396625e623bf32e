"""A cluster, used like one server: every command goes to the node that has its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import monotonic

from hiredis import ReplyError
from redis.crc import key_slot

from bts_collectors.redis.client.address import with_host
from bts_collectors.redis.client.connection import Command, Connection, Reply
from bts_collectors.redis.client.dialing import DEFAULT_PORT
from bts_collectors.redis.client.errors import (
    NodeError,
    NoReplyError,
    command_error,
    unexpected,
    without_traceback,
)
from bts_collectors.redis.client.slots import SLOTS, parse_ranges, redirection
from bts_exporter import TargetError, Url

#: Seconds after which CLUSTER SLOTS is read again, if no node reports a change before.
REFRESH_SECONDS = 60.0
#: How often a command is sent: to the supposed owner of the slot, and for two redirections.
_HOPS = 3
#: Commands without a key: the node of the address answers them.
_KEYLESS = frozenset(
    {
        "CLIENT",
        "CLUSTER",
        "COMMANDLOG",
        "CONFIG",
        "INFO",
        "LATENCY",
        "MODULE",
        "PING",
        "SENTINEL",
        "SLOWLOG",
    }
)
#: Position of the first key in a command, where it does not follow the name.
_KEY_AT = {"EVAL": 3, "EVAL_RO": 3, "MEMORY": 2, "XINFO": 2}

#: A node, and whether to send ASKING: it shall answer for a slot that it does not own yet.
_Route = tuple[Connection, bool]


class Cluster:
    """Sends commands to all primaries. Missing replies of one node are `NoReplyError`."""

    def __init__(self, home: Connection, connect: Callable[[Url], Connection]) -> None:
        """Take the node of the address, and a function that connects to others. No I/O here."""
        self._home = home
        self._connect = connect
        port = home.url.port or DEFAULT_PORT
        self._nodes = {with_host(home.url, home.url.host, port): home}
        self._owners = [home] * SLOTS
        self._primaries: dict[Url, Connection] = {}
        self._due = 0.0  # monotonic
        self._slots_error: TargetError | None = None
        self._failures: dict[Connection, TargetError] = {}
        self._aborted = False

    def primaries(self) -> Sequence[Url]:
        """Return the addresses of all primaries that have keys; none before the first `begin`."""
        return tuple(self._primaries)

    def begin(self, deadline: float) -> None:
        """Begin a collection: read the slots if that is due, and see which primaries answer."""
        self._failures.clear()
        if monotonic() >= self._due:
            self._read_slots(deadline)
        for node in self._primaries.values():
            self._execute_on(node, [("PING",)], deadline)

    def execute(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Return the replies to `commands`, in their order; missing ones are `NoReplyError`."""
        replies: list[Reply] = [None] * len(commands)
        routes: dict[_Route, list[int]] = {}
        for position, command in enumerate(commands):
            routes.setdefault((self._owner(command), False), []).append(position)
        for _ in range(_HOPS):
            redirected: dict[_Route, list[int]] = {}
            for route, positions in routes.items():
                routed = [commands[position] for position in positions]
                received = self._execute_route(route, routed, deadline)
                for position, reply in zip(positions, received, strict=True):
                    replies[position] = reply
                    if not isinstance(reply, ReplyError) or isinstance(reply, NoReplyError):
                        continue
                    if target := self._redirected(reply, route):
                        redirected.setdefault(target, []).append(position)
                    else:
                        replies[position] = NodeError(route[0].url, reply)
            routes = redirected
        return replies

    def losses(self) -> list[TargetError]:
        """Return the errors of nodes, or of CLUSTER SLOTS, in this collection."""
        return [*self._failures.values(), *([self._slots_error] if self._slots_error else [])]

    def states(self) -> Iterator[tuple[str, bool]]:
        """Yield every primary, as `host:port`, and whether it answers."""
        for url, node in self._primaries.items():
            yield f"{url.host}:{url.port}", node not in self._failures

    def abort(self) -> None:
        """End all connections forever."""
        self._aborted = True
        for node in list(self._nodes.values()):
            node.abort()

    def close(self) -> None:
        """Close all connections; they open again when they are needed."""
        for node in self._nodes.values():
            node.close()

    def _read_slots(self, deadline: float) -> None:
        """Read CLUSTER SLOTS from the node of the address, else from any other."""
        self._slots_error = None
        for node in list(self._nodes.values()):
            # PING, too: a node that hangs only at CLUSTER SLOTS can still return its keys.
            *_, reply = self._execute_on(node, [("PING",), ("CLUSTER", "SLOTS")], deadline)
            if isinstance(reply, NoReplyError):
                if node not in self._failures:
                    self._slots_error = reply.error
                continue
            self._due = monotonic() + REFRESH_SECONDS
            self._slots_error = None
            if isinstance(reply, ReplyError):
                self._slots_error = command_error(node.url, "CLUSTER SLOTS", reply)
            elif (ranges := parse_ranges(reply, node.url)) is not None:
                self._assign_slots(ranges)
            else:
                self._slots_error = unexpected(
                    node.url, "sent an unexpected reply to CLUSTER SLOTS"
                )
            return

    def _assign_slots(self, ranges: Sequence[tuple[int, int, Url]]) -> None:
        self._primaries = {url: self._node(url) for _, _, url in ranges}
        self._owners = [self._home] * SLOTS
        for first, last, url in ranges:
            slots = range(max(first, 0), min(last + 1, SLOTS))
            self._owners[slots.start : slots.stop] = [self._primaries[url]] * len(slots)
        for url, node in list(self._nodes.items()):
            if url not in self._primaries and node is not self._home:
                node.close()
                del self._nodes[url]

    def _owner(self, command: Command) -> Connection:
        name = str(command[0])
        if name in _KEYLESS:
            return self._home
        key = command[_KEY_AT.get(name, 1)]
        return self._owners[key_slot(key if isinstance(key, bytes) else str(key).encode())]

    def _node(self, url: Url) -> Connection:
        node = self._nodes.get(url)
        if node is None:
            node = self._nodes[url] = self._connect(url)
            if self._aborted:
                node.abort()
        return node

    def _execute_route(
        self, route: _Route, commands: Sequence[Command], deadline: float
    ) -> list[Reply]:
        node, asking = route
        if not asking:
            return self._execute_on(node, commands, deadline)
        pairs = [word for command in commands for word in (("ASKING",), command)]
        return self._execute_on(node, pairs, deadline)[1::2]

    def _execute_on(
        self, node: Connection, commands: Sequence[Command], deadline: float
    ) -> list[Reply]:
        """Return one node's replies; one that failed is not used again in this collection."""
        if node not in self._failures:
            now = monotonic()
            try:
                # Half of the time at most, so that a server that hangs leaves time for the others.
                return node.execute(commands, now + (deadline - now) / 2)
            except TargetError as error:
                self._failures[node] = without_traceback(error)
                self._due = 0.0
        return [NoReplyError(self._failures[node])] * len(commands)

    def _redirected(self, reply: ReplyError, route: _Route) -> _Route | None:
        """Return the node that a redirection names, if it is one, and remember a slot's new owner."""
        target = redirection(reply, route[0].url)
        if target is None:
            return None
        node = self._node(target.url)
        if not target.once:
            self._owners[target.slot] = node
            self._due = 0.0
        return node, target.once
