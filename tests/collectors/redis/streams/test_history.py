from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest

from bts_collectors.redis.streams.groups import GroupState, Labels
from bts_collectors.redis.streams.history import RECOUNT_SECONDS, Flow, History, Settings
from bts_collectors.redis.streams.lag import judge
from bts_collectors.redis.streams.state import Group, Stream

NEVER = Settings(added=0, any=0)


def group_state(
    ids: Sequence[int],
    delivered: int,
    *,
    added: int,
    read: int | None,
    deleted: int = 0,
    settings: Settings = NEVER,
    counted: bool = True,
) -> GroupState:
    """Return a group that was delivered entry `delivered` of a stream that holds `ids`."""
    stream = Stream(
        length=len(ids),
        last_generated=(added, 0),
        max_deleted=(deleted, 0),
        entries_added=added,
        first=(ids[0], 0) if ids else None,
        last=(ids[-1], 0) if ids else None,
    )
    lag = None if read is None else added - read
    group = Group(b"g", 0, 0, (delivered, 0), entries_read=read, lag=lag)
    state = GroupState(b"s", stream, group, Labels.of("db0", "s", "g"), settings=settings)
    state.lag, state.exact, state.head = judge(stream, group)
    if not state.exact and counted:
        state.lag, state.exact = sum(entry > delivered for entry in ids), True
    return state


def flows(*states: GroupState) -> list[tuple[int | None, int | None]]:
    """Return consumed and lost entries of each scrape."""
    history = History()
    taken = [history.take(state, float(place)) for place, state in enumerate(states)]
    return [(flow.consumed, flow.lost) for flow in taken]


def test_a_stream_from_which_nothing_went() -> None:
    """If no entry was ever removed, the number of entries proves the server's counter."""
    assert flows(group_state(range(1, 11), 4, added=10, read=4)) == [(4, 0)]


@pytest.mark.parametrize("read", [3, 9, None])
def test_a_counter_that_a_client_set(read: int | None) -> None:
    """A counter that contradicts the entries is not emitted."""
    assert flows(group_state(range(1, 11), 4, added=10, read=read)) == [(None, 0)]


def test_a_trimmed_stream_at_the_first_look() -> None:
    """Whether entries removed before the first scrape were delivered is unknown."""
    assert flows(group_state(range(1991, 2001), 1991, added=2000, read=1991)) == [(None, None)]


def test_deliveries_after_the_first_scrape() -> None:
    """From the second scrape on, deliveries count, unless a trim has overtaken the group."""
    assert flows(
        group_state(range(1001, 2001), 1990, added=2000, read=1990),
        group_state(range(1011, 2011), 2000, added=2010, read=2000),
        group_state(range(1021, 2021), 2020, added=2020, read=2020),
    ) == [(None, None), (10, 0), (30, 0)]


@pytest.mark.parametrize("read", [5, 8], ids=["counted", "estimated"])
def test_a_trim_past_the_group(read: int) -> None:
    """Removed entries are lost until the next delivery, and only delivered entries are consumed."""
    assert flows(
        group_state(range(1, 11), 4, added=10, read=4),
        group_state(range(8, 11), 4, added=10, read=4),
        group_state(range(8, 11), 8, added=10, read=read),
        group_state(range(8, 11), 10, added=10, read=read + 2),
    ) == [(4, 0), (4, 3), (5, 0), (7, 0)]


def test_a_trim_past_the_group_that_went_on_unseen() -> None:
    """An interval in which entries may have been lost has no value; counting starts again afterwards."""
    assert flows(
        group_state(range(1, 11), 4, added=10, read=4),
        group_state(range(18, 21), 18, added=20, read=18),
        group_state(range(18, 21), 18, added=20, read=18),
        group_state(range(18, 22), 20, added=21, read=20),
    ) == [(4, 0), (None, None), (None, 0), (2, 0)]


def test_all_entries_are_replaced_without_losses() -> None:
    """If a stream has all entries added since the last scrape, none was lost, whatever was trimmed before."""
    assert flows(
        group_state(range(1, 11), 10, added=10, read=10),
        group_state(range(11, 21), 15, added=20, read=15),
    ) == [(10, 0), (15, 0)]


def test_a_deletion_ahead_of_the_group() -> None:
    """After entries ahead of the group were deleted, deliveries are unknown."""
    assert flows(
        group_state(range(1, 11), 4, added=10, read=4),
        group_state(range(1, 10), 6, added=10, read=6, deleted=10),
    ) == [(4, 0), (None, None)]


def test_a_client_has_set_a_counter() -> None:
    """After XSETID the added entries are unknown, and so are the delivered and the lost ones."""
    then = Settings(added=1, any=1)
    assert flows(
        group_state(range(1, 11), 4, added=10, read=4),
        group_state(range(1, 11), 6, added=17, read=6, settings=then),
        group_state(range(1, 11), 7, added=17, read=7, settings=then),
    ) == [(4, 0), (None, None), (1, 0)]


def test_a_lag_that_cannot_be_counted_goes_on_from_one_that_was() -> None:
    """Between two scrapes the server's counters are used, unless a client may have set them."""
    history = History()
    history.take(group_state(range(1, 6001), 3000, added=6000, read=3000), 0)

    far = group_state(range(11, 6101), 3050, added=6100, read=3050, counted=False)
    history.conclude(far)
    assert (far.lag, far.exact) == (3050, True)

    put = group_state(
        range(11, 6101), 3050, added=6100, read=3050, counted=False, settings=Settings(0, 1)
    )
    history.conclude(put)
    assert not put.exact

    overtaken = group_state(range(3010, 6101), 3050, added=6100, read=3050, counted=False)
    history.conclude(overtaken)
    assert not overtaken.exact


def test_a_backlog_that_grows_fast_from_the_start() -> None:
    """If no entry was ever removed, a lag that is too long to count is exact."""
    history = History()
    history.take(group_state(range(1, 1), 0, added=0, read=0), 0)

    far = group_state(range(1, 9001), 4000, added=9000, read=4000, counted=False)
    history.conclude(far)
    assert (far.lag, far.exact) == (5000, True)
    assert history.take(far, 15)[:2] == (4000, 0)


def test_a_counter_that_was_off_is_not_gone_by() -> None:
    """Where the server's counter did not agree with the entries, it may jump when it is estimated again."""
    history = History()
    history.take(group_state(range(8, 6008), 3000, added=6007, read=2990), 0)

    far = group_state(range(8, 6108), 3050, added=6107, read=3050, counted=False)
    history.conclude(far)
    assert not far.exact
    assert history.take(far, 15)[:2] == (None, None)


def test_the_rate_of_an_uncertain_lag() -> None:
    """The drain time of a lag that the server reports comes from the server's counter, too."""
    history = History()
    for now, place in ((0.0, 3000), (30.0, 3300)):
        state = group_state(range(8, 6008), place, added=6007, read=place, counted=False)
        flow = history.take(state, now)

    assert flow == (None, None, 270.7, 0)


def test_nothing_has_happened() -> None:
    """The lag of a group is reused as long as stream and group do not change."""
    history = History()
    history.take(group_state(range(1, 11), 4, added=10, read=4), 0)
    same = group_state(range(1, 11), 4, added=10, read=4, counted=False)
    history.recall(same)
    assert (same.lag, same.exact) == (6, True)

    more = group_state(range(1, 12), 4, added=11, read=4, counted=False)
    history.recall(more)
    assert not more.exact


def test_time_until_the_backlog_is_gone() -> None:
    """The drain time is the lag divided by the rate of the last half minute, and infinite without deliveries."""
    history = History()
    looks = [
        history.take(group_state(range(1, 101), place, added=100, read=place), now)
        for place, now in ((1, 0.0), (16, 15.0), (31, 30.0), (100, 45.0))
    ]
    assert [look.drain for look in looks] == [None, None, 69.0, 0]

    stuck = History()
    assert stuck.take(group_state(range(1, 101), 1, added=100, read=1), 0) == Flow(1, 0, None, 0)
    assert stuck.take(group_state(range(1, 101), 1, added=100, read=1), 30) == Flow(1, 0, inf, 0)


#: Entry 4 of the stream was deleted after it was delivered to the group.
FOUR_DELETED = [3, 5, 6, 7, 8, 9, 10]


def test_an_entry_deleted_at_the_position_of_the_group() -> None:
    """After the last delivered entry was deleted, entries that are trimmed still count as lost."""
    whole = group_state(FOUR_DELETED, 4, added=10, read=4, deleted=4)
    trimmed = group_state(range(7, 11), 4, added=10, read=4, deleted=4)

    assert [lost for _, lost in flows(whole, trimmed, trimmed)] == [None, 2, 2]


def test_a_deletion_as_far_as_the_first_entry() -> None:
    """Losses are unknown if the latest deletion is not before the first entry."""
    whole = group_state(FOUR_DELETED, 4, added=10, read=4, deleted=4)
    odd = group_state(range(7, 11), 4, added=10, read=4, deleted=7)

    assert [lost for _, lost in flows(whole, odd)] == [None, None]


def test_losses_of_a_group_that_begins_before_the_first_entry() -> None:
    """A new group at 0 has lost nothing in a whole stream; for a later position it is unknown."""
    assert flows(group_state(range(5, 11), 0, added=6, read=None))[0][1] == 0
    assert flows(group_state(range(5, 11), 2, added=6, read=None))[0][1] is None


def test_the_first_deliveries_of_a_new_group() -> None:
    """A group at 0 has no counter yet: it has read 0 entries."""
    new = group_state(range(1, 11), 0, added=10, read=None)

    assert flows(new, group_state(range(1, 11), 4, added=10, read=4)) == [(0, 0), (4, 0)]


def test_a_group_that_moved_without_deliveries() -> None:
    """If a position moved and nothing was delivered, the numbers contradict each other."""
    before = group_state(range(1, 11), 4, added=10, read=4)
    moved = group_state(range(1, 12), 5, added=10, read=4)

    assert flows(before, moved) == [(4, 0), (None, None)]


def conclusion(after: GroupState) -> tuple[int | None, bool]:
    """Return the lag, and whether it is exact, of a group with a lag of 6 at position 4 before."""
    history = History()
    history.take(group_state(range(1, 11), 4, added=10, read=4), 0.0)
    history.conclude(after)
    return after.lag, after.exact


def test_a_lag_by_the_counters() -> None:
    """Entries that cannot be counted are the previous ones and the added ones, less the delivered."""
    still = group_state(range(1, 13), 4, added=12, read=4, counted=False)
    moved = group_state(range(1, 13), 5, added=12, read=5, counted=False)

    assert conclusion(still) == (8, True)
    assert conclusion(moved) == (7, True)


@pytest.mark.parametrize(
    "after",
    [
        group_state(range(1, 11), 4, added=10, read=5, counted=False),
        group_state(range(1, 11), 5, added=10, read=4, counted=False),
        group_state(range(1, 11), 8, added=10, read=10, counted=False),
        group_state([4, 7, 8, 9, 10], 7, added=10, read=5, counted=False),
    ],
    ids=["read-without-moving", "moved-without-reading", "lag-0", "lag-of-the-whole-stream"],
)
def test_counters_that_contradict_the_position(after: GroupState) -> None:
    """Inside the stream a lag of 0 or of all entries is impossible, and a counter rises with the position."""
    assert conclusion(after)[1] is False


def test_when_entries_are_counted_again() -> None:
    """After a failed count, entries are counted again when RECOUNT_SECONDS are over."""
    history = History()
    history.note_count(0.0, counted=False)

    assert history.is_uncounted(RECOUNT_SECONDS - 0.1)
    assert not history.is_uncounted(RECOUNT_SECONDS)


def lost_in_total(*states: GroupState) -> list[int | None]:
    """Return the entries lost by each scrape."""
    history = History()
    return [history.take(state, float(n)).lost_in_total for n, state in enumerate(states)]


def test_trims_that_overtake_a_group_add_up() -> None:
    """Each trimmed entry counts once, also after the group has read on."""
    assert lost_in_total(
        group_state(range(1, 11), 4, added=10, read=4),
        group_state(range(8, 14), 4, added=13, read=4),  # 5 to 7
        group_state(range(8, 14), 4, added=13, read=4),
        group_state(range(10, 16), 4, added=15, read=4),  # 8 and 9
        group_state(range(10, 16), 12, added=15, read=12),
        group_state(range(14, 18), 12, added=17, read=12),  # 13
    ) == [0, 3, 3, 5, 5, 6]


def test_entries_lost_while_the_group_reads_count_by_the_servers_counter() -> None:
    """Before Redis 7.2 the counter is that of deliveries: what is neither delivered nor waiting was lost."""
    assert lost_in_total(
        group_state(range(1, 11), 4, added=10, read=4),
        group_state(range(8, 14), 9, added=13, read=6),  # 5 to 7 are lost, 8 and 9 delivered
    ) == [0, 3]


def test_a_counter_that_is_a_position_says_nothing_about_lost_entries() -> None:
    """From Redis 7.2 on the counter includes entries that were lost before a delivery: none is counted."""
    assert lost_in_total(
        group_state(range(1, 11), 4, added=10, read=4),
        group_state(range(8, 14), 9, added=13, read=9),
    ) == [0, 0]


def test_what_is_not_a_trim_is_not_lost() -> None:
    """Deliveries, deleted entries, a recreated stream and counters that clients set are not losses."""
    whole = group_state(range(1, 11), 4, added=10, read=4)
    others = [
        group_state(range(1, 11), 10, added=10, read=10),
        group_state([*range(1, 5), *range(8, 11)], 4, added=10, read=4, deleted=7),
        group_state(range(1, 4), 0, added=3, read=0),
        group_state(range(1, 11), 4, added=15, read=4, settings=Settings(added=1, any=1)),
        group_state(range(8, 11), 4, added=10, read=4, counted=False),
    ]

    totals = [lost_in_total(whole, other)[1] for other in others]

    assert totals == [0, 0, 0, 0, 3]


def test_without_the_count_of_added_entries_the_losses_are_unknown() -> None:
    """Redis before 7 does not count added entries: there is no total, rather than 0."""
    stream = Stream(length=1, first=(9, 0), last=(9, 0), last_generated=(9, 0))
    state = GroupState(b"s", stream, Group(b"g", 0, 0, (4, 0)), Labels.of("db0", "s", "g"))

    assert lost_in_total(state, state) == [None, None]
