"""The measurement of lags against the truth, in a short form: every kind of queue for a few seconds.

`make lag-truth` is the long form, which writes docs/lag.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import lag_truth
from lag_schedules import SCHEDULES, Bounds, Truth
from lag_truth import ABSENT, KINDS, Look, Servers
from servers.mosquitto import Mosquitto
from servers.rabbitmq import RabbitMQ
from servers.redis import RedisServer


@pytest.fixture
def servers(rabbitmq: RabbitMQ, redis_server: RedisServer, tmp_path: Path) -> Iterator[Servers]:
    """Return the shared brokers, and a mosquitto that keeps sessions."""
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    mosquitto = Mosquitto(folder, *lag_truth.session_settings(folder), persistence=True)
    mosquitto.start()
    yield Servers(rabbitmq, redis_server, mosquitto)
    mosquitto.kill()


@pytest.mark.live
def test_no_lag_is_wrong(servers: Servers, tmp_path: Path) -> None:
    """Every kind of queue is used by every schedule, and no lag contradicts what was recorded."""
    looks = lag_truth.measure(servers, list(KINDS), tmp_path, seconds=4, interval=0.5)

    assert {each.kind for each in looks} == set(KINDS)
    assert [each for each in looks if each.is_wrong] == []
    known = {each.kind for each in looks if each.method not in {ABSENT, lag_truth.NOTHING}}
    assert known >= {"Redis stream", "Redis list", "Celery", "RQ", "MQTT pipeline"}


def test_all_ten_schedules_are_used() -> None:
    """Schedules have different names, and each is followed by some kind of queue."""
    assert len({schedule.name for schedule in SCHEDULES}) == 10
    assert {schedule.name for schedule in SCHEDULES} == set(lag_truth.RabbitDriver.schedules)


def truth(*events: tuple[str, int, float]) -> Truth:
    """Return the record of these events: what, which message, when."""
    found = Truth(0.0)
    for what, number, now in events:
        match what:
            case "arrive":
                found.arrive(now)
            case "leave":
                found.leave(number, now)
            case "back":
                found.give_back(number, now)
            case _:
                found.expire(float(number), now)
    return found


def test_truth_is_the_age_of_the_oldest_waiting_message() -> None:
    """Delivered messages do not count, returned ones do with their old age."""
    record = truth(("arrive", 0, 1), ("arrive", 1, 3), ("leave", 0, 5), ("back", 0, 8))

    assert [record.age(now) for now in (0.5, 2, 4, 6, 9)] == [0, 1, 3, 3, 8]


def test_bounds_cover_all_that_was_true_lately() -> None:
    """Who looked at some moment may say what was true then, or what it has grown to since."""
    record = truth(("arrive", 0, 1), ("arrive", 1, 3), ("leave", 0, 5), ("leave", 1, 7))

    assert record.bounds(6, 6.5) == Bounds(3, 3.5)
    assert record.bounds(4, 6) == Bounds(2, 5)
    assert record.bounds(6, 9) == Bounds(0, 6)


def test_expired_messages_are_gone() -> None:
    """Those that arrived before a time do not wait any more."""
    assert truth(("arrive", 0, 1), ("arrive", 1, 3), ("expire", 2, 5)).age(6) == 3


@pytest.mark.parametrize(
    ("method", "lag", "wrong"),
    [
        ("interpolation", 100, False),
        ("interpolation", 131, False),
        ("interpolation", 79, True),
        ("interpolation", 133, True),
        ("lower_bound", 5, False),
        ("lower_bound", 122, True),
        ("upper_bound", 500, False),
        ("upper_bound", 88, True),
        (lag_truth.NOTHING, 0, True),
        (ABSENT, None, False),
    ],
)
def test_wrong_is_what_was_not_true(method: str, lag: float | None, wrong: bool) -> None:  # a case
    """Between 90 and 120 s were true: values beyond, by more than a tenth, and false bounds are wrong."""
    assert Look("RQ", "q", method, lag, 100.0, Bounds(90.0, 120.0)).is_wrong is wrong


def test_table_shows_kinds_and_methods() -> None:
    """A row has the quantiles of the error, the share that is near enough, and the number of wrong values."""
    looks = [Look("RQ", "q", "message_time", 100.0 + n, 100.0, Bounds(100, 100)) for n in range(20)]
    looks.append(Look("Celery", "c", ABSENT, None, 5.0, Bounds(5, 5)))

    rows = lag_truth.table(looks).splitlines()[2:]

    assert rows == [
        "| Celery | absent | 1 | | | | | |",
        "| RQ | message_time | 20 | 10.0 s | 19.0 s | 19.0 s | 55.0% | 9 |",
    ]


def test_table_is_written_between_the_markers(tmp_path: Path) -> None:
    """The text around it stays, and an earlier table goes."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{lag_truth.BEGIN}\nold\n{lag_truth.END}\nafter\n")

    lag_truth.write("new", page)

    assert page.read_text() == f"before\n{lag_truth.BEGIN}\nnew\n{lag_truth.END}\nafter\n"
    assert lag_truth.BEGIN in lag_truth.PAGE.read_text()
