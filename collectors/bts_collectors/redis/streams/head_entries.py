"""The undelivered entries of a group where its state is not enough: the first one, and their number.

A script reads them, which returns no payloads. Plain commands do where scripts are not allowed.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from hiredis import ReplyError

from bts_collectors.redis.client.batching import RequestBatches
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.errors import ReplyShapeError
from bts_collectors.redis.client.scripts import EVALUATE, load_script
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.groups import GroupState
from bts_collectors.redis.streams.lag import MOST_COUNTED
from bts_collectors.redis.streams.state import Id, parse_id, spell_id

#: The short count: groups of one script, entries that it counts for each group, and the cost (1 for an
#: entry, and 1 more for every 512 bytes of it) at which it stops. It takes 1 ms of the server's time.
BATCH = 20
FEW = 20
_FEW_COST = 500
#: Cost of the long count for one group: 1,000 entries of 2 KB, at most 5 ms of the server's time.
_MANY_COST = 5 * MOST_COUNTED

#: XRANGE from an exclusive id, `(1-0`, which some forks lack. Plain commands do not need it.
EXCLUSIVE_RANGE = "xrange|exclusive"
#: The largest sequence number; the id after it has the next millisecond.
_LAST_SEQUENCE = 2**64 - 1
#: Without scripts payloads are transferred: bytes and entries of a page, pages of one round trip.
_PAGE_BYTES = 65_536
PAGE = MOST_COUNTED + 1
_PAGES = 5

_SCRIPT = load_script(__file__, "head_entries")


def by_script(context: StreamContext, groups: Sequence[GroupState]) -> RequestBatches:
    """Find the first undelivered entry of every group, and the lag if it is not exact, in the server."""
    if not context.command_support.expects("xrange"):
        return
    batches = context.scrape_context.batches(groups, BATCH, lambda state: state.name)
    yield from _count(context, batches, FEW, _FEW_COST)
    now = context.ticks()
    for state in groups:
        state.history.conclude(state)
        # One group per round trip: other clients of the server wait for a whole round trip.
        if state.is_worth_counting and context.budget > 0 and not state.history.is_uncounted(now):
            context.budget -= yield from _count(context, [[state]], MOST_COUNTED, _MANY_COST)
            state.history.note_count(now, counted=state.exact)


def plainly(context: StreamContext, groups: Sequence[GroupState]) -> RequestBatches:
    """Find the same by fetching entries: one for each group, and a page if that one is small."""
    if not context.command_support.expects("xrange"):
        return
    pages: list[tuple[GroupState, int]] = []
    now = context.ticks()
    for start in range(0, len(groups), BATCH):
        batch = groups[start : start + BATCH]
        replies = yield [_page_command(state, 1) for state in batch]
        for state, reply in zip(batch, replies, strict=True):
            size = _take_page(context, state, reply, 1)
            state.history.conclude(state)
            is_open = size and not state.exact and not state.history.is_uncounted(now)
            if is_open and context.budget > 0:
                count = max(min(PAGE, _PAGE_BYTES // size), 1)
                context.budget -= count
                pages.append((state, count))
    for start in range(0, len(pages), _PAGES):
        replies = yield [
            _page_command(state, count) for state, count in pages[start : start + _PAGES]
        ]
        for (state, count), reply in zip(pages[start : start + _PAGES], replies, strict=True):
            _take_page(context, state, reply, count)
            state.history.note_count(now, counted=state.exact)


def entries_command(groups: Sequence[GroupState], most: int, budget: int) -> Command:
    """Return the script's command for the undelivered entries of `groups`; see head_entries.lua."""
    arguments: list[str | int] = []
    for state in groups:
        arguments += spell_id(state.group.last_delivered), _newest(state), int(not state.exact)
    names = (state.name for state in groups)
    return (EVALUATE, _SCRIPT, len(groups), *names, most, budget, *arguments)


def _count(
    context: StreamContext, batches: Sequence[Sequence[GroupState]], most: int, budget: int
) -> Generator[Sequence[Command], list[Reply], int]:
    """Run the script for `batches`, and return its cost."""
    replies = yield [entries_command(batch, most, budget) for batch in batches]
    return sum(_take(context, *pair) for pair in zip(batches, replies, strict=True))


def _take(context: StreamContext, batch: Sequence[GroupState], reply: Reply) -> int:
    """Take the script's reply for `batch`, and return its cost."""
    if isinstance(reply, ReplyError):
        context.scrape_context.refused(EVALUATE, reply)
        return 0
    if type(reply) is not list or len(reply) != len(batch):
        error = ReplyShapeError("the results are not a list with one result for each group")
        context.scrape_context.unexpected_reply("entries of streams", error)
        return 0
    spent = 0
    for state, result in zip(batch, reply, strict=True):
        if isinstance(result, ReplyError):
            if "invalid stream id" in str(result).lower():  # the server does not know `(ID`
                context.command_support.refused(EXCLUSIVE_RANGE, result)
            else:
                context.refused("xrange", result)
            continue
        try:
            counted, state.head, cost = parse_result(result)
        except ReplyShapeError as error:
            _unexpected_reply(context, state, error)
            continue
        spent += cost
        _take_count(state, counted)
    return spent


def parse_result(result: Reply) -> tuple[int, Id | None, int]:
    """Return number of entries, first id and cost from the script's result; ReplyShapeError if odd."""
    match result:
        case [int(counted), None, int(cost)]:
            return counted, None, cost
        case [int(counted), bytes(head), int(cost)]:
            return counted, parse_id(head), cost
    msg = "a result is not a list of number, id and cost"
    raise ReplyShapeError(msg)


def _take_count(state: GroupState, counted: int) -> None:
    """Take the number of undelivered entries; a negative number is a lower bound."""
    if counted >= 0:
        state.lag, state.exact = counted, True
    elif not state.exact and state.lag is not None and state.lag < -counted:
        state.lag = None  # the server's own number is wrong


def _page_command(state: GroupState, count: int) -> Command:
    # Not with an exclusive id, which Redis before 6.2 does not know.
    milliseconds, sequence = state.group.last_delivered
    first = (milliseconds, sequence + 1) if sequence < _LAST_SEQUENCE else (milliseconds + 1, 0)
    return ("XRANGE", state.name, spell_id(first), _newest(state), "COUNT", count)


def _newest(state: GroupState) -> str:
    """Return the id of the stream's last entry at the time when its state was read."""
    return spell_id(state.stream.last) if state.stream.last else "+"


def _take_page(context: StreamContext, state: GroupState, reply: Reply, count: int) -> int:
    """Take a page of at most `count` entries.

    Return the size of the first entry in bytes if more entries may follow the page, else 0.
    """
    if isinstance(reply, ReplyError):
        context.refused("xrange", reply)
        return 0
    try:
        head, size = parse_first(reply)
    except ReplyShapeError as error:
        _unexpected_reply(context, state, error)
        return 0
    state.head = head or state.head
    _take_count(state, len(reply) if len(reply) < count else -len(reply))
    return size if len(reply) == count else 0


def parse_first(reply: Reply) -> tuple[Id | None, int]:
    """Return id and size in bytes (at least 1) of the first entry of an XRANGE reply.

    (None, 0) if there are no entries; ReplyShapeError if the reply is odd.
    """
    match reply:
        case []:
            return None, 0
        case [[bytes(entry), [*words]], *_] if all(type(word) is bytes for word in words):
            return parse_id(entry), sum(map(len, words)) or 1
    msg = "an entry is not a list of id and fields"
    raise ReplyShapeError(msg)


def _unexpected_reply(context: StreamContext, state: GroupState, error: ReplyShapeError) -> None:
    context.scrape_context.unexpected_reply(f"entries of stream {state.labels.own[1]!r}", error)
