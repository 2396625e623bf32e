from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.redis.streams.lag import Verdict, age_seconds, judge
from bts_collectors.redis.streams.state import Group, Id, Stream

NOW = 1_767_225_600_000
#: Ten entries, 1-0 to 10-0, none ever deleted.
TEN = Stream(
    length=10,
    first=(1, 0),
    last=(10, 0),
    last_generated=(10, 0),
    max_deleted=(0, 0),
    entries_added=10,
)


def group(last_delivered: Id, lag: int | None = None, read: int | None = None) -> Group:
    """Return a group that has read up to `last_delivered`; `lag` and `read` are what the server says."""
    return Group(
        b"g", consumers=0, pending=0, last_delivered=last_delivered, lag=lag, entries_read=read
    )


def test_an_empty_stream_has_no_lag() -> None:
    """The lag of an empty stream is 0, whatever the server counts."""
    stream = Stream(length=0, last_generated=(10, 0), max_deleted=(10, 0), entries_added=10)

    assert judge(stream, group((4, 0), lag=6)) == Verdict(0, exact=True)


def test_a_group_at_the_end_has_no_lag() -> None:
    """A group that was delivered the last entry is up to date, even where the server does not know."""
    assert judge(TEN, group((10, 0))) == Verdict(0, exact=True)


def test_a_group_before_the_first_entry_lags_by_the_whole_stream() -> None:
    """If a stream was trimmed past the group, the lag is its length, and its first entry is the next one."""
    trimmed = Stream(length=3, first=(8, 0), last=(10, 0), max_deleted=(0, 0), entries_added=10)

    assert judge(trimmed, group((4, 0), lag=6)) == Verdict(3, exact=True, head=(8, 0))


def test_a_group_at_the_first_entry_lags_by_all_others() -> None:
    """The lag of a group at the first entry is one less than the length."""
    assert judge(TEN, group((1, 0), lag=2)) == Verdict(9, exact=True)


def test_the_servers_figure_is_not_certain() -> None:
    """Inside the stream only counting proves the lag: a client may have set the server's counters."""
    assert judge(TEN, group((4, 0), lag=6)) == Verdict(6, exact=False)


@pytest.mark.parametrize(
    ("max_deleted", "lag"),
    [((7, 0), None), ((4, 1), None), ((4, 0), 5), ((2, 0), 5), (None, None)],
    ids=["ahead", "next", "at-the-group", "behind", "unknown-6.2"],
)
def test_deletions(max_deleted: Id | None, lag: int | None) -> None:
    """After a deletion of an undelivered entry the server's lag is too large, and is not used."""
    stream = Stream(length=9, first=(1, 0), last=(10, 0), max_deleted=max_deleted, entries_added=10)

    assert judge(stream, group((4, 0), lag=5)) == Verdict(lag, exact=False)


@pytest.mark.parametrize("lag", [None, 0, -3, 10, 11])
def test_an_impossible_figure_is_not_believed(lag: int | None) -> None:
    """Inside the stream a lag of nil, 0 or the stream's whole length is impossible."""
    assert judge(TEN, group((4, 0), lag=lag)) == Verdict(None, exact=False)


def test_a_stream_without_entries_ids_is_unknown() -> None:
    """Without the ids of the first and the last entry the lag is unknown, not 0."""
    assert judge(Stream(length=9), group((4, 0), lag=5)) == Verdict(None, exact=False)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.none() | st.integers(-1, 30))
def test_no_false_zero(first: int, length: int, delivered: int, lag: int | None) -> None:
    """Whatever the server says, the lag is 0 only if no entry follows the last delivered one."""
    last = first + length - 1
    stream = (
        Stream(length=length, first=(first, 0), last=(last, 0), max_deleted=(0, 0))
        if length
        else Stream(length=0)
    )

    verdict = judge(stream, group((delivered, 0), lag))

    assert (verdict.lag == 0) == (length == 0 or delivered >= last)


def test_age() -> None:
    """The age of an entry is the server's time less the milliseconds of its id."""
    assert age_seconds((NOW - 1500, 3), NOW) == 1.5


def test_an_entry_slightly_ahead_is_new() -> None:
    """An id that is slightly in the future has the age 0."""
    assert age_seconds((NOW + 40, 0), NOW) == 0


@pytest.mark.parametrize("milliseconds", [1, 978_307_199_999, NOW + 1001])
def test_implausible_ids_have_no_age(milliseconds: int) -> None:
    """An id before 2001, or more than a second in the future, is not a time."""
    assert age_seconds((milliseconds, 1), NOW) is None


@pytest.mark.parametrize(("milliseconds", "age"), [(978_307_200_000, 788_918_400), (NOW + 1000, 0)])
def test_the_oldest_and_the_newest_plausible_id(milliseconds: int, age: int) -> None:
    """The first moment of 2001 and one second in the future are times."""
    assert age_seconds((milliseconds, 1), NOW) == age


def test_positions_around_the_first_entry() -> None:
    """Before the first entry the lag is the length, at the first entry one less, after it the server's."""
    stream = Stream(length=4, first=(5, 3), last=(9, 0), max_deleted=(0, 0), entries_added=4)

    assert judge(stream, group((5, 2), lag=2)) == Verdict(4, exact=True, head=(5, 3))
    assert judge(stream, group((5, 3), lag=2)) == Verdict(3, exact=True)
    assert judge(stream, group((5, 4), lag=2)) == Verdict(2, exact=False)


def test_positions_around_the_last_entry() -> None:
    """Before the last entry the lag is the server's; at the last entry and after it the lag is 0."""
    stream = Stream(length=4, first=(5, 3), last=(9, 2), max_deleted=(0, 0), entries_added=4)

    assert judge(stream, group((9, 1), lag=1)) == Verdict(1, exact=False)
    assert judge(stream, group((9, 2), lag=1)) == Verdict(0, exact=True)
    assert judge(stream, group((9, 3), lag=1)) == Verdict(0, exact=True)


@pytest.mark.parametrize("lag", [1, 9])
def test_the_least_and_the_greatest_possible_lag(lag: int) -> None:
    """Inside a stream of ten entries a lag of 1 or 9 is possible."""
    assert judge(TEN, group((4, 0), lag=lag)) == Verdict(lag, exact=False)


def test_no_age_without_the_servers_clock() -> None:
    """Without the server's clock there is no age: the exporter's clock is not used."""
    assert age_seconds((NOW, 0), None) is None
