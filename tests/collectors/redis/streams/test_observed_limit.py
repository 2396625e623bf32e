from __future__ import annotations

from collections.abc import Iterable

from bts_collectors.redis.streams.observed_limit import ObservedLimit
from bts_collectors.redis.streams.state import Stream


def limits(*states: tuple[int | None, int]) -> list[int | None]:
    """Return the limit after each state of a stream: its added entries, and its length."""
    limit = ObservedLimit()
    return [limit.observe(Stream(length, entries_added=added)) for added, length in states]


def growing(lengths: Iterable[int], step: int) -> list[tuple[int, int]]:
    """Return the states of a stream of these lengths, to which `step` entries are added each time."""
    return [(10_000 + step * place, length) for place, length in enumerate(lengths)]


def test_a_length_that_stays_the_same_is_the_limit() -> None:
    """A stream that has 1,000 entries at each scrape, while entries are added, is trimmed to 1,000."""
    assert limits(*growing([1000] * 5, 20)) == [None, None, None, 1000, 1000]


def test_nearly_exact_trims() -> None:
    """With `~`, the length varies by a node: the limit is the smallest length."""
    found = limits(*growing([1040, 1090, 1010, 1060, 1000, 1050, 1020], 300))

    assert found[-1] == 1000


def test_a_stream_that_grows_has_no_limit() -> None:
    """Without a removed entry there is no limit."""
    assert limits(*growing(range(1000, 1600, 100), 100)) == [None] * 6


def test_trims_from_time_to_time_are_no_limit() -> None:
    """A job that trims the stream once an hour does not limit its length in between."""
    lengths = [1000, 1500, 2000, 2500, 1000, 1500, 2000, 2500, 1000]

    assert set(limits(*growing(lengths, 500))) == {None}


def test_a_limit_that_is_lowered_is_unknown_until_it_is_observed_again() -> None:
    """After a change of MAXLEN, the previous limit is not served."""
    found = limits(*growing([5000] * 4 + [1000] * 4, 20))

    assert found == [None, None, None, 5000, None, None, None, 1000]


def test_a_stream_that_rests_keeps_its_limit() -> None:
    """While no entry is added, the limit stays known; trimmed by hand, it does not."""
    states = growing([1000] * 4, 20)
    resting = (states[-1][0], 1000)
    trimmed = (states[-1][0], 400)

    assert limits(*states, resting, resting, trimmed)[-3:] == [1000, 1000, None]


def test_a_stream_that_was_recreated_has_no_limit() -> None:
    """Another stream of the same name begins again."""
    assert limits(*growing([1000] * 4, 20), (5, 5))[-1] is None


def test_without_the_count_of_added_entries_the_limit_is_unknown() -> None:
    """Redis before 7 does not count added entries."""
    assert set(limits(*[(None, 1000)] * 6)) == {None}
