from __future__ import annotations

from bts_collectors.redis.streams.held import Held
from bts_exporter.backlog import Age


def test_an_entry_delivered_once_was_delivered_first() -> None:
    """The entry with the lowest id has been with its consumer the longest."""
    held = Held()

    ages = [held.age((1, 0), 5 + step, 1, 100 + step, is_only=False) for step in range(0, 30, 15)]

    assert ages == [Age(5, "delivery_time"), Age(20, "delivery_time")]


def test_an_entry_delivered_again_gives_a_lower_bound() -> None:
    """Entries after it were not delivered again, and are with their consumers for longer."""
    assert Held().age((1, 0), 5, 2, 100, is_only=False) == Age(5, "lower_bound")


def test_the_only_entry_is_exact() -> None:
    """However often it was delivered, the only pending entry is the oldest one."""
    assert Held().age((1, 0), 5, 9, 100, is_only=True) == Age(5, "delivery_time")


def test_an_entry_claimed_without_a_delivery_gives_a_lower_bound() -> None:
    """XCLAIM with JUSTID starts the idle time again; it holds for all entries that are pending then."""
    held = Held()
    held.age((1, 0), 60, 1, 100, is_only=False)

    ages = [
        held.age((1, 0), 5, 1, 115, is_only=False),
        held.age((1, 0), 20, 1, 130, is_only=False),
        held.age((2, 0), 35, 1, 145, is_only=False),
    ]
    held.clear()
    ages.append(held.age((3, 0), 5, 1, 160, is_only=False))

    assert [age.method for age in ages] == ["lower_bound"] * 3 + ["delivery_time"]


def test_a_group_that_is_set_back_gives_a_lower_bound() -> None:
    """After XGROUP SETID to a lower id, entries are delivered that are older than the pending ones."""
    held = Held()
    held.age((5, 0), 60, 1, 100, is_only=False)

    assert held.age((1, 0), 5, 1, 115, is_only=False) == Age(5, "lower_bound")


def test_acknowledged_entries_do_not_change_the_order() -> None:
    """After the oldest entry was acknowledged, the next one is the oldest."""
    held = Held()
    held.age((1, 0), 60, 1, 100, is_only=False)

    assert held.age((2, 0), 30, 1, 115, is_only=False) == Age(30, "delivery_time")
