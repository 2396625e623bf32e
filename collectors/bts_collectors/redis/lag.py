"""How far behind a group is, exactly or not at all: the server's own figure is wrong too often.

It is nil after XDEL, SETID or a group made at an id, and wrong after XTRIM past the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bts_collectors.redis.connection import Command
from bts_collectors.redis.streamstate import Group, Id, Stream, evaluate

#: Entries that are counted for one group, from either end of the stream.
MOST_COUNTED = 1000
#: What one call may look at, 1 for an entry and 1 more for every 512 bytes of it: 8 ms of the server's time.
BUDGET = 3000
_PAGE = 50

#: Milliseconds; an older id was set by hand and tells no time (2001-01-01).
_OLDEST_PLAUSIBLE = 978_307_200_000
_DAY = 86_400_000

_DRIFTS = (7, 0)  # its count of entries read goes astray now and then
_MINDS_DELETIONS_AHEAD_ONLY = (8, 2)

# For each group: how many entries are behind the last one delivered (-1: not known within the
# budget), and the id of the first of them. Counting goes from there to the end or, where that
# is too far, from the start to there.
_SCRIPT = """\
local most, budget, page = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local function cost(entry)
  local size = 0
  for _, word in ipairs(entry[2]) do size = size + #word end
  return 1 + size / 512
end
local function count(key, from, to, step)
  local counted = 0
  while counted < most and budget > 0 do
    local entries = redis.call('XRANGE', key, from, to, 'COUNT', step)
    counted = counted + #entries
    if #entries < step then return counted end
    for _, entry in ipairs(entries) do budget = budget - cost(entry) end
    from = '(' .. entries[step][1]
  end
end
local found = {}
for i, key in ipairs(KEYS) do
  local last, wanted = ARGV[2 + 2 * i], ARGV[3 + 2 * i] == '1'
  local head = redis.pcall('XRANGE', key, '(' .. last, '+', 'COUNT', 1)
  if head.err then
    found[i] = head
  elseif not head[1] then
    found[i] = {0, false}
  else
    local price = cost(head[1])
    local step = math.max(math.floor(page / price), 1)
    budget = budget - price
    local lag = wanted and count(key, '(' .. last, '+', step)
    if wanted and not lag then
      local behind = count(key, '-', last, step)
      lag = behind and redis.call('XLEN', key) - behind
    end
    found[i] = {lag or -1, head[1][1]}
  end
end
return found
"""


class Verdict(NamedTuple):
    """What the state of stream and group says about the lag."""

    #: Messages; None where only counting can tell.
    lag: int | None
    #: Whether counting tells, or tells better.
    counting: bool
    #: The first entry not delivered yet, where the state says which; None also if there is none.
    head: Id | None = None


def judge(stream: Stream, group: Group, version: tuple[int, ...]) -> Verdict:
    """Return the lag of `group` as far as the state tells it; `version` is the server's."""
    if not stream.length or stream.first is None or stream.last is None:
        return Verdict(0, counting=False)
    if group.last_delivered >= stream.last:
        return Verdict(0, counting=False)
    if group.last_delivered < stream.first:
        return Verdict(stream.length, counting=False, head=stream.first)
    if group.lag is None or not 0 < group.lag <= stream.length:
        return Verdict(None, counting=True)
    if not _deletions_are_harmless(stream, group, version):
        return Verdict(None, counting=True)
    return Verdict(group.lag, counting=version[:2] == _DRIFTS and group.lag <= MOST_COUNTED)


def _deletions_are_harmless(stream: Stream, group: Group, version: tuple[int, ...]) -> bool:
    if stream.max_deleted is None:
        return False
    if stream.max_deleted == (0, 0):
        return True
    return version >= _MINDS_DELETIONS_AHEAD_ONLY and stream.max_deleted <= group.last_delivered


class Question(NamedTuple):
    """A group of which the entries themselves must be looked at."""

    stream: bytes
    last_delivered: Id
    counting: bool


def ask_entries(questions: Sequence[Question], version: tuple[int, ...]) -> Command:
    """Return the command that answers `questions`, with a `[lag or -1, first id or nil]` for each."""
    arguments: list[str | int] = []
    for question in questions:
        milliseconds, sequence = question.last_delivered
        arguments += f"{milliseconds}-{sequence}", int(question.counting)
    names = (question.stream for question in questions)
    counts = (MOST_COUNTED, BUDGET, _PAGE)
    return (evaluate(version), _SCRIPT, len(questions), *names, *counts, *arguments)


def age_seconds(entry: Id, now: int | None) -> float | None:
    """Return the age of `entry` by its id; None where the id is not made from a clock.

    `now` is the server's clock in milliseconds.
    """
    milliseconds = entry[0]
    if now is None or not _OLDEST_PLAUSIBLE <= milliseconds <= now + _DAY:
        return None
    # A moment's difference between clocks is no message from the future.
    return max(now - milliseconds, 0) / 1000
