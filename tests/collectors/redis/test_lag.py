from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.redis.lag import (
    MOST_COUNTED,
    Question,
    Verdict,
    age_seconds,
    ask_entries,
    judge,
)
from bts_collectors.redis.streamstate import Group, Id, Stream

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


def group(last_delivered: Id, lag: int | None = None) -> Group:
    """Return a group that has read up to `last_delivered`; `lag` is what the server says."""
    return Group(b"g", consumers=0, pending=0, last_delivered=last_delivered, lag=lag)


def test_an_empty_stream_has_no_lag() -> None:
    """Nothing is left to deliver when all is deleted, whatever the server counts."""
    stream = Stream(length=0, last_generated=(10, 0), max_deleted=(10, 0), entries_added=10)

    assert Verdict(0, counting=False) == judge(stream, group((4, 0), lag=6), (7, 0, 15))


def test_a_group_at_the_end_has_no_lag() -> None:
    """A group that was delivered the last entry is up to date, even where the server does not know."""
    assert Verdict(0, counting=False) == judge(TEN, group((10, 0)), (7, 2, 0))


def test_a_group_before_the_first_entry_lags_by_the_whole_stream() -> None:
    """A stream trimmed past the group has just what is left, and the first entry is the oldest."""
    trimmed = Stream(length=3, first=(8, 0), last=(10, 0), max_deleted=(0, 0), entries_added=10)

    expected = Verdict(3, counting=False, head=(8, 0))

    assert expected == judge(trimmed, group((4, 0), lag=6), (7, 2, 0))


def test_the_servers_figure_holds_where_nothing_was_deleted() -> None:
    """Without deletions the server's own lag is taken."""
    assert Verdict(6, counting=False) == judge(TEN, group((4, 0), lag=6), (7, 2, 0))


def test_version_7_0_is_recounted_where_that_is_cheap() -> None:
    """The counter of 7.0 drifts, so its figure is checked by counting within the limit."""
    far = MOST_COUNTED + 1
    long = Stream(length=2 * far, first=(1, 0), last=(2 * far, 0), max_deleted=(0, 0))

    assert Verdict(6, counting=True) == judge(TEN, group((4, 0), lag=6), (7, 0, 15))
    assert Verdict(far, counting=False) == judge(long, group((4, 0), lag=far), (7, 0, 15))


@pytest.mark.parametrize(
    ("max_deleted", "version", "counting"),
    [
        ((7, 0), (7, 2, 0), True),
        ((2, 0), (7, 2, 0), True),
        ((2, 0), (8, 2, 3), False),
        ((7, 0), (8, 2, 3), True),
        (None, (6, 2, 14), True),
    ],
    ids=["ahead", "behind", "behind-8.2", "ahead-8.2", "unknown-6.2"],
)
def test_deletions(max_deleted: Id | None, version: tuple[int, ...], counting: bool) -> None:
    """After a deletion the server's lag holds only on servers that mind no deletions behind."""
    stream = Stream(length=9, first=(1, 0), last=(10, 0), max_deleted=max_deleted)

    verdict = judge(stream, group((4, 0), lag=5), version)

    assert (None if counting else 5, counting) == verdict[:2]


@pytest.mark.parametrize("lag", [None, 0, -3, 11])
def test_an_impossible_figure_is_not_believed(lag: int | None) -> None:
    """With entries ahead of the group, a lag of nil, 0 or beyond the stream's length is counted."""
    assert Verdict(None, counting=True) == judge(TEN, group((4, 0), lag=lag), (7, 2, 0))


@given(
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(0, 30),
    st.none() | st.integers(-1, 30),
    st.sampled_from([(6, 2), (7, 0), (7, 2), (8, 2), ()]),
)
def test_no_false_zero(
    first: int, length: int, delivered: int, lag: int | None, version: tuple[int, ...]
) -> None:
    """Whatever the server says, 0 is told only when no entry is behind the last one delivered."""
    last = first + length - 1
    stream = (
        Stream(length=length, first=(first, 0), last=(last, 0), max_deleted=(0, 0))
        if length
        else Stream(length=0)
    )

    verdict = judge(stream, group((delivered, 0), lag), version)

    assert (verdict.lag == 0) == (length == 0 or delivered >= last)


def test_age() -> None:
    """The age of an entry is the server's time less the milliseconds of its id."""
    assert age_seconds((NOW - 1500, 3), NOW) == 1.5


def test_an_entry_slightly_ahead_is_new() -> None:
    """A producer's clock that is a little ahead makes no negative age."""
    assert age_seconds((NOW + 40, 0), NOW) == 0


@pytest.mark.parametrize("milliseconds", [1, 978_307_199_999, NOW + 86_400_001])
def test_ids_set_by_hand_have_no_age(milliseconds: int) -> None:
    """An id before 2001, or more than a day ahead, is no time."""
    assert age_seconds((milliseconds, 1), NOW) is None


def test_no_age_without_the_servers_clock() -> None:
    """Where the server does not tell its time nothing is guessed from ours."""
    assert age_seconds((NOW, 0), None) is None


@pytest.mark.parametrize(
    ("version", "command"), [((6, 2, 14), "EVAL"), ((7, 0, 0), "EVAL_RO"), ((), "EVAL_RO")]
)
def test_question_about_entries(version: tuple[int, ...], command: str) -> None:
    """The script gets the streams as keys, the limits, and each group's place and need."""
    questions = [Question(b"a", (4, 1), counting=True), Question(b"b", (5, 0), counting=False)]

    name, _, count, *arguments = ask_entries(questions, version)

    assert (command, 2) == (name, count)
    assert arguments[:2] == [b"a", b"b"]
    assert arguments[5:] == ["4-1", 1, "5-0", 0]
