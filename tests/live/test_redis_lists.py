"""The age of messages in plain lists and Celery queues, which have no time, on real servers with a simulated clock."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

import pytest
import redis

from bts_collectors.redis.collector import RedisCollector
from bts_collectors.redis.lists.look import End
from bts_collectors.redis.lists.reader import ListReader
from bts_collectors.redis.queues.collector import Queues
from bts_collectors.redis.queues.config import CelerySettings, QueueSettings, WantedNames
from bts_exporter import testing
from bts_exporter.errors import TargetError
from servers.list_histories import INTERVAL, PAYLOADS, SCHEDULES, ListHistory, Score
from servers.redis import MakeCollector, MakeRedis, RedisServer
from servers.redis_groups import RedisCluster

pytestmark = pytest.mark.live

LOOKS = 30
COMMON = ("redis", "jobs", "")


class Clock:
    """A clock that a test sets, in seconds."""

    def __init__(self) -> None:
        """Begin at a time that is not 0."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


#: Makes a collector of queues with this clock.
Make = Callable[[str, QueueSettings], RedisCollector]


@pytest.fixture
def clock() -> Clock:
    """Give the clock of the collectors."""
    return Clock()


@pytest.fixture
def make(redis_collector: MakeCollector, clock: Clock) -> Make:
    """Give a factory of collectors whose queues use the simulated clock."""

    def build(url: str, queues: QueueSettings, **settings: Any) -> RedisCollector:
        collector = redis_collector(url, queues=queues, **settings)
        collector._queues = Queues(queues, clock)
        return collector

    return build


def reported(
    samples: testing.Samples, common: tuple[str, ...] = COMMON
) -> tuple[str, float] | None:
    """Return the method and the age of a list."""
    seconds = samples.get("messaging_lag_seconds", {}).get(common)
    if seconds is None:
        return None
    (method,) = (
        labels[-1] for labels in samples["messaging_lag_method_info"] if labels[:-1] == common
    )
    return method, seconds


def live(
    collector: RedisCollector,
    client: redis.Redis,
    clock: Clock,
    kind: tuple[str, str, End],
    seed: int = 1,
) -> Score:
    """Run a history of the kind (schedule, payload, end), and compare the ages."""
    schedule, payload, end = kind
    random = Random(seed)
    history = ListHistory(random, end, PAYLOADS[payload], SCHEDULES[schedule](random), client)
    score = Score()
    for _ in range(LOOKS):
        history.live()
        clock.now = 1000 + history.now
        score.add(reported(testing.collect(collector)), history.age)
    return score


@pytest.mark.parametrize("end", ["left", "right"])
def test_random_histories(redis_server: RedisServer, make: Make, clock: Clock, end: End) -> None:
    """At least 95 % of the ages are within an interval or 10 % of the true one, at either end; no bound is wrong."""
    scores: dict[str, Score] = {}
    for schedule in SCHEDULES:
        redis_server.clear()
        collector = make(redis_server.url, QueueSettings(lists=("jobs",)))
        scores[schedule] = live(collector, redis_server.client, clock, (schedule, "unique", end))
        print(schedule, end, scores[schedule].share)  # noqa: T201  # the figures of the documentation

    assert [score.wrong for score in scores.values()] == [[]] * len(SCHEDULES)
    del scores["requeues"]
    looks = sum(score.looks for score in scores.values())
    assert sum(score.close for score in scores.values()) >= 0.95 * looks


@pytest.mark.parametrize("schedule", ["steady", "stopped", "requeues"])
def test_equal_payloads(redis_server: RedisServer, make: Make, clock: Clock, schedule: str) -> None:
    """Elements with the same payload give no wrong bound."""
    collector = make(redis_server.url, QueueSettings(lists=("jobs",)))

    score = live(collector, redis_server.client, clock, (schedule, "all the same", "left"))

    assert score.wrong == []


def test_the_same_job_again_and_again(redis_server: RedisServer, make: Make, clock: Clock) -> None:
    """A list that has one element with the same payload in every scrape is not taken for one that is stuck."""
    collector = make(redis_server.url, QueueSettings(lists=("jobs",)))
    ages = []
    for _ in range(5):
        redis_server.client.rpush("jobs", "tick")
        ages.append(reported(testing.collect(collector)))
        redis_server.client.lpop("jobs")
        clock.now += INTERVAL

    assert ages == 5 * [None]


def test_one_job_that_is_stuck(redis_server: RedisServer, make: Make, clock: Clock) -> None:
    """A single element gets older if no element of any list was removed, whatever its payload is."""
    redis_server.client.rpush("jobs", "tick")
    collector = make(redis_server.url, QueueSettings(lists=("jobs",)))
    ages = []
    for _ in range(3):
        ages.append(reported(testing.collect(collector)))
        clock.now += INTERVAL

    assert ages == [None, ("lower_bound", INTERVAL), ("lower_bound", 2 * INTERVAL)]


def test_a_list_that_could_not_be_read(redis_server: RedisServer, make: Make, clock: Clock) -> None:
    """An element that was replaced while the length was refused is not taken for the one before."""
    client = redis_server.client
    client.rpush("jobs", "tick")
    collector = make(redis_server.url, QueueSettings(lists=("jobs",)))
    testing.collect(collector)
    clock.now += INTERVAL
    assert reported(testing.collect(collector)) == ("lower_bound", INTERVAL)

    client.acl_setuser("default", enabled=True, commands=["-llen"])
    client.lpop("jobs")
    client.rpush("jobs", "tick")
    with pytest.raises(TargetError, match="refused LLEN"):
        testing.collect(collector)
    client.acl_setuser("default", enabled=True, commands=["+llen"])
    clock.now += INTERVAL
    assert reported(testing.collect(collector)) is None


def test_a_scrape_that_failed(
    redis_server: RedisServer, make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An element that was replaced before a scrape that failed is not taken for the one before."""
    client = redis_server.client
    client.rpush("jobs", "tick")
    collector = make(redis_server.url, QueueSettings(lists=("jobs",)))
    testing.collect(collector)
    client.lpop("jobs")
    client.rpush("jobs", "tick")

    def fail(*_: object) -> None:
        raise TargetError("timeout", "no answer")  # noqa: EM101  # a reason

    with monkeypatch.context() as patch:
        patch.setattr(ListReader, "read", fail)
        with pytest.raises(TargetError):
            testing.collect(collector)
    clock.now += INTERVAL
    assert reported(testing.collect(collector)) is None


def test_a_list_that_is_replaced(redis_server: RedisServer, make: Make, clock: Clock) -> None:
    """Elements that replace others, as many as those, are at most as old as the previous scrape."""
    client = redis_server.client
    client.rpush("jobs", *range(100))
    collector = make(redis_server.url, QueueSettings(lists=("jobs",), popped_left=("jobs",)))
    for _ in range(3):
        testing.collect(collector)
        clock.now += INTERVAL
    client.delete("jobs")
    client.rpush("jobs", *range(100, 200))

    assert reported(testing.collect(collector)) == ("interpolation", INTERVAL / 2)


def test_redelivered_messages(redis_server: RedisServer, make: Make, clock: Clock) -> None:
    """A message that was put back in front makes the age a lower bound: that of the messages behind it."""
    client = redis_server.client
    client.rpush("jobs", *range(10))
    collector = make(redis_server.url, QueueSettings(lists=("jobs",), popped_left=("j*",)))
    testing.collect(collector)
    clock.now += INTERVAL
    client.lmove("jobs", "taken", "LEFT", "RIGHT")
    testing.collect(collector)
    clock.now += INTERVAL
    client.lmove("taken", "jobs", "LEFT", "LEFT")

    assert reported(testing.collect(collector)) == ("lower_bound", 2 * INTERVAL)


def test_time_to_drain_of_a_list_that_grows(
    redis_server: RedisServer, make: Make, clock: Clock
) -> None:
    """The time to drain is that of the consumers, however many elements come in; +Inf if they take none."""
    collector = make(redis_server.url, QueueSettings(lists=("jobs",)))
    drains = []
    for taken in [5] * 8 + [0] * 8:
        before = redis_server.client.llen("jobs")
        redis_server.client.rpush("jobs", *(f"{clock.now}-{number}" for number in range(20)))
        if before:
            for _ in range(taken):
                redis_server.client.lpop("jobs")
        clock.now += INTERVAL
        samples = testing.collect(collector)
        drains.append(samples.get("messaging_drain_seconds", {}).get(COMMON))

    length = 8 * 20 - 7 * 5
    assert drains[7] == pytest.approx(length / (5 / INTERVAL))
    assert drains[-1] == inf


def test_large_elements(redis_server: RedisServer, make: Make, clock: Clock) -> None:
    """The elements of a list do not leave the server, and very large ones are not read at all."""
    client = redis_server.client
    client.rpush("jobs", *(b"%d" % n + bytes(100_000) for n in range(20)))
    client.rpush("huge", bytes(20_000_000))
    collector = make(redis_server.url, QueueSettings(lists=("jobs", "huge")))
    testing.collect(collector)
    clock.now += INTERVAL
    client.lpop("jobs")
    before = client.info("stats")["total_net_output_bytes"]

    samples = testing.collect(collector)

    assert reported(samples) == ("lower_bound", INTERVAL)
    assert client.info("stats")["total_net_output_bytes"] - before < 100_000
    assert reported(samples, ("redis", "huge", "")) is None


def test_old_servers(old_redis: RedisServer, make: Make, clock: Clock) -> None:
    """Servers without read-only scripts are read by plain commands."""
    collector = make(old_redis.url, QueueSettings(lists=("jobs",)))
    old_redis.client.rpush("jobs", *(f"a{number}" for number in range(12)))
    ages = []
    for _ in range(4):
        ages.append(reported(testing.collect(collector)))
        clock.now += INTERVAL
        old_redis.client.lpop("jobs")
        old_redis.client.rpush("jobs", f"b{clock.now}")

    assert ages == [None, *(("lower_bound", number * INTERVAL) for number in (1, 2, 3))]


def test_a_user_who_may_not_run_scripts(make_redis: MakeRedis, make: Make, clock: Clock) -> None:
    """Without permission for scripts, plain commands read the first elements."""
    server = make_redis()
    server.client.execute_command(
        "ACL", "SETUSER", "default", "-eval_ro", "-evalsha_ro", "-eval", "-evalsha"
    )
    collector = make(server.url, QueueSettings(lists=("jobs",)))
    server.client.rpush("jobs", *range(12))
    for _ in range(3):
        samples = testing.collect(collector)
        clock.now += INTERVAL
        server.client.lpop("jobs")

    assert reported(samples) == ("lower_bound", 2 * INTERVAL)
    assert samples["redis_exporter_command_supported"]["eval_ro",] == 0
    assert samples["redis_exporter_last_scrape_error"] == {("",): 0}


def test_celery(redis_server: RedisServer, make: Make, clock: Clock) -> None:
    """The age of a Celery queue is that of its oldest message, of whatever priority."""
    kombu: Any = importlib.import_module("kombu")
    collector = make(redis_server.url, QueueSettings(celery=CelerySettings()))
    common = ("redis", "celery", "")
    with kombu.Connection(redis_server.url) as connection:
        queue = connection.SimpleQueue("celery")
        assert reported(testing.collect(collector), common) == ("message_time", 0)
        clock.now += INTERVAL
        queue.put({}, priority=9)
        assert reported(testing.collect(collector), common) == ("interpolation", INTERVAL / 2)
        clock.now += INTERVAL
        queue.put({}, priority=0)
        queue.put({}, priority=0)
        testing.collect(collector)
        clock.now += INTERVAL
        assert reported(testing.collect(collector), common) == ("interpolation", 2.5 * INTERVAL)

        queue.get(timeout=20).ack()  # the one with a priority of 0
        queue.get(timeout=20).ack()
        queue.get(timeout=20).ack()
        assert reported(testing.collect(collector), common) == ("message_time", 0)


def test_huey_without_priorities(redis_server: RedisServer, make: Make, clock: Clock) -> None:
    """Messages of Huey have a time only if they have a priority; the others get their age from the list."""
    huey: Any = importlib.import_module("huey")
    queue = huey.RedisHuey("jobs", port=redis_server.port)
    collector = make(redis_server.url, QueueSettings(huey=WantedNames(names=("jobs",))))
    common = ("redis", "huey.redis.jobs", "")
    assert reported(testing.collect(collector), common) == ("message_time", 0)
    task = queue.task()(abs)
    task(1)
    task(2)
    clock.now += INTERVAL
    testing.collect(collector)
    clock.now += INTERVAL

    assert reported(testing.collect(collector), common) == ("interpolation", 1.5 * INTERVAL)


def test_scores_that_are_times(redis_server: RedisServer, redis_collector: MakeCollector) -> None:
    """The age of a sorted set is that of its lowest score, in seconds or milliseconds; later ones do not wait yet."""
    client = redis_server.client
    now = client.time()[0]
    client.zadd("seconds", {"a": now - 60, "b": now - 30, "c": now + 600})
    client.zadd("milliseconds", {"a": (now - 60) * 1000, "b": (now + 600) * 1000})
    client.zadd("later", {"a": now + 600})
    client.zadd("ranks", {"a": 1, "b": 2})
    names = ("seconds", "milliseconds", "later", "ranks")
    collector = redis_collector(
        redis_server.url, queues=QueueSettings(zsets=names, time_scores=names[:3])
    )

    samples = testing.collect(collector)

    depths = samples["messaging_backlog_messages"]
    assert [depths["redis", name, ""] for name in names] == [2, 1, 0, 2]
    for name in names[:2]:
        method, seconds = reported(samples, ("redis", name, "")) or ("", 0)
        assert method == "message_time"
        assert 60 <= seconds < 600
    assert reported(samples, ("redis", "later", "")) == ("message_time", 0)
    assert reported(samples, ("redis", "ranks", "")) is None


def test_lists_of_a_cluster(redis_cluster: RedisCluster, make: Make, clock: Clock) -> None:
    """Lists of all primaries have an age."""
    names = ("a", "b", "c")
    collector = make(redis_cluster.primaries()[0].url, QueueSettings(lists=names), cluster=True)
    for _ in range(3):
        samples = testing.collect(collector)
        clock.now += INTERVAL
        for name in names:
            client = redis_cluster.owner(name).client
            client.rpush(name, *(f"{clock.now}-{number}" for number in range(9)))
            client.lpop(name)

    ages = [reported(samples, ("redis", name, "")) for name in names]
    assert ages == 3 * [("interpolation", pytest.approx(INTERVAL, abs=INTERVAL / 2))]


def test_a_restart_of_the_exporter(redis_server: RedisServer, make: Make, clock: Clock) -> None:
    """Ages continue after a restart; those of elements from the time in between are lower bounds."""
    queues = QueueSettings(lists=("jobs",), popped_left=("jobs",))
    client = redis_server.client
    before, after = make(redis_server.url, queues), make(redis_server.url, queues)
    testing.collect(before)
    clock.now += INTERVAL
    client.rpush("jobs", *range(10))
    assert reported(testing.collect(before)) == ("interpolation", INTERVAL / 2)

    testing.restart(before, after, downtime=60)
    client.rpush("jobs", *range(10, 20))

    age = pytest.approx(INTERVAL / 2 + 60, abs=1)
    assert reported(testing.collect(after)) == ("interpolation", age)
    clock.now += INTERVAL
    client.lpop("jobs", 15)
    assert reported(testing.collect(after)) == ("lower_bound", INTERVAL)


def test_another_server_after_a_restart(
    redis_server: RedisServer, make_redis: MakeRedis, make: Make, clock: Clock
) -> None:
    """What is known about lists is not used for another server."""
    queues = QueueSettings(lists=("jobs",))
    other = make_redis()
    for server in (redis_server, other):
        server.client.rpush("jobs", *range(10))
    before, after = make(redis_server.url, queues), make(other.url, queues)
    testing.collect(before)
    clock.now += INTERVAL
    assert reported(testing.collect(before)) == ("lower_bound", INTERVAL)

    testing.restart(before, after, downtime=60)

    assert reported(testing.collect(after)) is None
