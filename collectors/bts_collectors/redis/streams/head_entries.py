"""The entries ahead of a group, looked at where the state is not enough: the first one, and how many.

By a script, which hands over no payloads, or by plain commands where no script may run.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from hiredis import ReplyError

from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import MISSHAPEN, RequestBatches
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.groups import GroupState
from bts_collectors.redis.streams.lag import MOST_COUNTED
from bts_collectors.redis.streams.state import EVALUATE, parse_id, spell_id

#: The first look: groups that one script looks at, entries it counts for each, and what it may cost
#: (1 for an entry and 1 more for every 512 bytes of it) until it stops counting: 1 ms of the server's time.
BATCH = 20
FEW = 20
_FEW_COST = 500
#: The long look, at one group: 1,000 entries of 2 KB, or 5 ms of the server's time at most.
_MANY_COST = 5 * MOST_COUNTED

#: What the script asks for, and some forks do not know: without, plain commands do.
EXCLUSIVE_RANGE = "xrange|exclusive"
#: An entry behind it has the next millisecond.
_LAST_SEQUENCE = 2**64 - 1
#: Without scripts the payloads come along: bytes of a page, entries at most, pages that go out together.
_PAGE_BYTES = 65_536
PAGE = MOST_COUNTED + 1
_PAGES = 5

# Only entries count that were there when the state of the stream was read, so that lag and state agree.
# For each group: how many entries are behind the last one delivered (-1 and less: at least 1 and more,
# if that is not known within the budget), the id of the first of them, and what the look cost. Counting
# goes from there to the end or, where that is too far, from the start to there. The price of the entries
# seen last tells how many more can be afforded.
_SCRIPT = """\
local most, budget, price = ARGV[1] + 1, tonumber(ARGV[2]), nil
local function page(key, from, to, count)
  if not price then count = 1 end
  if count > 1 then count = math.max(math.min(count, 100, math.floor(budget / price)), 1) end
  local entries = redis.pcall('XRANGE', key, from, to, 'COUNT', count)
  local last = entries[#entries]
  if last then
    price = 1
    for _, word in ipairs(last[2]) do price = price + #word / 512 end
    budget = budget - price * #entries
  end
  return entries, #entries < count
end
local function count(key, to, entries, ended)
  local counted = #entries
  while not ended and counted < most and budget > 0 do
    entries, ended = page(key, '(' .. entries[#entries][1], to, most - counted)
    counted = counted + #entries
  end
  return ended and counted, counted
end
local found = {}
for i, key in ipairs(KEYS) do
  local last, newest, wanted, before = ARGV[3 * i], ARGV[1 + 3 * i], ARGV[2 + 3 * i] == '1', budget
  local entries, ended = page(key, '(' .. last, newest, wanted and budget > 0 and most or 1)
  if entries.err then
    found[i] = entries
  elseif not entries[1] then
    found[i] = {0, false, 0}
  else
    local lag, least = false, 1
    if wanted then lag, least = count(key, newest, entries, ended) end
    if wanted and not lag and budget > 0 then
      local behind = count(key, last, page(key, '-', last, most))
      local newer = behind and count(key, '+', page(key, '(' .. newest, '+', most))
      lag = newer and redis.call('XLEN', key) - behind - newer
    end
    found[i] = {lag or -least, entries[1][1], math.ceil(before - budget)}
  end
end
return found
"""


def by_script(context: StreamContext, groups: Sequence[GroupState]) -> RequestBatches:
    """Find the head of every group and the lag where it is not exact, all of it in the server."""
    if not context.command_support.expects("xrange"):
        return
    batches = context.scrape_context.batches(groups, BATCH, lambda state: state.name)
    yield from _look(context, batches, FEW, _FEW_COST)
    now = context.ticks()
    for state in groups:
        state.history.conclude(state)
        # One at a time, since other clients of the server wait for all that goes out together.
        if state.is_worth_counting and context.budget > 0 and not state.history.is_uncounted(now):
            context.budget -= yield from _look(context, [[state]], MOST_COUNTED, _MANY_COST)
            state.history.note_count(now, counted=state.exact)


def plainly(context: StreamContext, groups: Sequence[GroupState]) -> RequestBatches:
    """Find the same by pulling the entries: one of each group, and where it is small a page."""
    if not context.command_support.expects("xrange"):
        return
    pages: list[tuple[GroupState, int]] = []
    now = context.ticks()
    for start in range(0, len(groups), BATCH):
        some = groups[start : start + BATCH]
        replies = yield [_ask_page(state, 1) for state in some]
        for state, reply in zip(some, replies, strict=True):
            more = _take_page(context, state, reply, 1)
            state.history.conclude(state)
            if (
                more
                and not state.exact
                and context.budget > 0
                and not state.history.is_uncounted(now)
            ):
                count = max(min(PAGE, _PAGE_BYTES // _size(reply[0])), 1)
                context.budget -= count
                pages.append((state, count))
    for start in range(0, len(pages), _PAGES):
        replies = yield [_ask_page(state, count) for state, count in pages[start : start + _PAGES]]
        for (state, count), reply in zip(pages[start : start + _PAGES], replies, strict=True):
            _take_page(context, state, reply, count)
            state.history.note_count(now, counted=state.exact)


def ask_entries(groups: Sequence[GroupState], most: int, budget: int) -> Command:
    """Return the command for the entries ahead of `groups`.

    Its reply is `[lag or -1, first id or nil, cost]` for each.
    """
    arguments: list[str | int] = []
    for state in groups:
        arguments += spell_id(state.group.last_delivered), _newest(state), int(not state.exact)
    names = (state.name for state in groups)
    return (EVALUATE, _SCRIPT, len(groups), *names, most, budget, *arguments)


def _look(
    context: StreamContext, batches: Sequence[Sequence[GroupState]], most: int, budget: int
) -> Generator[Sequence[Command], list[Reply], int]:
    """Ask the script about `batches`, and return what it cost."""
    replies = yield [ask_entries(batch, most, budget) for batch in batches]
    return sum(_take(context, *pair) for pair in zip(batches, replies, strict=True))


def _take(context: StreamContext, batch: Sequence[GroupState], reply: Reply) -> int:
    if isinstance(reply, ReplyError):
        context.scrape_context.refused(EVALUATE, reply)
        return 0
    spent = 0
    for state, answer in zip(batch, reply, strict=True):
        if isinstance(answer, ReplyError):
            if "invalid stream id" in str(answer).lower():  # the script's way to say "behind"
                context.command_support.refused(EXCLUSIVE_RANGE, answer)
            else:
                context.refused("xrange", answer)
            continue
        try:
            counted, head, cost = answer
            spent += cost
            state.head = parse_id(head) if head else None
            _take_count(state, counted)
        except MISSHAPEN as error:
            context.scrape_context.misshapen(f"the entries of {state.labels.own[1]!r}", error)
    return spent


def _take_count(state: GroupState, counted: int) -> None:
    """Take the number of entries ahead; a negative one is what there are at least."""
    if counted >= 0:
        state.lag, state.exact = counted, True
    elif not state.exact and state.lag is not None and state.lag < -counted:
        state.lag = None  # the server's figure is wrong


def _ask_page(state: GroupState, count: int) -> Command:
    # Not with a parenthesis in front of the id, which Redis before 6.2 does not know.
    milliseconds, sequence = state.group.last_delivered
    first = (milliseconds, sequence + 1) if sequence < _LAST_SEQUENCE else (milliseconds + 1, 0)
    return ("XRANGE", state.name, spell_id(first), _newest(state), "COUNT", count)


def _newest(state: GroupState) -> str:
    """Return the last entry that was there when the state of the stream was read."""
    return spell_id(state.stream.last) if state.stream.last else "+"


def _take_page(context: StreamContext, state: GroupState, reply: Reply, count: int) -> bool:
    """Take what a page of entries tells; return whether there is more behind it."""
    if isinstance(reply, ReplyError):
        context.refused("xrange", reply)
        return False
    try:
        if reply:
            state.head = parse_id(reply[0][0])
        found = len(reply)
    except MISSHAPEN as error:
        context.scrape_context.misshapen(f"the entries of {state.labels.own[1]!r}", error)
        return False
    _take_count(state, found if found < count else -found)
    return found == count


def _size(entry: Reply) -> int:
    return sum(map(len, entry[1])) or 1
