from __future__ import annotations

from bts_collectors.redis.streams.held import Held, Pending
from bts_collectors.redis.streams.state import Id
from bts_exporter.backlog import Age

#: The last id of the stream.
LAST = (9, 0)


def age(
    held: Held,
    entry: Id,
    idle: float,
    now: float,
    deliveries: int = 1,
    *,
    moves: int | None = 0,
    is_only: bool = False,
) -> Age:
    """Return the age of a pending entry."""
    return held.age(Pending(entry, idle, deliveries), now, LAST, moves, is_only=is_only)


def test_an_entry_delivered_once_was_delivered_first() -> None:
    """The entry with the lowest id has been with its consumer the longest."""
    held = Held()

    ages = [age(held, (1, 0), 5 + step, 100 + step) for step in (0, 15)]

    assert ages == [Age(5, "delivery_time"), Age(20, "delivery_time")]


def test_an_entry_delivered_again_gives_a_lower_bound() -> None:
    """Entries after it were not delivered again, and are with their consumers for longer."""
    assert age(Held(), (1, 0), 5, 100, deliveries=2) == Age(5, "lower_bound")


def test_the_only_entry_is_exact() -> None:
    """However often it was delivered, the only pending entry is the oldest one."""
    assert age(Held(), (1, 0), 5, 100, deliveries=9, is_only=True) == Age(5, "delivery_time")


def test_an_entry_claimed_without_a_delivery_gives_a_lower_bound() -> None:
    """XCLAIM with JUSTID starts the idle time again; it holds for all entries that are in the stream then."""
    held = Held()
    age(held, (1, 0), 60, 100)

    ages = [
        age(held, (1, 0), 5, 115),
        age(held, (1, 0), 20, 130),
        age(held, (2, 0), 35, 145),
        age(held, (10, 0), 5, 160),
    ]

    assert [found.method for found in ages] == ["lower_bound"] * 3 + ["delivery_time"]


def test_a_group_that_is_set_back_gives_a_lower_bound() -> None:
    """After XGROUP SETID to a lower id, entries are delivered that are older than the pending ones."""
    held = Held()
    age(held, (5, 0), 60, 100)

    assert age(held, (1, 0), 5, 115) == Age(5, "lower_bound")


def test_a_group_that_may_have_been_moved_gives_a_lower_bound() -> None:
    """If a client moved any group while entries were pending, or before the first scrape, the order is unknown."""
    held, idle = Held(), Held(3)

    assert age(held, (1, 0), 5, 100, moves=3) == Age(5, "lower_bound")
    assert age(idle, (1, 0), 5, 100, moves=3) == Age(5, "delivery_time")
    assert age(idle, (1, 0), 20, 115, moves=4) == Age(20, "lower_bound")
    idle.clear(4)
    assert age(idle, (2, 0), 5, 130, moves=4) == Age(5, "delivery_time")


def test_acknowledged_entries_do_not_change_the_order() -> None:
    """After the oldest entry was acknowledged, the next one is the oldest."""
    held = Held()
    age(held, (1, 0), 60, 100)

    assert age(held, (2, 0), 30, 115) == Age(30, "delivery_time")
