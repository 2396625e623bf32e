"""What a stream and its groups are at one moment: XINFO STREAM and XINFO GROUPS, without payloads."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hiredis import ReplyError

from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.streams.flat_map import FlatMap

#: An entry's id: milliseconds since 1970 (unless set by hand), sequence number.
Id = tuple[int, int]

# XINFO STREAM hands over the first and the last entry whole, however large they are: the script
# keeps their ids alone, and of all else the values alone, in a fixed order. It asks for the type first,
# since a refusal would count as an error of the server's in the user's own statistics. What it may not
# look at, or has no room for, is left to plain commands. Before Redis 7.2 the idle time of a consumer
# goes on while it asks in vain: one that is not told from a dead one is -1.
_SCRIPT = """\
local stale, room, left = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local function fields(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end
local function id(entry)
  return entry and entry[1] or false
end
local function idle(key, group)
  local consumers = redis.pcall('XINFO', 'CONSUMERS', key, group)
  if consumers.err then
    room = -1
    return false, false
  end
  local late, longest, told = 0, 0, true
  for _, flat in ipairs(consumers) do
    local one = fields(flat)
    if one.pending > 0 then
      longest = math.max(longest, one.idle)
      if one.idle >= stale then late = late + 1 end
      told = told and one.inactive
    end
  end
  room = room - #consumers
  if not told then return late == 0 and 0 or -1, -1 end
  return late, longest
end
local function group(key, flat)
  local one = fields(flat)
  local late, longest = false, false
  if one.pending > 0 and one.consumers <= room then late, longest = idle(key, one.name) end
  return {one.name, one.consumers, one.pending, one['last-delivered-id'], one['entries-read'] or false,
    one.lag or false, late, longest}
end
local found = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'stream' then
    found[i] = kind
  else
    local stream, groups = redis.pcall('XINFO', 'STREAM', key), false
    if not stream.err then
      local one = fields(stream)
      groups = one.groups or 0
      stream = {one.length, one.groups or false, one['radix-tree-keys'] or false,
        one['radix-tree-nodes'] or false, one['last-generated-id'] or false,
        one['max-deleted-entry-id'] or false, one['entries-added'] or false,
        id(one['first-entry']), id(one['last-entry'])}
    end
    if groups and groups <= left then
      left = left - groups
      groups = redis.pcall('XINFO', 'GROUPS', key)
      for j = 1, #groups do groups[j] = group(key, groups[j]) end
    end
    found[i] = {stream, groups}
  end
end
return found
"""
#: Consumers that one script looks at: 0.2 ms of the server's time.
MOST_CONSUMERS = 200
#: Groups that one script looks at: 1 ms. Of a stream with more it says how many there are.
MOST_GROUPS = 200

#: What the script gives of a stream: its own values, and its groups; and how many values.
_PARTS, _VALUES = 2, 9

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

#: Of what a server may leave out.
_NUMBERS = frozenset((int, type(None)))
#: How the script is run. Not with EVAL: CLIENT PAUSE holds up all that might write.
EVALUATE = "EVAL_RO"
_FIRST_WITH_EVAL_RO = (7,)


# Ten thousand of each at a time: the collector of garbage need not look at them.
class Group(msgspec.Struct, frozen=True, gc=False):
    """A consumer group; None is what the server does not know or does not tell."""

    name: bytes
    consumers: int
    pending: int
    last_delivered: Id
    entries_read: int | None = None
    lag: int | None = None
    #: Of the consumers that hold entries, where the script looked at them: how many are stale, and the
    #: longest idle in milliseconds; -1 where the server's figures cannot tell.
    stale: int | None = None
    idle: int | None = None


class Stream(msgspec.Struct, frozen=True, gc=False):
    """A stream; `first` and `last` are None when it is empty, the rest where a server has it not."""

    length: int
    groups: int | None = None
    radix_tree_keys: int | None = None
    radix_tree_nodes: int | None = None
    last_generated: Id | None = None
    max_deleted: Id | None = None
    entries_added: int | None = None
    first: Id | None = None
    last: Id | None = None


def runs_scripts(version: tuple[int, ...]) -> bool:
    """Return whether a server of `version` has a command for scripts that only read."""
    return not version or version >= _FIRST_WITH_EVAL_RO


def ask_many(
    names: Sequence[bytes],
    stale_after: float,
    *,
    consumers: bool,
    groups: int = MOST_GROUPS,
) -> Command:
    """Return the command for the state of several streams, and with `consumers` of those.

    `stale_after` is in seconds. Of the stream with which there are more than `groups` together the
    reply has their number in place of the groups.
    """
    room = MOST_CONSUMERS if consumers else -1
    stale = f"{stale_after * 1000:.0f}"
    return (EVALUATE, _SCRIPT, len(names), *names, stale, room, groups)


def is_scripts_reply(reply: Reply, count: int) -> bool:
    """Return whether `reply` is what the script gives for `count` streams."""
    return type(reply) is list and len(reply) == count and all(map(_is_state, reply))


def _is_state(state: Reply) -> bool:
    """Return whether it is the type of what is no stream, or a stream and its groups."""
    if type(state) is not list:
        return type(state) is bytes
    if len(state) != _PARTS:
        return False
    stream, groups = state
    return (
        isinstance(stream, ReplyError) or (type(stream) is list and len(stream) == _VALUES)
    ) and (groups is None or isinstance(groups, ReplyError | list | int))


def ask_plainly(name: bytes) -> tuple[Command, Command, Command]:
    """Return the commands for one stream where no script may run; `plain_state` joins the replies."""
    return ("TYPE", name), ("XINFO", "STREAM", name), ("XINFO", "GROUPS", name)


def plain_state(replies: Sequence[Reply]) -> Reply:
    """Return the replies to `ask_plainly` as the script would have."""
    kind, stream, groups = replies
    if kind != b"stream":
        return kind
    if not isinstance(stream, ReplyError):
        *numbers, first, last = _STREAM.of(stream)
        stream = [*numbers, first and first[0], last and last[0]]
    return [stream, plain_groups(groups)]


def plain_groups(reply: Reply) -> Reply:
    """Return a reply of XINFO GROUPS as the script would have it."""
    if isinstance(reply, ReplyError):
        return reply
    return [[*_GROUP.of(group), None, None] for group in reply]


def parse_stream(values: Sequence[Reply]) -> Stream:
    """Return the stream that the script found; LookupError, TypeError or ValueError if it is odd."""
    length, groups, keys, nodes, last_generated, max_deleted, added, first, last = values
    if type(length) is not int or type(added) not in _NUMBERS:
        raise TypeError(values)
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


def parse_group(values: Sequence[Reply]) -> Group:
    """Return a group that the script found; LookupError, TypeError or ValueError if it is odd."""
    name, consumers, pending, last_delivered, read, lag, stale, idle = values
    if type(consumers) is not int or type(pending) is not int:
        raise TypeError(values)
    if type(read) not in _NUMBERS or type(lag) not in _NUMBERS:
        raise TypeError(values)
    return Group(name, consumers, pending, parse_id(last_delivered), read, lag, stale, idle)


def parse_id(raw: bytes) -> Id:
    """Return an entry's id as numbers, which compare as the server compares ids."""
    milliseconds, _, sequence = raw.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def spell_id(entry: Id) -> str:
    """Return an entry's id as the server spells it."""
    return f"{entry[0]}-{entry[1]}"


def _optional_id(raw: bytes | None) -> Id | None:
    return None if raw is None else parse_id(raw)
