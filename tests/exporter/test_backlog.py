from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_exporter import backlog
from bts_exporter.backlog import MOST_OBSERVED, Age, Arrival, Rate, Timeline
from bts_exporter.scrape import Scrape


def timeline(*observations: tuple[float, float]) -> Timeline:
    """Return a timeline of (time, count)."""
    made = Timeline()
    for now, count in observations:
        made.observe(now, count)
    return made


def test_a_message_between_two_observations_came_in_proportion() -> None:
    """Ages are interpolated: ten messages within ten seconds arrived one per second."""
    seen = timeline((100, 0), (110, 10))

    assert seen.age(3, 110) == Age(7, "interpolation")
    assert seen.age(3, 150) == Age(47, "interpolation")


def test_the_first_message_after_a_standstill_did_not_come_during_it() -> None:
    """Interpolation begins at the end of a standstill."""
    seen = timeline((0, 5), (1800, 5), (3600, 5), (3610, 15))

    assert seen.age(5, 3610) == Age(10, "interpolation")
    assert seen.age(4.9, 3610) == Age(3610, "lower_bound")


def test_what_was_there_before_the_first_observation_is_at_least_as_old() -> None:
    """A message from before the first observation has no age at that moment, and a lower bound later."""
    seen = timeline((100, 50))

    assert seen.age(10, 100) is None
    seen.observe(130, 60)
    assert seen.age(10, 130) == Age(30, "lower_bound")
    assert seen.age(50, 130) == Age(30, "interpolation")


def test_nothing_observed_is_nothing_known() -> None:
    """An empty timeline has no ages."""
    assert Timeline().age(0, 100) is None


def test_what_came_in_with_the_last_observation_or_later_is_new() -> None:
    """A position beyond the count has no age."""
    seen = timeline((100, 0), (110, 10))

    assert seen.age(10, 110) == Age(0, "interpolation")
    assert seen.age(12, 115) == Age(5, "interpolation")


@pytest.mark.parametrize("back", [(120, 3), (90, 20)])
def test_a_count_or_a_clock_that_goes_back_begins_anew(back: tuple[float, float]) -> None:
    """After a count fell, no age is computed from earlier observations."""
    now, count = back
    seen = timeline((100, 0), (110, 10), back)

    assert seen.age(count - 1, now) is None
    assert seen.age(count - 1, now + 5) == Age(5, "lower_bound")


def steady(_: int) -> int:
    """Publish ten messages a second."""
    return 10


def bursty(second: int) -> int:
    """Publish for two seconds of a minute."""
    return 300 if second % 60 < 2 else 0


def nightly(second: int) -> int:
    """Publish for an hour, and then not for two."""
    return 5 if second % 10_800 < 3600 else 0


def interrupted(second: int) -> int:
    """Publish for two seconds of a minute, and every twenty minutes not for as long."""
    return bursty(second) if second // 1200 % 2 else 0


def growing(second: int) -> int:
    """Publish ever more."""
    return second // 1000


@pytest.mark.parametrize("publish", [steady, bursty, nightly, interrupted, growing])
def test_a_day_of_observations_is_remembered_well_enough(publish: Callable[[int], int]) -> None:
    """With thinned-out observations, ages are accurate within a tenth or the interval of observations."""
    counts = [0, *accumulate(publish(second) for second in range(86_400))]
    seen = Timeline()
    for second in range(0, 86_401, 15):
        seen.observe(second, counts[second])
    draw = random.Random(1)

    wrong = 0
    for _ in range(500):
        position = counts[86_400 - int(60 * 1440 ** draw.random())]
        true = 86_400 - bisect_right(counts, position) + 1
        age = seen.age(position, 86_400)
        assert age is not None
        wrong += abs(age.seconds - true) > max(0.1 * true, 15)
    assert wrong == 0


def test_thinned_out_observations_are_not_a_gap() -> None:
    """The time of arrival is known to a scrape interval, however many observations of a steady flow were dropped."""
    seen = Timeline()
    for second in range(0, 7201, 15):
        seen.observe(second, second * 100)

    for second in (200, 3000, 6000, 7000):
        arrival = seen.arrival(second * 100)
        assert arrival is not None
        assert arrival.gap == 15
        assert second - 31 < arrival.earliest <= second <= arrival.latest < second + 31


@given(
    st.lists(st.tuples(st.floats(1, 100), st.integers(0, 50)), min_size=65, max_size=300),
    st.integers(0, 400),
)
def test_a_message_arrived_between_its_earliest_and_latest_time(
    steps: list[tuple[float, int]], position: int
) -> None:
    """The time when the count passed a position, by all observations, is within those of `arrival`."""
    seen, times, counts = Timeline(), [0.0], [0]
    seen.observe(0, 0)
    for wait, more in steps:
        times.append(times[-1] + wait)
        counts.append(counts[-1] + more)
        seen.observe(times[-1], counts[-1])

    arrival = seen.arrival(position)
    after = bisect_right(counts, position)
    if arrival is None:
        assert after == len(counts)
        return
    assert arrival.earliest <= times[after - 1] + 0.01
    assert arrival.latest >= times[after] - 0.01
    assert arrival.gap >= times[after] - times[after - 1] - 0.01


def test_what_is_kept_is_bounded() -> None:
    """A timeline lives as long as its queue."""
    seen = Timeline()
    for second in range(10_000):
        seen.observe(second, second * second)

    assert len(seen._times) <= MOST_OBSERVED
    assert len(seen._counts) == len(seen._times)
    assert seen.age(0, 10_000) == Age(10_000, "interpolation")


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(-5, 50)), min_size=1, max_size=200),
    st.floats(-10, 5000),
)
def test_an_age_is_never_negative_nor_longer_than_it_was_watched(
    steps: list[tuple[float, int]], position: float
) -> None:
    """An age is never negative, whatever the counts and positions are."""
    seen = Timeline()
    now = count = 0.0
    for wait, more in steps:
        now, count = now + wait, max(count + more, 0)
        seen.observe(now, count)

    age = seen.age(position, now)
    assert age is None or 0 <= age.seconds <= now


@given(st.lists(st.tuples(st.floats(0.1, 100), st.integers(0, 50)), min_size=1, max_size=200))
def test_the_later_a_message_came_the_younger_it_is(steps: list[tuple[float, int]]) -> None:
    """Later messages are never older than earlier ones, also after observations were thinned out."""
    seen = Timeline()
    now = count = 0.0
    for wait, more in steps:
        now, count = now + wait, count + more
        seen.observe(now, count)

    ages = [seen.age(position, now + 1) for position in range(int(count))]
    found = [age.seconds for age in ages if age is not None]
    assert found == sorted(found, reverse=True)


def test_a_rate_is_known_after_half_a_minute() -> None:
    """A rate needs a minimum of time, because brokers update counts in steps."""
    rate = Rate()

    assert [rate.observe(now, now * 2) for now in (0, 10, 20)] == [None] * 3
    assert rate.observe(30, 60) == 2


def test_a_rate_is_that_of_the_last_minute_at_most() -> None:
    """A rate from an hour ago is not used."""
    rate = Rate()
    for now in range(0, 3600, 10):
        rate.observe(now, now * 2)
    found = [rate.observe(now, 7200) for now in range(3600, 3700, 10)]

    assert found[0] is not None
    assert 0 < found[0] <= 2
    assert found[-1] == 0


def test_a_rate_between_observations_further_apart_is_one_of_the_last_two() -> None:
    """A rate is available with a scrape interval of two minutes."""
    rate = Rate()

    assert [rate.observe(now, now) for now in (0, 120)] == [None, 1]
    assert rate.observe(240, 120) == 0


def test_a_count_that_begins_anew_has_no_rate_yet() -> None:
    """A count that fell starts a new rate."""
    rate = Rate()
    rate.observe(0, 100)
    rate.observe(40, 200)

    assert rate.observe(80, 10) is None
    assert rate.observe(120, 50) == 1


def test_a_timeline_says_how_many_had_come_by_a_time_and_between_which_looks_one_came() -> None:
    """The count at a time between two observations is that of the earlier one."""
    timeline = Timeline()
    for now, count in ((10, 0), (20, 100), (40, 300)):
        timeline.observe(now, count)

    assert [timeline.count(now) for now in (5, 10, 39, 40, 99)] == [None, 0, 100, 300, 300]
    assert [timeline.arrival(position) for position in (0, 150, 300)] == [
        Arrival(10, 20, 10),
        Arrival(20, 40, 20),
        None,
    ]


def test_what_turns_out_not_to_have_come_in_is_taken_off_the_timeline() -> None:
    """Lowering the count keeps the observations below it."""
    timeline = Timeline()
    for now, count in ((0, 0), (10, 100), (20, 200)):
        timeline.observe(now, count)
    timeline.lower(150)
    timeline.observe(30, 250)

    assert timeline.age(50, 30) == Age(25, "interpolation")
    assert timeline.age(200, 30) == Age(5, "interpolation")


def test_counts_that_were_lowered_are_thinned_out() -> None:
    """A full timeline whose latest counts were lowered to the same value takes more observations."""
    timeline = Timeline()
    for second in range(MOST_OBSERVED - 1):
        timeline.observe(second, second)
    timeline.lower(MOST_OBSERVED / 2)
    for second in range(MOST_OBSERVED, MOST_OBSERVED + 10):
        timeline.observe(second, second)

    assert timeline.age(MOST_OBSERVED / 4, 100) == Age(100 - MOST_OBSERVED / 4, "interpolation")


@pytest.mark.parametrize(
    ("age", "lags", "methods"),
    [
        (Age(3.5, "message_time"), {("nats", "orders", "billing"): 3.5}, 1),
        (Age(0.0, "message_time"), {("nats", "orders", "billing"): 0}, 0),
        (None, None, 0),
    ],
)
def test_lag_is_emitted_with_its_method(
    age: Age | None, lags: dict[tuple[str, ...], float] | None, methods: int
) -> None:
    """A lag of 0 needs no method, and an unknown age has no sample."""
    scrape = Scrape(float("inf"))

    backlog.emit_lag(scrape, age, "nats", "orders", "billing")

    assert scrape.samples.get(backlog.LAG_SECONDS) == lags
    assert len(scrape.samples.get(backlog.LAG_METHOD, {})) == methods
