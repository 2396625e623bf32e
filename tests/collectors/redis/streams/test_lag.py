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
    """Nothing is left to deliver when all is deleted, whatever the server counts."""
    stream = Stream(length=0, last_generated=(10, 0), max_deleted=(10, 0), entries_added=10)

    assert judge(stream, group((4, 0), lag=6)) == Verdict(0, exact=True)


def test_a_group_at_the_end_has_no_lag() -> None:
    """A group that was delivered the last entry is up to date, even where the server does not know."""
    assert judge(TEN, group((10, 0))) == Verdict(0, exact=True)


def test_a_group_before_the_first_entry_lags_by_the_whole_stream() -> None:
    """A stream trimmed past the group has just what is left, and the first entry is the oldest."""
    trimmed = Stream(length=3, first=(8, 0), last=(10, 0), max_deleted=(0, 0), entries_added=10)

    assert judge(trimmed, group((4, 0), lag=6)) == Verdict(3, exact=True, head=(8, 0))


def test_a_group_at_the_first_entry_lags_by_all_others() -> None:
    """A group that was delivered the first entry that is left waits for all but that."""
    assert judge(TEN, group((1, 0), lag=2)) == Verdict(9, exact=True)


def test_the_servers_figure_is_not_certain() -> None:
    """Amid the stream only counting proves the lag: a client may have set what the server counts."""
    assert judge(TEN, group((4, 0), lag=6)) == Verdict(6, exact=False)


@pytest.mark.parametrize(
    ("max_deleted", "lag"),
    [((7, 0), None), ((2, 0), 5), (None, None)],
    ids=["ahead", "behind", "unknown-6.2"],
)
def test_deletions(max_deleted: Id | None, lag: int | None) -> None:
    """After a deletion ahead of the group the server's figure is too large, and so it is not told."""
    stream = Stream(length=9, first=(1, 0), last=(10, 0), max_deleted=max_deleted, entries_added=10)

    assert judge(stream, group((4, 0), lag=5)) == Verdict(lag, exact=False)


@pytest.mark.parametrize("lag", [None, 0, -3, 10, 11])
def test_an_impossible_figure_is_not_believed(lag: int | None) -> None:
    """Amid the stream a lag of nil, 0 or the stream's whole length cannot be."""
    assert judge(TEN, group((4, 0), lag=lag)) == Verdict(None, exact=False)


def test_a_stream_without_entries_ids_is_unknown() -> None:
    """Where a server does not tell the first and the last entry, a lag of 0 is not made up."""
    assert judge(Stream(length=9), group((4, 0), lag=5)) == Verdict(None, exact=False)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.none() | st.integers(-1, 30))
def test_no_false_zero(first: int, length: int, delivered: int, lag: int | None) -> None:
    """Whatever the server says, 0 is told only when no entry is behind the last one delivered."""
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
    """A producer's clock that is a little ahead makes no negative age."""
    assert age_seconds((NOW + 40, 0), NOW) == 0


@pytest.mark.parametrize("milliseconds", [1, 978_307_199_999, NOW + 1001])
def test_ids_that_cannot_be_right_have_no_age(milliseconds: int) -> None:
    """An id before 2001 or in the future is no time."""
    assert age_seconds((milliseconds, 1), NOW) is None


def test_no_age_without_the_servers_clock() -> None:
    """Where the server does not tell its time nothing is guessed from ours."""
    assert age_seconds((NOW, 0), None) is None
