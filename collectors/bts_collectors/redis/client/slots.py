"""Reads which node of a cluster has a slot: CLUSTER SLOTS, and redirections."""

from __future__ import annotations

from typing import NamedTuple

from hiredis import ReplyError
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from bts_collectors.redis.client.address import with_host
from bts_collectors.redis.client.connection import Reply
from bts_exporter import Url

#: The number of slots of a cluster; they are numbered from 0.
SLOTS = REDIS_CLUSTER_HASH_SLOTS
_PORTS = 65536
_NO_NAME = b"?"
#: Values in place of an unknown or hidden address.
_UNKNOWN = (b"", _NO_NAME)
_REDIRECTIONS = frozenset({"MOVED", "ASK"})


class Redirection(NamedTuple):
    """The node to which a reply redirects."""

    slot: int
    url: Url
    #: Whether for this command only, while the slot moves.
    once: bool


def parse_ranges(reply: Reply, node: Url) -> list[tuple[int, int, Url]] | None:
    """Return first slot, last slot and primary of each range in a reply of CLUSTER SLOTS.

    None for any other reply; a malformed range is left out. `node` is the one that sent it.
    """
    if not isinstance(reply, list):
        return None
    ranges: list[tuple[int, int, Url]] = []
    for entry in reply[:SLOTS]:
        match entry:
            case [int(first), int(last), [endpoint, int(port), *details], *_] if 0 < port < _PORTS:
                ranges.append((first, last, with_host(node, _host(endpoint, details, node), port)))
    return ranges if ranges or not reply else None


def _host(endpoint: Reply, details: list[Reply], node: Url) -> str:
    """Return the host of a node.

    It is that of `node` if it does not know its own address, or hides it
    (cluster-preferred-endpoint-type). A node that prefers a host name and has none announces `?`,
    with its address among the details.
    """
    if isinstance(endpoint, bytes) and endpoint not in _UNKNOWN:
        return endpoint.decode("utf-8", "replace")
    match details:
        case [_, [*pairs], *_] if endpoint == _NO_NAME:
            known = zip(pairs[::2], pairs[1::2], strict=False)
            address = next((value for name, value in known if name == b"ip"), b"")
            return address.decode("ascii", "replace") if address else node.host
    return node.host


def redirection(reply: ReplyError, node: Url) -> Redirection | None:
    """Return the target of `MOVED 3999 10.0.0.1:6379` or `ASK ...`; None for other errors."""
    word, _, rest = str(reply).partition(" ")
    slot, _, address = rest.partition(" ")
    host, _, port = address.rpartition(":")
    if word not in _REDIRECTIONS or not (slot.isdecimal() and port.isdecimal()):
        return None
    if host.encode() in _UNKNOWN:
        host = node.host
    url = with_host(node, host, int(port))
    return Redirection(int(slot) % SLOTS, url, once=word == "ASK")
