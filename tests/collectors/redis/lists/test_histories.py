"""Random histories of lists, compared with what really happened; the list is simulated."""

from __future__ import annotations

import os
from random import Random

import pytest

from bts_collectors.redis.lists.list_age import ListAge
from bts_collectors.redis.lists.look import End
from servers.list_histories import (
    INTERVAL,
    KEY,
    PAYLOADS,
    SCHEDULES,
    ListHistory,
    Message,
    Score,
)

#: Histories of each kind; who asks for a number of them gets new ones.
HISTORIES = int(os.environ.get("BTS_HISTORIES", "6"))
FIRST = 0 if "BTS_HISTORIES" not in os.environ else Random().randrange(10**9)
LOOKS = 60
ENDS: tuple[End, ...] = ("left", "right")


def scrape(age: ListAge, history: ListHistory) -> tuple[str, float] | None:
    """Look at the simulated list as the collector looks at a real one."""
    if not history.messages:
        age.empty(history.now)
        return "message_time", 0.0
    looks = {}
    quiet = not history.removed
    for request in age.requests(KEY):
        look = history.look(request)
        while window := age.wider(request, look, quiet=quiet):
            look = history.look(request._replace(window=window))
        looks[request.end] = look
    found = age.take(looks, history.now, quiet=quiet)
    return found and (found.method, found.seconds)


def score(schedule: str, payload: str, *, quiet: bool = True) -> Score:
    """Return how good the ages are in histories of a kind, of which half have a configured end."""
    result = Score()
    for seed in range(FIRST, FIRST + HISTORIES):
        random = Random(seed)
        end = random.choice(ENDS)
        history = ListHistory(random, end, PAYLOADS[payload], SCHEDULES[schedule](random))
        age = ListAge(end if seed % 2 else None)
        for _ in range(LOOKS):
            history.live()
            history.removed |= not quiet
            result.add(scrape(age, history), history.age)
    print(schedule, payload, result.share)  # noqa: T201  # the figures of the documentation
    return result


@pytest.mark.parametrize("schedule", [each for each in SCHEDULES if each != "requeues"])
def test_ages_are_close(schedule: str) -> None:
    """At least 95 % of the ages are within a scrape interval or 10 % of the true one, and no bound is wrong."""
    result = score(schedule, "unique", quiet=False)

    assert result.close >= 0.95 * result.looks
    assert result.wrong == []


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("payload", ["unique", "half the same", "all the same"])
def test_no_bound_is_wrong(schedule: str, payload: str) -> None:
    """Whatever happens to a list, and whether payloads repeat: a lower bound is never above the true age."""
    assert score(schedule, payload).wrong == []


def test_many_urgent_messages_are_not_taken_for_a_new_list() -> None:
    """If many messages were put in front, and others came in behind, those that waited before still count."""
    steps = iter([(100 / INTERVAL, 0, "")] * 4 + [(100 / INTERVAL, 20 / INTERVAL, "")])
    history = ListHistory(Random(1), "left", PAYLOADS["unique"], steps)
    age = ListAge("left")
    for _ in range(4):
        history.live()
        scrape(age, history)
    history.live()
    urgent = [Message(b"urgent-%d" % number, history.now) for number in range(400)]
    history.messages = urgent + history.messages
    history.removed = True

    found = scrape(age, history)

    assert found is not None
    assert found[0] == "lower_bound"
    assert history.age - 2 * INTERVAL <= found[1] <= history.age


def test_what_came_in_during_a_long_pause_has_no_known_age() -> None:
    """If the exporter or its machine stood still for minutes, elements of this time are not said to be of its middle."""
    history = ListHistory(Random(1), "left", PAYLOADS["unique"], iter([(1, 0, "")] * 3))
    age = ListAge("left")
    for _ in range(3):
        history.live()
        scrape(age, history)
    history.now += 600
    history.messages = [Message(b"new-%d" % number, history.now - 1) for number in range(40)]
    history.removed = True

    after_the_pause = scrape(age, history)
    history.now += INTERVAL
    found = scrape(age, history)

    assert after_the_pause is None
    assert found == ("lower_bound", INTERVAL)


def test_urgent_messages_hide_how_many_have_left() -> None:
    """If most messages left, and urgent ones were put in front of the others, the bound is still not too high."""
    history = ListHistory(
        Random(1), "left", PAYLOADS["unique"], iter([(100 / INTERVAL, 0, "")] * 4)
    )
    age = ListAge("left")
    for _ in range(4):
        history.live()
        scrape(age, history)
    newest = [message for message in history.messages if message.since > history.now - INTERVAL]
    history.now += INTERVAL
    urgent = [Message(b"urgent-%d" % number, history.now) for number in range(400)]
    history.messages = urgent + newest[-50:]
    history.removed = True

    found = scrape(age, history)

    assert found is None or (found[0] == "lower_bound" and found[1] <= history.age)


@pytest.mark.parametrize("payload", ["one of twenty", "in turn"])
def test_few_bounds_are_wrong_until_payloads_repeat(payload: str) -> None:
    """Before a payload was seen again, elements are taken for those with the same payload: at most 1 % is wrong."""
    scores = [score(schedule, payload) for schedule in SCHEDULES]

    assert sum(len(each.wrong) for each in scores) <= 0.01 * sum(each.looks for each in scores)


@pytest.mark.parametrize("schedule", ["steady", "stopped", "slow", "bursts"])
def test_removed_elements_are_counted(schedule: str) -> None:
    """Never more elements count as removed than were; where consumers are slower than producers, almost as many."""
    known: list[tuple[int, int]] = []
    popped = 0
    for seed in range(FIRST, FIRST + HISTORIES):
        random = Random(seed)
        end = random.choice(ENDS)
        history = ListHistory(random, end, PAYLOADS["unique"], SCHEDULES[schedule](random))
        age = ListAge(end if seed % 2 else None)
        for _ in range(LOOKS):
            history.live()
            scrape(age, history)
            popped += history.popped
            if age.removed is not None:
                known.append((age.removed, history.popped))

    assert known
    assert [counts for counts in known if counts[0] > counts[1]] == []
    if schedule == "slow":
        assert sum(removed for removed, _ in known) >= 0.95 * popped
