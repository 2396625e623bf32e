from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.redis.lag import (
    Verdict,
    age_seconds,
    consumed,
    counts_right,
    judge,
    lost,
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


#: The same after the first of eleven was trimmed away.
TRIMMED = Stream(
    length=10,
    first=(1, 0),
    last=(10, 0),
    last_generated=(10, 0),
    max_deleted=(0, 0),
    entries_added=11,
)
RIGHT = (8, 2, 3)
WRONG = (7, 0, 15)


def group(last_delivered: Id, lag: int | None = None, read: int | None = None) -> Group:
    """Return a group that has read up to `last_delivered`; `lag` and `read` are what the server says."""
    return Group(
        b"g", consumers=0, pending=0, last_delivered=last_delivered, lag=lag, entries_read=read
    )


def test_an_empty_stream_has_no_lag() -> None:
    """Nothing is left to deliver when all is deleted, whatever the server counts."""
    stream = Stream(length=0, last_generated=(10, 0), max_deleted=(10, 0), entries_added=10)

    assert judge(stream, group((4, 0), lag=6), WRONG) == Verdict(0, exact=True)


def test_a_group_at_the_end_has_no_lag() -> None:
    """A group that was delivered the last entry is up to date, even where the server does not know."""
    assert judge(TRIMMED, group((10, 0)), RIGHT) == Verdict(0, exact=True)


def test_a_group_before_the_first_entry_lags_by_the_whole_stream() -> None:
    """A stream trimmed past the group has just what is left, and the first entry is the oldest."""
    trimmed = Stream(length=3, first=(8, 0), last=(10, 0), max_deleted=(0, 0), entries_added=10)

    expected = Verdict(3, exact=True, head=(8, 0))

    assert expected == judge(trimmed, group((4, 0), lag=6), WRONG)


@pytest.mark.parametrize("version", [RIGHT, WRONG])
def test_the_servers_figure_holds_where_no_entry_ever_went(version: tuple[int, ...]) -> None:
    """Without trimming and deletions the server's own lag is right in every version."""
    assert judge(TEN, group((4, 0), lag=6), version) == Verdict(6, exact=True)


def test_after_trimming_it_depends_on_the_version() -> None:
    """A version whose count trimming leads astray is not certain of its figure."""
    assert judge(TRIMMED, group((4, 0), lag=6), RIGHT) == Verdict(6, exact=True)
    assert judge(TRIMMED, group((4, 0), lag=6), WRONG) == Verdict(6, exact=False)


@pytest.mark.parametrize(
    ("version", "right"),
    [
        ((6, 2, 14), False),
        ((7, 0, 15), False),
        ((7, 2, 6), False),
        ((7, 2, 7), True),
        ((7, 4, 1), False),
        ((7, 4, 2), True),
        ((8, 0, 0), True),
        ((), False),
    ],
)
def test_versions_that_count_right(version: tuple[int, ...], right: bool) -> None:
    """Two defects were mended in 7.2.7 and 7.4.2; what is not known is not believed."""
    assert counts_right(version) == right


@pytest.mark.parametrize(
    ("max_deleted", "version", "lag"),
    [
        ((7, 0), WRONG, None),
        ((2, 0), WRONG, None),
        ((2, 0), RIGHT, 5),
        ((7, 0), RIGHT, None),
        (None, (6, 2, 14), None),
    ],
    ids=["ahead-7.0", "behind-7.0", "behind", "ahead", "unknown-6.2"],
)
def test_deletions(max_deleted: Id | None, version: tuple[int, ...], lag: int | None) -> None:
    """After a deletion the server's lag holds only where it counts right, and not ahead of the group."""
    stream = Stream(length=9, first=(1, 0), last=(10, 0), max_deleted=max_deleted, entries_added=10)

    assert judge(stream, group((4, 0), lag=5), version) == Verdict(lag, exact=lag is not None)


@pytest.mark.parametrize("lag", [None, 0, -3, 11])
def test_an_impossible_figure_is_not_believed(lag: int | None) -> None:
    """With entries ahead of the group, a lag of nil, 0 or beyond the stream's length is none."""
    assert judge(TEN, group((4, 0), lag=lag), RIGHT) == Verdict(None, exact=False)


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
    ("last_delivered", "read", "expected"),
    [((4, 0), 4, 3), ((7, 0), 7, 0), ((8, 0), 4, 0), ((4, 0), None, None), ((4, 0), 9, None)],
    ids=["overtaken", "just-not", "within", "unknown", "impossible"],
)
def test_lost(last_delivered: Id, read: int | None, expected: int | None) -> None:
    """What went from the start before the group came there is lost, if the server knows where it was."""
    trimmed = Stream(length=3, first=(8, 0), last=(10, 0), entries_added=10)

    assert lost(trimmed, group(last_delivered, read=read)) == expected


def test_lost_among_deletions() -> None:
    """Entries deleted further on are gone too, and cannot be told from those of the start."""
    behind = Stream(length=3, first=(7, 0), last=(10, 0), max_deleted=(6, 0), entries_added=10)
    amid = Stream(length=3, first=(7, 0), last=(10, 0), max_deleted=(8, 0), entries_added=10)

    assert lost(behind, group((4, 0), read=4)) == 3
    assert lost(amid, group((4, 0), read=4)) is None


def test_lost_of_an_empty_stream() -> None:
    """When all is trimmed away, all that the group had not read is lost."""
    empty = Stream(length=0, last_generated=(10, 0), entries_added=10)

    assert lost(empty, group((4, 0), read=4)) == 6
    assert lost(empty, group((10, 0), read=10)) == 0
    assert lost(Stream(length=0, last_generated=(10, 0)), group((4, 0))) is None


@pytest.mark.parametrize(("read", "expected"), [(4, 4), (3, None), (None, None)])
def test_consumed(read: int | None, expected: int | None) -> None:
    """What a group was delivered is told only where read and waiting add up to all there ever was."""
    assert consumed(TEN, group((4, 0), read=read), lag=6) == expected
