"""What a stream and its groups are at one moment: XINFO STREAM and XINFO GROUPS, without payloads."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hiredis import ReplyError

from bts_collectors.redis.connection import Command, Reply
from bts_collectors.redis.fields import Fields

#: An entry's id: milliseconds since 1970 (unless set by hand), sequence number.
Id = tuple[int, int]

# XINFO STREAM hands over the first and the last entry whole, however large they are: the script
# keeps their ids alone, and of all else the values alone, in a fixed order. It asks for the type first,
# since a refusal would count as an error of the server's in the user's own statistics. What it may not
# look at, or has no room for, is left to plain commands.
_SCRIPT = """\
local stale, room = tonumber(ARGV[1]), tonumber(ARGV[2])
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
  local late, longest = 0, 0
  for _, flat in ipairs(consumers) do
    local one = fields(flat)
    if one.pending > 0 then
      longest = math.max(longest, one.idle)
      if one.idle >= stale then late = late + 1 end
    end
  end
  room = room - #consumers
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
    local stream, groups = redis.pcall('XINFO', 'STREAM', key), redis.pcall('XINFO', 'GROUPS', key)
    if not stream.err then
      local one = fields(stream)
      stream = {one.length, one.groups or false, one['radix-tree-keys'] or false,
        one['radix-tree-nodes'] or false, one['last-generated-id'] or false,
        one['max-deleted-entry-id'] or false, one['entries-added'] or false,
        id(one['first-entry']), id(one['last-entry'])}
    end
    for j = 1, #groups do groups[j] = group(key, groups[j]) end
    found[i] = {stream, groups}
  end
end
return found
"""
#: Consumers that one script looks at: 0.2 ms of the server's time.
MOST_CONSUMERS = 200

#: What the script gives of a stream: its own values, and its groups; and how many values.
_PARTS, _NUMBERS = 2, 9

_STREAM = Fields(
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
_GROUP = Fields(b"name", b"consumers", b"pending", b"last-delivered-id", b"entries-read", b"lag")

#: How the script is run where EVAL_RO is known, and before.
_EVAL = ("EVAL", "EVAL_RO")
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
    #: longest idle in milliseconds.
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


def evaluate(version: tuple[int, ...]) -> str:
    """Return the command that runs a script which only reads, for a server of `version`."""
    return _EVAL[not version or version >= _FIRST_WITH_EVAL_RO]


def ask_many(
    names: Sequence[bytes], version: tuple[int, ...], stale_after: float, *, consumers: bool
) -> Command:
    """Return the command for the state of several streams, and with `consumers` of those.

    `stale_after` is in seconds.
    """
    room = MOST_CONSUMERS if consumers else -1
    return (evaluate(version), _SCRIPT, len(names), *names, f"{stale_after * 1000:.0f}", room)


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
        isinstance(stream, ReplyError) or (type(stream) is list and len(stream) == _NUMBERS)
    ) and (isinstance(groups, ReplyError | list))


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
    if not isinstance(groups, ReplyError):
        groups = [[*_GROUP.of(group), None, None] for group in groups]
    return [stream, groups]


def parse_stream(values: Sequence[Reply]) -> Stream:
    """Return the stream that the script found."""
    length, groups, keys, nodes, last_generated, max_deleted, added, first, last = values
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


def parse_groups(found: Sequence[Sequence[Reply]]) -> list[Group]:
    """Return the groups that the script found."""
    return [
        Group(name, consumers, pending, parse_id(last_delivered), *more)
        for name, consumers, pending, last_delivered, *more in found
    ]


def parse_id(raw: bytes) -> Id:
    """Return an entry's id as numbers, which compare as the server compares ids."""
    milliseconds, _, sequence = raw.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def spell_id(entry: Id) -> str:
    """Return an entry's id as the server spells it."""
    return f"{entry[0]}-{entry[1]}"


def _optional_id(raw: bytes | None) -> Id | None:
    return None if raw is None else parse_id(raw)
