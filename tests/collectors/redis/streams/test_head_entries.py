from __future__ import annotations

from collections.abc import Callable

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.command_support import CommandSupport
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.client.errors import ReplyShapeError
from bts_collectors.redis.streams import head_entries
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.groups import GroupState, Labels
from bts_collectors.redis.streams.head_entries import (
    by_script,
    entries_command,
    parse_first,
    parse_result,
    plainly,
)
from bts_collectors.redis.streams.history import RECOUNT_SECONDS
from bts_collectors.redis.streams.lag import MOST_COUNTED
from bts_collectors.redis.streams.state import Group, Stream

Converse = Callable[..., None]

SCRIPT = ("EVAL_RO",)
NOPERM = ReplyError("NOPERM this user has no permissions to run the 'xrange' command")


@pytest.fixture
def context(scrape_context: ScrapeContext) -> StreamContext:
    """Return the context of a scrape in which nothing was refused yet."""
    return StreamContext(scrape_context, CommandSupport())


def group_state(*, lag: int | None = None, exact: bool = False) -> GroupState:
    """Return a group that was delivered 4-1 of a stream."""
    group = Group(b"g", consumers=0, pending=0, last_delivered=(4, 1))
    return GroupState(
        b"s", Stream(length=9, last=(20, 0)), group, Labels.of("db0", "s", "g"), lag, exact
    )


def test_question_about_entries() -> None:
    """The script gets the streams as keys, the limits, and for each group its position, the last entry, and whether to count."""
    command, _, count, *arguments = entries_command(
        [group_state(), group_state(lag=5, exact=True)], most=7, budget=8
    )

    assert (command, count) == ("EVAL_RO", 2)
    assert arguments == [b"s", b"s", 7, 8, "4-1", "20-0", 1, "4-1", "20-0", 0]


def test_the_first_entry_of_a_known_lag(context: StreamContext, converse: Converse) -> None:
    """If the lag is known, only the first entry is read."""
    state = group_state(lag=5, exact=True)
    converse(by_script(context, [state]), ([SCRIPT], [[[-1, b"6-0", 1]]]))

    assert (state.lag, state.exact, state.head) == (5, True, (6, 0))


def test_a_short_count(context: StreamContext, converse: Converse) -> None:
    """A lag that the short count finds needs no long count."""
    state = group_state(lag=7)
    converse(by_script(context, [state]), ([SCRIPT], [[[5, b"6-0", 6]]]))

    assert (state.lag, state.exact) == (5, True)


def test_nothing_ahead_any_more(context: StreamContext, converse: Converse) -> None:
    """A group whose undelivered entries are gone has a lag of 0."""
    state = group_state(lag=7)
    converse(by_script(context, [state]), ([SCRIPT], [[[0, None, 0]]]))

    assert (state.lag, state.exact, state.head) == (0, True, None)


def test_long_counts_go_out_one_at_a_time(context: StreamContext, converse: Converse) -> None:
    """Long counts take one round trip for each group: other clients are served in between."""
    far = [group_state(), group_state(), group_state()]
    unknown = [-1, b"6-0", 500]
    converse(
        by_script(context, far),
        ([SCRIPT], [[unknown] * 3]),
        ([SCRIPT], [[[900, b"6-0", 900]]]),
        ([SCRIPT], [[[-1, b"6-0", 5000]]]),
        ([SCRIPT], [[[901, b"6-0", 901]]]),
    )

    assert [(state.lag, state.exact) for state in far] == [(900, True), (None, False), (901, True)]


def test_the_servers_lag_above_the_counted_entries_stays(
    context: StreamContext, converse: Converse
) -> None:
    """The server's own figure stays, uncertain, where there are more entries than are counted."""
    state = group_state(lag=MOST_COUNTED + 1)
    far = ([SCRIPT], [[[-1001, b"6-0", 500]]])
    converse(by_script(context, [state]), far, far)

    assert (state.lag, state.exact, state.head) == (MOST_COUNTED + 1, False, (6, 0))


def test_the_servers_lag_below_the_counted_entries_is_dropped(
    context: StreamContext, converse: Converse
) -> None:
    """The server's own figure is dropped where more entries were counted already."""
    state = group_state(lag=7)
    far = ([SCRIPT], [[[-1001, b"6-0", 500]]])
    converse(by_script(context, [state]), far, far)

    assert (state.lag, state.exact, state.head) == (None, False, (6, 0))


def test_a_failed_count_is_repeated_after_a_minute(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A long count without a result is tried again after a minute, not in the next scrape."""
    now = 0.0
    context = StreamContext(scrape_context, CommandSupport(), ticks=lambda: now)
    state = group_state()
    far = ([SCRIPT], [[[-1001, b"6-0", 500]]])
    converse(by_script(context, [state]), far, far)
    now = RECOUNT_SECONDS - 1
    converse(by_script(context, [state]), far)
    now = RECOUNT_SECONDS
    converse(by_script(context, [state]), far, far)


def test_the_budget_of_a_collection(context: StreamContext, converse: Converse) -> None:
    """Once the budget for long counts is used, the lag of the other groups stays unknown."""
    context.budget = 1000
    far = [group_state() for _ in range(5)]
    unknown = [-1, b"6-0", 500]
    converse(
        by_script(context, far),
        ([SCRIPT], [[unknown] * 5]),
        ([SCRIPT], [[[900, b"6-0", 900]]]),
        ([SCRIPT], [[[800, b"6-0", 800]]]),
    )

    assert [state.lag for state in far] == [900, 800, None, None, None]


def test_entries_that_may_not_be_read(context: StreamContext, converse: Converse) -> None:
    """A denied XRANGE is not an error, and is not sent again."""
    converse(by_script(context, [group_state()]), ([SCRIPT], [[NOPERM]]))
    converse(by_script(context, [group_state()]))
    converse(plainly(context, [group_state()]))

    assert not context.command_support.expects("xrange")
    assert context.scrape_context.scrape.losses == []


def test_a_script_that_fails(context: StreamContext, converse: Converse) -> None:
    """A busy server is a loss with its reason."""
    converse(by_script(context, [group_state()]), ([SCRIPT], [ReplyError("BUSY Redis is busy")]))

    assert [reason for reason, _ in context.scrape_context.scrape.losses] == ["loading"]


def page(count: int) -> tuple[str | bytes | int, ...]:
    """Return the command for the next entries of the group."""
    return ("XRANGE", b"s", "4-2", "20-0", "COUNT", count)


def entries(count: int, size: int = 10) -> list[list[object]]:
    """Return a reply of XRANGE with payloads of `size` bytes."""
    return [[b"%d-0" % (5 + number), [b"", b"x" * size]] for number in range(count)]


def test_without_scripts_a_page_is_counted(context: StreamContext, converse: Converse) -> None:
    """The first entry decides how many entries of its size fit into a page."""
    state = group_state()
    converse(plainly(context, [state]), ([page(1)], [entries(1)]), ([page(1001)], [entries(99)]))

    assert (state.lag, state.exact, state.head) == (99, True, (5, 0))


def test_without_scripts_a_full_page_is_a_lower_bound(
    context: StreamContext, converse: Converse
) -> None:
    """If there is more than a page, the lag in seconds is known, and the lag in messages is not."""
    state = group_state()
    converse(plainly(context, [state]), ([page(1)], [entries(1)]), ([page(1001)], [entries(1001)]))

    assert (state.lag, state.exact, state.head) == (None, False, (5, 0))


def test_without_scripts_large_entries_make_small_pages(
    context: StreamContext, converse: Converse
) -> None:
    """The larger the first entry is, the fewer entries are fetched."""
    state = group_state()
    large = entries(1, 20_000)
    converse(plainly(context, [state]), ([page(1)], [large]), ([page(3)], [entries(2, 20_000)]))

    assert (state.lag, state.exact) == (2, True)


def test_without_scripts_a_known_lag_needs_one_entry(
    context: StreamContext, converse: Converse
) -> None:
    """If the lag is known, one entry gives the seconds; without entries the lag is 0."""
    known, gone = group_state(lag=5, exact=True), group_state(lag=5, exact=True)
    converse(plainly(context, [known, gone]), ([page(1)] * 2, [entries(1), []]))

    assert (known.lag, known.head) == (5, (5, 0))
    assert (gone.lag, gone.exact) == (0, True)


def test_pages_go_out_few_at_a_time(context: StreamContext, converse: Converse) -> None:
    """At most five pages of payloads are transferred at once."""
    groups = [group_state() for _ in range(head_entries.BATCH + 1)]
    converse(
        plainly(context, groups),
        ([page(1)] * 20, [entries(1)] * 20),
        ([page(1)], [[]]),
        *[([page(1001)] * 5, [entries(7)] * 5)] * 4,
    )

    assert [state.lag for state in groups] == [7] * 20 + [0]


@pytest.mark.parametrize(
    "odd", [None, 7, [], [1, b"1-0"], [b"1", b"1-0", 1], [1, 7, 1], [1, b"x", 1]]
)
def test_an_odd_result_of_the_script_is_an_error(odd: object) -> None:
    """A result of another shape is reported."""
    with pytest.raises(ReplyShapeError):
        parse_result(odd)


@pytest.mark.parametrize(
    "odd", [None, 7, b"x", [7], [[b"1-0"]], [[b"1-0", [7]]], [[7, []]], [[b"x", []]]]
)
def test_an_odd_page_is_an_error(odd: object) -> None:
    """A page of another shape is reported."""
    with pytest.raises(ReplyShapeError):
        parse_first(odd)


@pytest.mark.parametrize("odd", [None, 7, [], [[0, None, 0]] * 2])
def test_an_odd_reply_of_the_script_is_reported(
    context: StreamContext, converse: Converse, odd: object
) -> None:
    """The lag stays unknown, and the scrape goes on."""
    state = group_state()

    converse(by_script(context, [state]), ([SCRIPT], [odd]))

    assert (state.lag, state.exact) != (0, True)
    assert [reason for reason, _ in context.scrape_context.scrape.losses] == ["protocol"]
