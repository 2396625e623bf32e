"""Which node of a cluster has a key: by CRC16 of its name, or of what stands in braces in it."""

from __future__ import annotations

from binascii import crc_hqx
from typing import NamedTuple

from hiredis import ReplyError

from bts_collectors.redis.address import beside
from bts_collectors.redis.connection import Reply
from bts_exporter import Url

#: A cluster's slots are numbered below it.
SLOTS = 16384
_REDIRECTIONS = frozenset({"MOVED", "ASK"})


class Redirection(NamedTuple):
    """Where a node says that a key is."""

    slot: int
    url: Url
    #: Whether for this question alone, while the slot is on its way.
    once: bool


def slot_of(name: bytes) -> int:
    """Return the slot of a key; names with the same `{tag}` share one."""
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    # CRC-16/XMODEM, which the standard library knows by the name of another protocol.
    return crc_hqx(name, 0) % SLOTS


def parse_ranges(reply: Reply, asked: Url) -> list[tuple[int, int, Url]] | None:
    """Return first slot, last slot and primary of each range in a reply of CLUSTER SLOTS.

    None if it is no such reply; `asked` is the node that gave it.
    """
    try:
        # A node that does not know its own address leaves it out: it is the one that we came by.
        return [
            (int(first), int(last), beside(asked, host.decode() if host else asked.host, int(port)))
            for first, last, (host, port, *_), *_ in reply
        ]
    except (AttributeError, TypeError, ValueError):
        return None


def redirection(reply: ReplyError, asked: Url) -> Redirection | None:
    """Return where `MOVED 3999 10.0.0.1:6379` or `ASK ...` points to; None for other errors."""
    word, _, rest = str(reply).partition(" ")
    slot, _, address = rest.partition(" ")
    host, _, port = address.rpartition(":")
    if word not in _REDIRECTIONS or not (slot.isdecimal() and port.isdecimal()):
        return None
    url = beside(asked, host or asked.host, int(port))
    return Redirection(int(slot) % SLOTS, url, once=word == "ASK")
