from __future__ import annotations

from bts_collectors.redis.waiting import Waiting
from bts_exporter import backlog


def test_a_message_is_as_old_as_it_says() -> None:
    """Without other observations the age comes from the message's own time."""
    assert Waiting().age(0, 1, 9, 50.0) == backlog.Age(50.0, "message_time")


def test_a_new_message_does_not_have_age_0() -> None:
    """An age of 0 would say that nothing waits."""
    age = Waiting().age(0, 1, 1, 0.0)

    assert age is not None
    assert age.seconds > 0


def test_a_time_in_the_future_is_not_plausible() -> None:
    """The age is at least the time since the message was first seen; in the first scrape it is unknown."""
    waiting = Waiting()

    assert waiting.age(100, 5, 9, None) is None
    assert waiting.age(115, 5, 12, None) == backlog.Age(15, "lower_bound")
    assert waiting.age(130, 8, 12, None) == backlog.Age(30, "lower_bound")  # it was there at 100
    assert waiting.age(145, 10, 12, None) is None  # that one came later


def test_the_bound_goes_on_from_before_the_clock_was_set() -> None:
    """After the clock was set back, a message whose time was right keeps an age."""
    waiting = Waiting()
    waiting.age(100, 5, 9, 3.0)

    assert waiting.age(115, 5, 9, None) == backlog.Age(15, "lower_bound")


def test_an_age_is_not_longer_than_the_queue_was_not_empty() -> None:
    """A message that claims to be older than the time since the queue was seen empty has a wrong clock."""
    waiting = Waiting()
    waiting.clear(100)

    assert waiting.age(110, 5, 5, 9.0) == backlog.Age(9.0, "message_time")
    assert waiting.age(120, 5, 5, 20.5) == backlog.Age(20, "message_time")  # clocks differ a little
    assert waiting.age(130, 5, 5, 3600.0) == backlog.Age(20, "lower_bound")


def test_a_message_from_before_may_be_older() -> None:
    """After a group was set back, the next entry may be older than the time when nothing waited."""
    waiting = Waiting()
    waiting.clear(100, 9)

    assert waiting.age(110, 5, 9, 3600.0) == backlog.Age(3600.0, "message_time")
    assert waiting.age(110, 10, 12, 3600.0) is None
