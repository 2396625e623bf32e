"""The state of a stream and its groups at one moment: XINFO STREAM and XINFO GROUPS, without payloads."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hiredis import ReplyError

from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.errors import ReplyShapeError
from bts_collectors.redis.client.scripts import EVALUATE, load_script
from bts_collectors.redis.streams.flat_map import FlatMap

#: An entry's id: milliseconds since 1970 (unless a client chose it), sequence number.
Id = tuple[int, int]

_SCRIPT = load_script(__file__, "state")
#: Consumers that one script reads: 0.2 ms of the server's time.
MOST_CONSUMERS = 200
#: Groups that one script reads: 1 ms. For a stream with more groups it returns their number.
MOST_GROUPS = 200

#: Elements of the script's reply for a stream: its values, and its groups.
_PARTS = 2
#: Values of a stream, and values of a group.
_STREAM_VALUES, _GROUP_VALUES = 9, 8
#: Bytes of the longest id: two numbers of 64 bits.
_LONGEST_ID = 41

_STREAM = FlatMap(
    b"length",
    b"groups",
    b"radix-tree-keys",
    b"radix-tree-nodes",
    b"last-generated-id",
    b"max-deleted-entry-id",
    b"entries-added",
    b"first-entry",
    b"last-entry",
)
_GROUP = FlatMap(b"name", b"consumers", b"pending", b"last-delivered-id", b"entries-read", b"lag")

#: Types of a number that a server may leave out.
_OPTIONAL = frozenset((int, type(None)))


# There are tens of thousands of both. They hold no cycles, so the garbage collector can skip them.
class Group(msgspec.Struct, frozen=True, gc=False):
    """A consumer group; None stands for a value that the server does not know or does not return."""

    name: bytes
    consumers: int
    pending: int
    last_delivered: Id
    entries_read: int | None = None
    lag: int | None = None
    #: Consumers with pending entries that are stale; -1 where the server cannot say, None where the
    #: script did not read the consumers.
    stale: int | None = None
    #: The longest idle time of a consumer with pending entries in milliseconds; -1 and None as above.
    idle: int | None = None


class Stream(msgspec.Struct, frozen=True, gc=False):
    """A stream; None stands for a value that the server does not return."""

    length: int
    groups: int | None = None
    radix_tree_keys: int | None = None
    radix_tree_nodes: int | None = None
    last_generated: Id | None = None
    max_deleted: Id | None = None
    entries_added: int | None = None
    #: None also if the stream is empty.
    first: Id | None = None
    last: Id | None = None


def state_command(
    names: Sequence[bytes],
    stale_after: float,
    *,
    consumers: bool,
    groups: int = MOST_GROUPS,
) -> Command:
    """Return the command for the state of several streams, and with `consumers` of their consumers.

    `stale_after` is in seconds. The reply has all groups of the first streams that have at most
    `groups` together. For any other stream it has the number of groups instead.
    """
    room = MOST_CONSUMERS if consumers else -1
    stale = f"{stale_after * 1000:.0f}"
    return (EVALUATE, _SCRIPT, len(names), *names, stale, room, groups)


def is_scripts_reply(reply: Reply, count: int) -> bool:
    """Return whether `reply` has the shape of the script's reply for `count` streams."""
    return type(reply) is list and len(reply) == count and all(map(_is_state, reply))


def _is_state(state: Reply) -> bool:
    """Return whether `state` is a key's type, or the values of a stream and its groups."""
    if type(state) is not list:
        return type(state) is bytes
    if len(state) != _PARTS:
        return False
    stream, groups = state
    if isinstance(stream, ReplyError):
        return True
    return (
        type(stream) is list
        and len(stream) == _STREAM_VALUES
        and isinstance(groups, ReplyError | list | int)
    )


def plain_commands(name: bytes) -> tuple[Command, Command, Command]:
    """Return the commands for one stream without a script; `plain_state` joins their replies."""
    return ("TYPE", name), ("XINFO", "STREAM", name), ("XINFO", "GROUPS", name)


def plain_state(replies: Sequence[Reply]) -> Reply:
    """Return the replies to `plain_commands` in the shape of the script's; ReplyShapeError if odd."""
    kind, stream, groups = replies
    if kind != b"stream":
        if type(kind) is not bytes and not isinstance(kind, ReplyError):
            msg = "TYPE is not a text"
            raise ReplyShapeError(msg)
        return kind
    if not isinstance(stream, ReplyError):
        *numbers, first, last = _STREAM.of(stream)
        stream = [*numbers, _entry_id(first), _entry_id(last)]
    return [stream, plain_groups(groups)]


def _entry_id(entry: Reply) -> Reply:
    """Return the id of an entry, which is `[id, fields]`; None for no entry."""
    if entry is None:
        return None
    if type(entry) is not list or not entry:
        msg = "an entry is not a list"
        raise ReplyShapeError(msg)
    return entry[0]


def plain_groups(reply: Reply) -> Reply:
    """Return a reply of XINFO GROUPS in the shape of the script's; ReplyShapeError if odd."""
    if isinstance(reply, ReplyError):
        return reply
    if type(reply) is not list:
        msg = "the groups are not a list"
        raise ReplyShapeError(msg)
    return [[*_GROUP.of(group), None, None] for group in reply]


def parse_stream(values: Sequence[Reply]) -> Stream:
    """Return the stream with these nine values; ReplyShapeError if one of them is odd."""
    length, groups, keys, nodes, last_generated, max_deleted, added, first, last = values
    if type(length) is not int:
        msg = "the length is not a number"
        raise ReplyShapeError(msg)
    if (
        type(groups) not in _OPTIONAL
        or type(keys) not in _OPTIONAL
        or type(nodes) not in _OPTIONAL
        or type(added) not in _OPTIONAL
    ):
        msg = "a field that should be a number is not a number"
        raise ReplyShapeError(msg)
    return Stream(
        length,
        groups,
        keys,
        nodes,
        _optional_id(last_generated),
        _optional_id(max_deleted),
        added,
        _optional_id(first),
        _optional_id(last),
    )


def parse_group(values: Reply) -> Group:
    """Return the group with these eight values; ReplyShapeError if one of them is odd."""
    if type(values) is not list or len(values) != _GROUP_VALUES:
        msg = "the fields are not a list of the usual length"
        raise ReplyShapeError(msg)
    name, consumers, pending, last_delivered, read, lag, stale, idle = values
    if (
        type(name) is not bytes
        or type(consumers) is not int
        or type(pending) is not int
        or type(read) not in _OPTIONAL
        or type(lag) not in _OPTIONAL
        or type(stale) not in _OPTIONAL
        or type(idle) not in _OPTIONAL
    ):
        msg = "a field has an unexpected type"
        raise ReplyShapeError(msg)
    return Group(name, consumers, pending, parse_id(last_delivered), read, lag, stale, idle)


def parse_id(raw: Reply) -> Id:
    """Return an entry's id as numbers, which compare as the server compares ids.

    ReplyShapeError if it is not MILLISECONDS-SEQUENCE.
    """
    if type(raw) is bytes and len(raw) <= _LONGEST_ID:
        milliseconds, _, sequence = raw.partition(b"-")
        try:
            return int(milliseconds), int(sequence or 0)
        except ValueError:
            pass
    msg = "an id is not MILLISECONDS-SEQUENCE"
    raise ReplyShapeError(msg)


def spell_id(entry: Id) -> str:
    """Return an entry's id as the server spells it."""
    return f"{entry[0]}-{entry[1]}"


def _optional_id(raw: Reply) -> Id | None:
    return None if raw is None else parse_id(raw)
