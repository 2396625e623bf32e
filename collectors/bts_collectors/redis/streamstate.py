"""What a stream and its groups are at one moment: XINFO STREAM and XINFO GROUPS, without payloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bts_collectors.redis.connection import Command, Reply

#: An entry's id: milliseconds since 1970 (unless set by hand), sequence number.
Id = tuple[int, int]

# XINFO STREAM hands over the first and the last entry whole, however large they are: the script
# keeps their ids alone. It asks for the type first, since a refusal would count as an error of
# the server's in the user's own statistics.
_SCRIPT = """\
local found = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'stream' then
    found[i] = kind
  else
    local stream = redis.pcall('XINFO', 'STREAM', key)
    for j = 1, #stream, 2 do
      if (stream[j] == 'first-entry' or stream[j] == 'last-entry') and stream[j + 1] then
        stream[j + 1] = {stream[j + 1][1]}
      end
    end
    found[i] = {stream, redis.pcall('XINFO', 'GROUPS', key)}
  end
end
return found
"""

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


def ask_many(names: Sequence[bytes], version: tuple[int, ...]) -> Command:
    """Return the command for the state of several streams; its reply is one `parse` takes for each."""
    return (evaluate(version), _SCRIPT, len(names), *names)


def ask_plainly(name: bytes) -> tuple[Command, Command, Command]:
    """Return the commands for one stream where no script may run; `plain_state` joins the replies."""
    return ("TYPE", name), ("XINFO", "STREAM", name), ("XINFO", "GROUPS", name)


def plain_state(replies: Sequence[Reply]) -> Reply:
    """Return the replies to `ask_plainly` as the script would have."""
    kind, stream, groups = replies
    return [stream, groups] if kind == b"stream" else kind


def parse_stream(reply: Reply) -> Stream:
    """Return the stream that a reply of XINFO STREAM describes."""
    fields = fields_of(reply)
    return Stream(
        length=fields[b"length"],
        groups=fields.get(b"groups"),
        radix_tree_keys=fields.get(b"radix-tree-keys"),
        radix_tree_nodes=fields.get(b"radix-tree-nodes"),
        last_generated=_optional_id(fields.get(b"last-generated-id")),
        max_deleted=_optional_id(fields.get(b"max-deleted-entry-id")),
        entries_added=fields.get(b"entries-added"),
        first=_entry_id(fields.get(b"first-entry")),
        last=_entry_id(fields.get(b"last-entry")),
    )


def parse_groups(reply: Reply) -> list[Group]:
    """Return the groups that a reply of XINFO GROUPS describes."""
    return [
        Group(
            name=fields[b"name"],
            consumers=fields[b"consumers"],
            pending=fields[b"pending"],
            last_delivered=parse_id(fields[b"last-delivered-id"]),
            entries_read=fields.get(b"entries-read"),
            lag=fields.get(b"lag"),
        )
        for fields in map(fields_of, reply)
    ]


def parse_id(raw: bytes) -> Id:
    """Return an entry's id as numbers, which compare as the server compares ids."""
    milliseconds, _, sequence = raw.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def spell_id(entry: Id) -> str:
    """Return an entry's id as the server spells it."""
    return f"{entry[0]}-{entry[1]}"


def fields_of(flat: list[Any]) -> dict[bytes, Any]:
    """Return `[name, value, name, value]` as a dict."""
    words = iter(flat)
    return dict(zip(words, words, strict=True))


def _optional_id(raw: bytes | None) -> Id | None:
    return None if raw is None else parse_id(raw)


def _entry_id(entry: list[Any] | None) -> Id | None:
    return parse_id(entry[0]) if entry else None
