"""Queues as the libraries themselves keep them in Redis, held against the libraries' own figures.

Where a library is Python and small it is a requirement of the tests; what the others write is
recreated here, from Sidekiq 6.4 and 8, BullMQ 6.7 and 4, and arq 0.28.
"""

from __future__ import annotations

import importlib
import json
import os
from datetime import datetime, timedelta
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import redis

from bts_collectors.redis.collector import RedisCollector
from bts_collectors.redis.keyspace import scanner
from bts_collectors.redis.queues.config import (
    CelerySettings,
    LibrarySettings,
    QueueSettings,
    WantedNames,
)
from bts_exporter import testing
from servers import wait_until
from servers.redis import MakeCollector, RedisServer, failure

pytestmark = pytest.mark.live

#: Seconds that a message of these tests has been waiting.
AGE = 60


def library(name: str) -> ModuleType:
    """Return a library; where it is missing the test is skipped, in CI it fails."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error}: pip install '.[test]'")


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    """Give a client of the empty server."""
    return redis_server.client


class Reader:
    """Collects from one server, with one collector for each set of settings."""

    def __init__(self, url: str, make: MakeCollector) -> None:
        self._url = url
        self._make = make
        self._collectors: dict[str, RedisCollector] = {}

    def __call__(self, **queues: Any) -> testing.Samples:
        """Return the samples of queues."""
        settings = QueueSettings(**queues)
        collector = self._collectors.get(repr(settings))
        if collector is None:
            collector = self._make(self._url, queues=settings)
            self._collectors[repr(settings)] = collector
        return testing.collect(collector)


@pytest.fixture
def collect(redis_server: RedisServer, redis_collector: MakeCollector) -> Reader:
    """Give a function that collects with the given queue settings."""
    return Reader(redis_server.url, redis_collector)


def depths(samples: testing.Samples) -> dict[str, dict[str, float]]:
    """Return the states of each queue that are not empty."""
    by_queue: dict[str, dict[str, float]] = {}
    for (_, _, queue, state), count in samples["redis_queue_messages"].items():
        states = by_queue.setdefault(queue, {})
        if count:
            states[state] = count
    return by_queue


def age(samples: testing.Samples, queue: str) -> float:
    """Return the age of the next message of a queue."""
    return next(
        seconds
        for (_, _, name), seconds in samples["redis_queue_oldest_age_seconds"].items()
        if name == queue
    )


def now(client: redis.Redis) -> float:
    """Return the server's clock in seconds."""
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1e6)


def double(number: int) -> int:
    """Return twice the number: a job that succeeds."""
    return 2 * number


def fail() -> None:
    """Raise an error: a job that fails."""
    msg = "on purpose"
    raise ValueError(msg)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rq(client: redis.Redis, collect: Reader) -> None:
    """RQ: every registry of every queue is what RQ itself counts, and the age that of the first job."""
    rq = library("rq")
    waiting, done = rq.Queue("waiting", connection=client), rq.Queue("done", connection=client)
    done.enqueue(double, 1)
    done.enqueue(fail)
    done.enqueue(double, 2).cancel()
    rq.SimpleWorker([done], connection=client).work(burst=True, logging_level="CRITICAL")
    first = waiting.enqueue(double, 3)
    waiting.enqueue(double, 4)
    waiting.enqueue(double, 5, depends_on=first)
    waiting.enqueue_in(timedelta(hours=1), double, 6)

    samples = collect(rq=LibrarySettings())

    assert depths(samples) == {
        "waiting": {"ready": 2, "deferred": 1, "scheduled": 1},
        "done": {"completed": 1, "failed": 1, "canceled": 1},
    }
    for queue in (waiting, done):
        states = depths(samples)[queue.name]
        assert states.get("ready", 0) == queue.count
        assert states.get("completed", 0) == queue.finished_job_registry.count
        assert states.get("failed", 0) == queue.failed_job_registry.count
        assert states.get("deferred", 0) == queue.deferred_job_registry.count
        assert states.get("scheduled", 0) == queue.scheduled_job_registry.count
        assert states.get("canceled", 0) == queue.canceled_job_registry.count
    expected = now(client) - first.enqueued_at.timestamp()
    assert age(samples, "waiting") == pytest.approx(expected, abs=20)
    assert age(samples, "done") == 0
    assert samples["messaging_backlog_messages"] == {
        ("redis", "rq:queue:done", ""): 0,
        ("redis", "rq:queue:waiting", ""): 2,
    }


def test_rq_jobs_at_work(client: redis.Redis, collect: Reader) -> None:
    """RQ: a job on its way to a worker and a job that runs are in flight, with any prefix."""
    client.sadd("app:queues", "app:queue:a", "app:queue:b")
    client.rpush("app:queue:a:intermediate", "1")
    client.zadd("app:wip:a", {"2:execution": 1.0, "3:execution": 2.0})

    samples = collect(rq=LibrarySettings(prefix="app", names=("a",)))

    assert depths(samples) == {"a": {"active": 3}}
    assert samples["messaging_in_flight_messages"] == {("redis", "app:queue:a", ""): 3}


def test_huey(client: redis.Redis, redis_server: RedisServer, collect: Reader) -> None:
    """Huey: a list, or a sorted set whose first message has its time; and the schedule."""
    huey = library("huey")
    plain = huey.RedisHuey("plain-one", port=redis_server.port)
    urgent = huey.PriorityRedisHuey("urgent", port=redis_server.port)
    for each in (plain, urgent):
        task = each.task()(double)
        task(1)
        task(2)
        each.storage.add_to_schedule(b"later", datetime(2100, 1, 1))  # noqa: DTZ001  # as huey does

    samples = collect(huey=WantedNames())

    counts = {"ready": plain.pending_count(), "scheduled": plain.scheduled_count()}
    assert counts == {"ready": 2, "scheduled": 1}
    assert depths(samples) == {"plainone": counts, "urgent": counts}
    assert 0 <= age(samples, "urgent") < AGE
    assert [key[2] for key in samples["redis_queue_oldest_age_seconds"]] == ["urgent"]


def test_an_empty_huey_with_priorities(redis_server: RedisServer, collect: Reader) -> None:
    """Huey: a sorted set that has run empty still has the age 0, though it is not there."""
    huey = library("huey").PriorityRedisHuey("urgent", port=redis_server.port)
    huey.task()(double)(1)
    collecting = partial(collect, huey=WantedNames(names=("urgent",)))
    assert depths(collecting()) == {"urgent": {"ready": 1}}
    huey.storage.dequeue()

    samples = collecting()

    assert depths(samples) == {"urgent": {}}
    assert age(samples, "urgent") == 0


def test_dramatiq(client: redis.Redis, redis_server: RedisServer, collect: Reader) -> None:
    """Dramatiq: active, delayed and dead messages are distinguished from waiting ones."""
    dramatiq = library("dramatiq")
    broker = importlib.import_module("dramatiq.brokers.redis").RedisBroker(port=redis_server.port)
    task = dramatiq.actor(double, broker=broker, queue_name="tasks")
    sent = [task.send(number) for number in range(5)]
    task.send_with_options(args=(1,), delay=3_600_000)
    consumer = broker.consume("tasks", prefetch=3, timeout=1000)
    consumer.nack(next(consumer))

    samples = collect(dramatiq=LibrarySettings())

    assert client.llen("dramatiq:tasks") == 2
    assert depths(samples) == {"tasks": {"ready": 2, "active": 2, "dead": 1, "scheduled": 1}}
    expected = now(client) - sent[3].message_timestamp / 1000
    assert age(samples, "tasks") == pytest.approx(expected, abs=20)
    assert samples["messaging_in_flight_messages"] == {("redis", "dramatiq:tasks", ""): 2}
    broker.close()


def test_celery(redis_server: RedisServer, collect: Reader) -> None:
    """Celery: messages of every priority count for their queue, unacknowledged ones for all queues together."""
    kombu = library("kombu")
    library("packaging")  # kombu's transport wants it
    options = {"global_keyprefix": "app:"}
    with kombu.Connection(redis_server.url, transport_options=options) as connection:
        queue = connection.SimpleQueue("celery")
        for priority in (0, 0, 3, 5, 9):
            queue.put({}, priority=priority)
        connection.SimpleQueue("mail.out").put({})
        queue.get(timeout=20)

        samples = collect(celery=CelerySettings(prefix="app:", names=("celery", "mail.*", "idle")))

        assert depths(samples) == {
            "": {"active": 1},
            "celery": {"ready": queue.queue.queue_declare().message_count},
            "mail.out": {"ready": 1},
            "idle": {},
        }
        assert samples["messaging_backlog_messages"] == {
            ("redis", "app:celery", ""): 4,
            ("redis", "app:mail.out", ""): 1,
            ("redis", "app:idle", ""): 0,
        }
        assert samples["messaging_in_flight_messages"] == {("redis", "app:unacked", ""): 1}
        # The age of the other messages is known in later scrapes.
        assert samples["messaging_lag_seconds"] == {("redis", "app:idle", ""): 0}


def test_a_huey_spelled_as_its_program_spells_it(
    redis_server: RedisServer, collect: Reader
) -> None:
    """Huey removes characters from a queue's name; the setting takes the name in the program."""
    huey = library("huey")
    queue = huey.RedisHuey("my-app.jobs", port=redis_server.port)
    queue.task()(double)(1)

    samples = collect(huey=WantedNames(names=("my-app.jobs",)))

    assert depths(samples) == {"my-app.jobs": {"ready": queue.pending_count()}}


def test_arq_in_every_scrape(client: redis.Redis, collect: Reader) -> None:
    """Due jobs depend on the server's clock, which later scrapes read in the same round trip."""
    client.zadd("arq:queue", {"job": 1})

    for _ in range(2):
        samples = collect(arq=WantedNames())

        assert depths(samples) == {"arq:queue": {"ready": 1}}


@pytest.mark.parametrize("milliseconds", [False, True], ids=["6.4", "8"])
def test_sidekiq(client: redis.Redis, collect: Reader, milliseconds: bool) -> None:
    """Sidekiq: jobs in JSON have the time of queueing in seconds or, since 8, in milliseconds."""
    queued = now(client) - AGE
    job = {"class": "A", "args": [{"enqueued_at": 1}, "x" * 10_000], "queue": "low"}
    job["enqueued_at"] = int(queued * 1000) if milliseconds else queued
    client.sadd("queues", "low", "idle")
    client.lpush("queue:low", json.dumps(job), json.dumps(job | {"enqueued_at": queued + 50}))
    client.zadd("schedule", {"a": 1})
    client.zadd("retry", {"a": 1, "b": 2})
    client.zadd("dead", {"a": 1, "b": 2, "c": 3})

    samples = collect(sidekiq=LibrarySettings())

    assert depths(samples) == {
        "": {"scheduled": 1, "retry": 2, "dead": 3},
        "low": {"ready": 2},
        "idle": {},
    }
    assert age(samples, "low") == pytest.approx(AGE, abs=20)
    assert age(samples, "idle") == 0
    assert samples["messaging_backlog_messages"] == {
        ("redis", "queue:idle", ""): 0,
        ("redis", "queue:low", ""): 2,
    }


def test_bullmq(client: redis.Redis, collect: Reader) -> None:
    """BullMQ: each state is a list or a sorted set, and a job's hash has its creation time."""
    made = int((now(client) - AGE) * 1000)
    for queue in ("mail", "idle", "urgent"):
        client.hset(f"bull:{queue}:meta", "opts.maxLenEvents", "10000")
    client.lpush("bull:mail:wait", "1", "2")
    client.lpush("bull:mail:active", "3")
    client.hset("bull:mail:1", mapping={"name": "a", "timestamp": made, "delay": 0})
    client.zadd("bull:mail:delayed", {"4": made * 0x1000})
    client.zadd("bull:mail:waiting-children", {"5": made})
    client.zadd("bull:mail:failed", {"6": made, "7": made})
    client.zadd("bull:mail:completed", {"8": made, "9": made, "10": made})
    client.zadd("bull:urgent:prioritized", {"1": 5 * 0x100000000})
    client.hset("bull:urgent:1", mapping={"name": "a", "timestamp": made + 30_000})

    samples = collect(bullmq=LibrarySettings())

    assert depths(samples) == {
        "mail": {
            "ready": 2,
            "active": 1,
            "scheduled": 1,
            "deferred": 1,
            "failed": 2,
            "completed": 3,
        },
        "idle": {},
        "urgent": {"ready": 1},
    }
    assert age(samples, "mail") == pytest.approx(AGE, abs=20)
    assert age(samples, "urgent") == pytest.approx(AGE - 30, abs=20)
    assert age(samples, "idle") == 0


def test_a_paused_bullmq_of_old(client: redis.Redis, collect: Reader) -> None:
    """BullMQ: before 6 paused jobs are in a separate list; before 5 a marker is not a job."""
    client.hset("bull:mail:meta", "paused", 1)
    client.lpush("bull:mail:paused", "1", "2")
    client.hset("bull:mail:1", "timestamp", int((now(client) - AGE) * 1000))
    client.hset("bull:idle:meta", "opts.maxLenEvents", "10000")
    client.lpush("bull:idle:wait", "0:1795453795873")

    samples = collect(bullmq=LibrarySettings())

    assert depths(samples) == {"mail": {"paused": 2}, "idle": {}}
    assert samples["messaging_backlog_messages"][("redis", "bull:mail", "")] == 2
    assert age(samples, "mail") == pytest.approx(AGE, abs=20)
    assert age(samples, "idle") == 0


def test_arq(client: redis.Redis, collect: Reader) -> None:
    """Arq: a job stays in the queue while it runs, and is neither waiting then nor the oldest."""
    due = (now(client) - AGE) * 1000
    jobs = {"running": due - 5000, "first": due, "second": due + 1, "later": due + 3_600_000}
    client.zadd("arq:queue", jobs)
    client.set("arq:in-progress:running", 1)
    client.zadd("arq:abort", {"x": 1})
    client.zadd("arq:night", {"y": due})

    samples = collect(arq=WantedNames(names=("arq:queue", "arq:*")))

    assert depths(samples) == {
        "arq:queue": {"ready": 2, "active": 1, "scheduled": 1},
        "arq:night": {"ready": 1},
    }
    assert age(samples, "arq:queue") == pytest.approx(AGE, abs=20)
    assert samples["messaging_in_flight_messages"][("redis", "arq:queue", "")] == 1


def test_plain_keys(client: redis.Redis, collect: Reader) -> None:
    """Lists, sets and sorted sets are queues by name or pattern; other types are not looked at."""
    client.rpush("jobs:a", 1, 2, 3)
    client.sadd("todo", 1, 2)
    client.zadd("delayed", {"a": 1})
    client.set("jobs:config", "x")

    samples = collect(lists=("jobs:*", "idle"), sets=("todo",), zsets=("delayed",))

    assert depths(samples) == {
        "jobs:a": {"ready": 3},
        "idle": {},
        "todo": {"ready": 2},
        "delayed": {"ready": 1},
    }
    assert samples["messaging_backlog_messages"] == {
        ("redis", "jobs:a", ""): 3,
        ("redis", "idle", ""): 0,
        ("redis", "todo", ""): 2,
        ("redis", "delayed", ""): 1,
    }


def test_a_queue_that_two_settings_want(client: redis.Redis, collect: Reader) -> None:
    """A list that is also a library's queue is emitted once in the backlog metrics, as the library's."""
    client.rpush("celery", 1)
    client.rpush("celery\x06\x169", 1)

    samples = collect(celery=LibrarySettings(), lists=("celery",))

    assert samples["redis_queue_messages"] == {
        ("celery", "db0", "", "active"): 0,
        ("celery", "db0", "celery", "ready"): 2,
        ("", "db0", "celery", "ready"): 1,
    }
    assert samples["messaging_backlog_messages"] == {("redis", "celery", ""): 2}


def test_a_queue_that_runs_empty_stays_at_0(
    client: redis.Redis,
    redis_server: RedisServer,
    redis_collector: MakeCollector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list that a pattern found is at 0 when Redis has deleted it, through all later walks."""
    monkeypatch.setattr(scanner, "INTERVAL_SECONDS", 0)
    collector = redis_collector(redis_server.url, queues=QueueSettings(lists=("jobs:*",)))
    client.rpush("jobs:a", 1)
    assert depths(testing.collect(collector)) == {"jobs:a": {"ready": 1}}
    client.delete("jobs:a")
    client.rpush("jobs:b", 1)

    wait_until(lambda: "jobs:b" in depths(testing.collect(collector)), "jobs:b is found")

    samples = testing.collect(collector)
    assert depths(samples) == {"jobs:a": {}, "jobs:b": {"ready": 1}}
    assert samples["messaging_backlog_messages"][("redis", "jobs:a", "")] == 0


def test_messages_without_a_time_have_no_age(client: redis.Redis, collect: Reader) -> None:
    """An invalid message, or an impossible time, gives no age."""
    client.sadd("queues", "text", "old", "soon", "none")
    client.lpush("queue:text", b"\xff\x00")
    client.lpush("queue:old", json.dumps({"enqueued_at": 7}))
    client.lpush("queue:soon", json.dumps({"enqueued_at": now(client) + 1e9}))
    client.lpush("queue:none", json.dumps({"args": []}))

    samples = collect(sidekiq=LibrarySettings())

    assert "redis_queue_oldest_age_seconds" not in samples
    assert "messaging_lag_seconds" not in samples
    assert sum(samples["messaging_backlog_messages"].values()) == 4


def test_a_key_of_another_type(
    client: redis.Redis, redis_server: RedisServer, redis_collector: MakeCollector
) -> None:
    """A string with the name of a queue is reported, and the other queues are emitted."""
    client.set("jobs", 1)
    client.rpush("more", 1)
    collector = redis_collector(redis_server.url, queues=QueueSettings(lists=("jobs", "more")))

    samples, error = failure(collector)

    assert error.reason == "protocol"
    assert depths(samples) == {"more": {"ready": 1}}


def test_arq_at_every_scrape(client: redis.Redis, collect: Reader) -> None:
    """Later scrapes need fewer round trips, and emit the same."""
    client.zadd("arq:queue", {"job": (now(client) - AGE) * 1000})

    for _ in range(3):
        samples = collect(arq=WantedNames())
        assert depths(samples) == {"arq:queue": {"ready": 1}}
        assert age(samples, "arq:queue") == pytest.approx(AGE, abs=5)


def test_a_producer_whose_clock_is_wrong(client: redis.Redis, collect: Reader) -> None:
    """A job from five hours ahead does not have age 0: at first no age, then a lower bound."""
    client.sadd("queues", "default")
    client.lpush("queue:default", json.dumps({"enqueued_at": now(client) + 5 * 3600}))
    common = ("redis", "queue:default", "")

    samples = collect(sidekiq=LibrarySettings())
    assert samples["messaging_backlog_messages"] == {common: 1}
    assert "messaging_lag_seconds" not in samples
    assert "redis_queue_oldest_age_seconds" not in samples

    samples = collect(sidekiq=LibrarySettings())
    assert 0 < samples["messaging_lag_seconds"][common] < AGE
    assert samples["messaging_lag_method_info"] == {(*common, "lower_bound"): 1}


def test_a_job_is_not_older_than_the_queue_was_empty(client: redis.Redis, collect: Reader) -> None:
    """A job in a queue that was empty is not older than that, whatever its own time is."""
    client.sadd("queues", "default")
    common = ("redis", "queue:default", "")
    assert collect(sidekiq=LibrarySettings())["messaging_lag_seconds"] == {common: 0}
    assert collect(sidekiq=LibrarySettings())["messaging_drain_seconds"] == {common: 0}
    client.lpush("queue:default", json.dumps({"enqueued_at": now(client) - 5 * 3600}))

    assert "messaging_lag_seconds" not in collect(sidekiq=LibrarySettings())
    samples = collect(sidekiq=LibrarySettings())
    assert 0 < samples["messaging_lag_seconds"][common] < AGE


def test_the_time_until_a_list_is_empty(client: redis.Redis, collect: Reader) -> None:
    """The drain time is 0 for an empty list, and unknown until the list became shorter."""
    client.rpush("jobs", 1, 2, 3)
    assert "messaging_drain_seconds" not in collect(lists=("jobs",))

    client.delete("jobs")
    assert collect(lists=("jobs",))["messaging_drain_seconds"] == {("redis", "jobs", ""): 0}
