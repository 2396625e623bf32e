from __future__ import annotations

from math import inf, nan

import pytest

from bts_collectors.redis.lists.list_age import ListAge
from bts_collectors.redis.queues.history import QueueHistory
from bts_collectors.redis.queues.queue_library import Depth
from bts_exporter import backlog

#: The server's clock in seconds and milliseconds.
NOW = 1_767_225_600
NOW_MS = NOW * 1000


def waiting(since: float | None) -> Depth:
    """Return a queue whose next message has the time since when it waits."""
    return Depth({"ready": 1}, timed=True, oldest=since)


def test_the_age_of_a_message_by_its_time() -> None:
    """The age is the server's time less the message's own."""
    age = QueueHistory().age(waiting(NOW - 60), 1, 0, NOW_MS)

    assert age == backlog.Age(60, "message_time")


def test_a_producer_whose_clock_is_ahead() -> None:
    """A time in the future is not an age of 0: there is no age at first, then the time since it was seen."""
    history = QueueHistory()
    ahead = waiting(NOW + 5 * 3600)

    assert history.age(ahead, 1, 0, NOW_MS) is None
    assert history.age(ahead, 1, 15, NOW_MS + 15_000) == backlog.Age(15, "lower_bound")
    other = waiting(NOW + 5 * 3600 + 1)
    assert history.age(other, 1, 30, NOW_MS + 30_000) is None


def test_a_producer_whose_clock_is_behind() -> None:
    """A message is not older than the time since the queue was seen empty."""
    history = QueueHistory()
    assert history.age(Depth({"ready": 0}, timed=True), 0, 100, NOW_MS) == backlog.Age(
        0, "message_time"
    )

    assert history.age(waiting(NOW - 3600), 1, 115, NOW_MS + 15_000) is None
    assert history.age(waiting(NOW - 3600), 1, 130, NOW_MS + 30_000) == backlog.Age(
        15, "lower_bound"
    )


@pytest.mark.parametrize("since", [None, nan, inf])
def test_a_message_without_a_time(since: float | None) -> None:
    """A message without a time has no age."""
    assert QueueHistory().age(waiting(since), 1, 0, NOW_MS) is None


def test_a_queue_that_is_not_known_is_not_empty() -> None:
    """A refused length is not a length of 0."""
    history = QueueHistory()

    assert history.age(waiting(None), None, 0, NOW_MS) is None
    assert history.drain(None, 0) is None


def test_a_queue_that_becomes_shorter() -> None:
    """The drain time is the length divided by the rate of the last half minute."""
    history = QueueHistory()
    looks = [(100, 0.0), (85, 15.0), (70, 30.0), (0, 45.0)]

    drains = [history.drain(length, now) for length, now in looks]
    assert drains == [None, None, 70.0, 0]


@pytest.mark.parametrize("growth", [0, 1])
def test_a_queue_that_does_not_become_shorter(growth: int) -> None:
    """The drain time of a queue that does not become shorter is unknown: new messages may hide removed ones."""
    history = QueueHistory()

    drains = [history.drain(100 + growth * now, now) for now in (0, 15, 30, 60)]
    assert drains == [None] * 4


@pytest.mark.parametrize(("removed", "drain"), [(10, (100 + 60) / (10 / 15)), (0, inf)])
def test_a_queue_whose_removed_messages_are_known(removed: int, drain: float) -> None:
    """Messages that came in do not hide removed ones; a queue from which none is removed is never empty."""
    history = QueueHistory()
    jobs = history.lists[b"jobs"] = ListAge()
    jobs.removed = removed

    drains = [history.drain(100 + now, now) for now in (0, 15, 30, 45, 60)]
    assert drains[:2] == [None, None]
    assert drains[-1] == pytest.approx(drain)


def test_removed_messages_that_were_not_counted_for_a_while() -> None:
    """A queue is not taken for one that is stuck while messages may have been removed that were not counted."""
    history = QueueHistory()
    jobs = history.lists[b"jobs"] = ListAge()
    drains = []
    for now in range(0, 90, 15):
        jobs.removed = None if now == 15 else 0
        drains.append(history.drain(100, now))

    assert drains == [None] * 5 + [inf]


def test_a_queue_that_was_not_read_for_a_while() -> None:
    """A missing length does not count as an empty queue."""
    history = QueueHistory()
    looks = [(100, 0.0), (None, 15.0), (100, 30.0), (100, 45.0)]

    assert [history.drain(length, now) for length, now in looks] == [None] * 4
