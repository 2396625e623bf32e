from __future__ import annotations

from bts_collectors.mqtt.sessions.arrivals import Arrivals
from bts_exporter.backlog import Age


def saved_at(*saves: tuple[float, int | None]) -> Arrivals:
    """Return the arrivals after files that were saved at these times, with these latest numbers."""
    arrivals = Arrivals()
    for saved, latest in saves:
        arrivals.observe(saved, latest)
    return arrivals


def test_a_message_is_at_least_as_old_as_the_first_file_that_has_it() -> None:
    """A message that arrived between two saves has the age since the second, when the last file was saved."""
    arrivals = saved_at((1000, 50), (2800, 60), (4600, 70))

    assert arrivals.age(55, 4600, 4700) == Age(1800, "lower_bound")


def test_a_message_that_arrived_before_the_last_save_may_be_new() -> None:
    """Between the last two saves, any time is possible: there is no age, rather than 0."""
    arrivals = saved_at((1000, 50), (2800, 60))

    assert arrivals.age(51, 2800, 2900) is None


def test_frequent_saves_give_an_age() -> None:
    """If the age is known within a tenth, it is that of now."""
    arrivals = saved_at((1000, 50), (1060, 60), (3000, 70))

    age = arrivals.age(56, 3000, 3010)

    assert age == Age(1980, "interpolation")


def test_a_message_from_before_the_first_file_has_a_lower_bound() -> None:
    """After a restart of the exporter, it is at least as old as the first file."""
    assert saved_at((1000, 50)).age(40, 1000, 1100) is None
    assert saved_at((1000, 50), (1600, 60)).age(50, 1600, 1700) == Age(600, "lower_bound")


def test_numbers_that_begin_again_are_another_broker() -> None:
    """If the file was deleted, numbers begin at 1 again, and earlier times say nothing."""
    arrivals = saved_at((1000, 50), (2000, 60), (3000, 5))

    assert arrivals.age(3, 3000, 3100) is None


def test_a_file_without_a_number_gives_no_age() -> None:
    """An unknown latest number does not count."""
    assert saved_at((1000, None)).age(40, 1000, 1100) is None
    assert saved_at((1000, 50), (2000, 60)).age(None, 2000, 2100) is None
