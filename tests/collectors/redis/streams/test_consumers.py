from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.command_support import CommandSupport
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.client.errors import ReplyShapeError
from bts_collectors.redis.streams import consumers
from bts_collectors.redis.streams.consumers import Consumer, parse, read
from bts_collectors.redis.streams.context import StreamContext
from bts_collectors.redis.streams.groups import GroupState, Labels
from bts_collectors.redis.streams.state import Group, Stream

Converse = Callable[..., None]

OWN = ("db0", "s", "g")
ASKING = [("XINFO", "CONSUMERS", b"s", b"g")]
#: Two that hold entries, one of them for ten minutes, and one that left without a trace long ago.
REPLY = [
    [b"name", b"a", b"pending", 3, b"idle", 600_000, b"inactive", 700_000],
    [b"name", b"b", b"pending", 1, b"idle", 20, b"inactive", 20],
    [b"name", b"idle", b"pending", 0, b"idle", 7_200_000, b"inactive", -1],
]


@pytest.fixture
def context(scrape_context: ScrapeContext) -> StreamContext:
    """Return the context of a scrape in which nothing was refused yet."""
    return StreamContext(scrape_context, CommandSupport())


def group_state(count: int, pending: int = 4) -> GroupState:
    """Return a group with `count` consumers."""
    group = Group(b"g", consumers=count, pending=pending, last_delivered=(4, 1))
    return GroupState(b"s", Stream(length=9), group, Labels.of(*OWN))


def test_consumers_are_found_by_the_fields_names() -> None:
    """Fields are recognized by name, whatever a server adds; a consumer may have the name of a field."""
    reply: list[list[Any]] = [[b"idle", 20, b"new", 1, b"name", b"pending", b"pending", 4]]

    assert parse(reply) == [Consumer(b"pending", 4, 20)]
    assert [consumer.name for consumer in parse(REPLY)] == [b"a", b"b", b"idle"]


def test_stale_consumers_hold_entries(context: StreamContext, converse: Converse) -> None:
    """Only consumers with pending entries count: the others may have nothing to do."""
    converse(read(context, [group_state(3)], 300, each=False), (ASKING, [REPLY]))

    assert context.scrape_context.scrape.samples == {
        consumers.STALE: {OWN: 1},
        consumers.MAX_IDLE: {OWN: 600},
    }


@pytest.mark.parametrize(("stale_after", "stale"), [(300, {}), (601, {consumers.STALE: {OWN: 0}})])
def test_before_7_2_stale_consumers_are_unknown(
    context: StreamContext, converse: Converse, stale_after: float, stale: dict[object, object]
) -> None:
    """Without `inactive`, idle also grows while a consumer polls: only `no stale consumers` is certain."""
    old = [each[:6] for each in REPLY]
    converse(read(context, [group_state(3)], stale_after, each=False), (ASKING, [old]))

    assert context.scrape_context.scrape.samples == stale


def test_how_long_is_stale(context: StreamContext, converse: Converse) -> None:
    """A consumer is stale after the idle time in the settings."""
    converse(read(context, [group_state(3)], 601, each=False), (ASKING, [REPLY]))

    assert context.scrape_context.scrape.samples[consumers.STALE] == {OWN: 0}


def test_each_consumer(context: StreamContext, converse: Converse) -> None:
    """With each=True every consumer has its own series."""
    converse(read(context, [group_state(3)], 300, each=True), (ASKING, [REPLY]))

    assert context.scrape_context.scrape.samples[consumers.PENDING] == {
        (*OWN, "a"): 3,
        (*OWN, "b"): 1,
        (*OWN, "idle"): 0,
    }
    assert context.scrape_context.scrape.samples[consumers.IDLE][*OWN, "a"] == 600


@pytest.mark.parametrize(("count", "each"), [(0, True), (3, False)])
def test_consumers_of_a_group_without_pending_entries(
    context: StreamContext, converse: Converse, count: int, each: bool
) -> None:
    """Without pending entries there are no stale consumers."""
    converse(read(context, [group_state(count, pending=0)], 300, each=each), ([], []))

    assert context.scrape_context.scrape.samples == {
        consumers.STALE: {OWN: 0},
        consumers.MAX_IDLE: {OWN: 0},
    }


def test_too_many_consumers_are_not_read(context: StreamContext, converse: Converse) -> None:
    """The consumers of a group with too many of them are not read."""
    converse(read(context, [group_state(100_000)], 300, each=True), ([], []))

    assert context.scrape_context.scrape.samples == {}


def test_a_denied_command_is_not_sent_again(context: StreamContext, converse: Converse) -> None:
    """A missing permission is not an error, and the command is not sent again."""
    denied = ReplyError("NOPERM this user has no permissions")
    converse(read(context, [group_state(3)], 300, each=False), (ASKING, [denied]))
    converse(read(context, [group_state(3)], 300, each=False))

    assert context.scrape_context.scrape.losses == []
    assert context.scrape_context.scrape.samples == {}


@pytest.mark.parametrize(
    "odd",
    [
        None,
        b"x",
        [7],
        [[[]]],
        [[b"name", b"c", b"pending", b"1", b"idle", 5]],
        [[b"name", b"c", b"pending", 1]],
        [[b"pending", 1, b"idle", 5]],
        [[b"name", b"c", b"pending", 1, b"idle", 5, b"inactive", b"5"]],
    ],
)
def test_odd_consumers_are_an_error(odd: object) -> None:
    """A number that is missing or no number is reported."""
    with pytest.raises(ReplyShapeError):
        parse(odd)
