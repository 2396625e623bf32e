from __future__ import annotations

from collections.abc import Callable

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.command_support import CommandSupport
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.streams import pending
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.groups import GroupState, Labels
from bts_collectors.redis.streams.pending import read
from bts_collectors.redis.streams.state import Group, Stream
from bts_exporter import backlog

Converse = Callable[..., None]

NEW_YEAR = 1_767_225_600_000
OWN = ("db0", "s", "g")
COMMON = ("redis", "s", "g")
ASKING = [("XPENDING", b"s", b"g", "-", "+", 1)]


@pytest.fixture
def context(scrape_context: ScrapeContext) -> StreamContext:
    """Return the context of a scrape in which nothing was refused yet."""
    return StreamContext(scrape_context, CommandSupport())


def group_state(count: int) -> GroupState:
    """Return a group with `count` pending entries."""
    group = Group(b"g", consumers=1, pending=count, last_delivered=(4, 1))
    return GroupState(b"s", Stream(length=9), group, Labels.of(*OWN))


def test_the_oldest_pending_entry(context: StreamContext, converse: Converse) -> None:
    """Its age is by its id, not by when it was delivered last."""
    oldest = [b"%d-0" % (NEW_YEAR - 5000), b"c", 10, 7]
    converse(read(context, [group_state(2)]), (ASKING, [[oldest]]))

    samples = context.scrape_context.scrape.samples
    assert samples[pending.AGE] == {OWN: 5}
    assert samples[pending.DELIVERIES] == {OWN: 7}


def test_an_id_set_by_hand_has_deliveries_but_no_age(
    context: StreamContext, converse: Converse
) -> None:
    """If the id is not a plausible time, the deliveries are still known."""
    converse(read(context, [group_state(2)]), (ASKING, [[[b"1-1", b"c", 10, 7]]]))

    samples = context.scrape_context.scrape.samples
    assert samples[pending.DELIVERIES] == {OWN: 7}
    assert pending.AGE not in samples


@pytest.mark.parametrize(
    ("count", "rounds"), [(0, ([], [])), (1, (ASKING, [[]]))], ids=["known", "meanwhile"]
)
def test_nothing_pending(
    context: StreamContext, converse: Converse, count: int, rounds: tuple[object, object]
) -> None:
    """Zeros where all is acknowledged, be it since a moment ago."""
    converse(read(context, [group_state(count)]), rounds)

    assert context.scrape_context.scrape.samples == {
        pending.AGE: {OWN: 0},
        pending.DELIVERIES: {OWN: 0},
        backlog.IN_FLIGHT_OLDEST: {COMMON: 0},
    }


@pytest.mark.parametrize(
    ("count", "deliveries", "method"),
    [(2, 1, "delivery_time"), (2, 3, "lower_bound"), (1, 3, "delivery_time")],
)
def test_the_time_since_the_delivery(
    context: StreamContext, converse: Converse, count: int, deliveries: int, method: str
) -> None:
    """It is the idle time; if the entry was delivered again, another one may be with its consumer for longer."""
    converse(read(context, [group_state(count)]), (ASKING, [[[b"1-1", b"c", 2500, deliveries]]]))

    samples = context.scrape_context.scrape.samples
    assert samples[backlog.IN_FLIGHT_OLDEST] == {COMMON: 2.5}
    assert samples[backlog.IN_FLIGHT_METHOD] == {(*COMMON, method): 1}


def test_an_entry_delivered_at_this_moment_is_in_flight(
    context: StreamContext, converse: Converse
) -> None:
    """Its age is not 0, which would mean that no entry is pending."""
    converse(read(context, [group_state(1)]), (ASKING, [[[b"1-1", b"c", 0, 1]]]))

    assert context.scrape_context.scrape.samples[backlog.IN_FLIGHT_OLDEST] == {COMMON: 0.001}


def test_a_denied_command_is_not_sent_again(context: StreamContext, converse: Converse) -> None:
    """A missing permission is not an error, and the command is not sent again."""
    denied = ReplyError("NOPERM this user has no permissions")
    converse(read(context, [group_state(2)]), (ASKING, [denied]))
    converse(read(context, [group_state(2)]))

    assert context.scrape_context.scrape.losses == []
    assert context.scrape_context.scrape.samples == {}


def test_a_server_that_is_not_ready(context: StreamContext, converse: Converse) -> None:
    """Any other refusal is an error with its reason, and the command is sent again."""
    converse(read(context, [group_state(2)]), (ASKING, [ReplyError("LOADING Redis is loading")]))

    assert [reason for reason, _ in context.scrape_context.scrape.losses] == ["loading"]
    assert context.command_support.expects("xpending")


@pytest.mark.parametrize(
    "odd", [None, 7, b"x", [7], [[b"1-0", b"c", 5]], [[7, b"c", 5, 1]], [[b"x", b"c", 5, 1]]]
)
def test_an_odd_reply_costs_one_group(
    context: StreamContext, converse: Converse, odd: object
) -> None:
    """A reply of another shape is reported, and the other groups are emitted."""
    converse(read(context, [group_state(3), group_state(0)]), (ASKING, [odd]))

    assert [reason for reason, _ in context.scrape_context.scrape.losses] == ["protocol"]
    assert "unexpected reply about pending entries" in str(context.scrape_context.scrape.losses[0])
    assert context.scrape_context.scrape.samples[pending.AGE] == {OWN: 0}
