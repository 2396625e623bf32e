from __future__ import annotations

import math

from bts_exporter.live.ring import HISTORY_SECONDS, Ring

A, B = ("a",), ("b",)


def test_values_are_kept_by_time() -> None:
    """A column is kept for each step, and NaN where a key has no value."""
    ring = Ring(10)
    ring.add(10, [{A: 1}, {}])
    ring.add(20, [{A: 2, B: 5}, {B: 7}])

    assert ring.times() == [10, 20]
    assert ring.values(0)[A] == ring.values_of(A, 0) == [1, 2]
    assert set(ring.keys) == {A, B}
    assert [math.isnan(value) for value in ring.values(0)[B]] == [True, False]
    assert ring.values(1)[B][1] == 7


def test_only_what_was_added_since() -> None:
    """A reader who has the values up to a time gets the later ones."""
    ring = Ring(10)
    for now in (10, 20, 30):
        ring.add(now, [{A: now}])

    assert ring.times(since=20) == [30]
    assert ring.values(0, since=20) == {A: [30]}


def test_values_that_came_late_are_new() -> None:
    """A reader gets values that are older than its last report, if they were added after it."""
    ring = Ring(10)
    ring.add(10, [{A: 1}])
    ring.add(20, [{A: 2}], age=15)

    assert ring.times(since=30) == [20]
    assert ring.values(0, since=30) == {A: [2]}


def test_step_is_due_a_little_early() -> None:
    """Scrapes that come a second early fill every step, more frequent ones not."""
    ring = Ring(15)
    assert ring.is_due(0)
    ring.add(0, [{A: 1}])

    assert not ring.is_due(5)
    assert ring.is_due(14)


def test_old_columns_are_dropped() -> None:
    """Nothing is older than the history, however often columns come."""
    ring = Ring(15)
    for now in range(0, 3000, 15):
        ring.add(now, [{A: now}])
    for now in (3000, 3600):  # a pause
        ring.add(now, [{A: now}])

    assert len(ring.times()) <= HISTORY_SECONDS / 15
    assert ring.times()[0] >= 3600 - HISTORY_SECONDS


def test_names_that_are_used_once_do_not_stay() -> None:
    """Keys without a value are dropped, and the values of the others stay with their keys."""
    ring = Ring(15)
    for now in range(15, 915, 15):
        ring.add(now, [{A: now, (f"queue-{now}",): 1, B: -now}])

    values = ring.values(0)

    assert len(values) < 30
    assert values[A] == [*map(float, range(15, 915, 15))]
    assert values[B][-1] == -900


def test_counts_are_kept_as_rates() -> None:
    """Of a count the rate since the column before is kept; it is unknown at first, and after a reset."""
    ring = Ring(10, counts=[1])
    for now, count in ((10, 100), (20, 150), (40, 250), (50, 3)):
        ring.add(now, [{A: now}, {A: count, B: 1} if now > 20 else {A: count}])

    rates = ring.values(1)
    assert rates[A][1:3] == [5, 5]
    assert math.isnan(rates[A][0])
    assert math.isnan(rates[A][3])
    assert rates[B][3] == 0
