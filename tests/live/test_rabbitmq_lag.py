"""The lag in seconds on real brokers, held against when each message was published and delivered.

All queues of both brokers are watched in the same minute: it is the slowest test there is.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, Self

import pika
import pika.exceptions
import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_collectors.rabbitmq.metrics.queue_order import DEPTH_DELAY_SECONDS
from bts_exporter import Url, testing
from servers import wait_until
from servers.rabbitmq import AmqpConsumer, start
from servers.rabbitmq import RabbitMQ as Broker
from servers.rabbitstream import StreamReader

pytestmark = pytest.mark.live

SECONDS = 60
SCRAPES_EVERY = 5
#: When something happens to some queues, in seconds since the beginning.
RESTART, PURGE, RECREATION = 25, 30, 35

#: Messages per second, by seconds since the beginning.
Speed = Callable[[float], float]


class Plan(NamedTuple):
    """How one queue is used."""

    name: str
    kind: str
    publish: Speed
    consume: Speed


def plans(tolerance: float) -> list[Plan]:
    """Return the plans for a broker; pauses are no longer than what the lag may be wrong by.

    Where a longer one ends, the true lag falls by more than that at a blow.
    """
    schedules: dict[str, tuple[Speed, Speed]] = {
        "steady": (lambda _: 40, lambda _: 30),
        "bursty": (lambda now: 160 if now % tolerance < tolerance / 5 else 0, lambda _: 25),
        "pausing": (lambda now: 50 if now % (2 * tolerance) < tolerance else 0, lambda _: 22),
        "caught-up": (lambda _: 20, lambda now: 60 if now > SECONDS / 3 else 0),
        "stuck": (lambda now: 20 if now < SECONDS / 2 else 0, lambda _: 0),
        "purged": (lambda _: 20, lambda _: 5),
        "made-again": (lambda _: 20, lambda _: 5),
    }
    return [
        Plan(f"{name}-{kind}", kind, publish, consume)
        for kind in ("classic", "quorum")
        for name, (publish, consume) in schedules.items()
    ]


class Truth:
    """When the messages of one queue were published, and how many of them wait no more, when."""

    def __init__(self) -> None:
        self.published: list[float] = []
        self._gone: list[tuple[float, int]] = [(0.0, 0)]

    def gone(self, count: int) -> None:
        """Note that so many have been delivered, or purged, by now."""
        self._gone.append((time.monotonic(), count))

    @property
    def taken(self) -> int:
        """Return how many wait no more."""
        return self._gone[-1][1]

    def age(self, now: float) -> float:
        """Return the age of the oldest message that waited at `now`, 0 if none did."""
        head = self._gone[bisect_right(self._gone, (now, 1 << 60)) - 1][1]
        there = bisect_right(self.published, now)
        return now - self.published[head] if head < there else 0.0


class Traffic:
    """Publishes and consumes by plans in two threads, each with a connection of its own."""

    def __init__(self, broker: Broker, used: Sequence[Plan]) -> None:
        self.truths = {plan.name: Truth() for plan in used}
        self.began = time.monotonic()
        self._broker = broker
        self._plans = used
        self._over = threading.Event()
        #: Held by code that must not be disturbed: a purge must know what it purges.
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(self._publish, "publish")),
            threading.Thread(target=self._run, args=(self._consume, "consume")),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def empty(self, name: str, method: str, path: str) -> None:
        """Purge or delete a queue, and note that nothing waits in it any more."""
        with self._lock:
            self._broker.api(path.format(name), method)
            self.truths[name].gone(len(self.truths[name].published))
            if not path.endswith("contents"):
                self._broker.queue(name, queue_type=name.rpartition("-")[2])

    def _run(
        self,
        step: Callable[[pika.adapters.blocking_connection.BlockingChannel, str], bool],
        what: str,
    ) -> None:
        connection = pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", self._broker.amqp, heartbeat=0)
        )
        channel = connection.channel()
        due = dict.fromkeys(self.truths, 0.0)
        last = time.monotonic()
        while not self._over.is_set():
            now = time.monotonic()
            for plan in self._plans:
                speed: Speed = getattr(plan, what)
                due[plan.name] += speed(now - self.began) * (now - last)
                with self._lock:
                    while due[plan.name] >= 1:
                        due[plan.name] = due[plan.name] - 1 if step(channel, plan.name) else 0
            last = now
            connection.sleep(0.02)
        connection.close()

    def _publish(
        self, channel: pika.adapters.blocking_connection.BlockingChannel, name: str
    ) -> bool:
        channel.basic_publish("", name, b"x")
        self.truths[name].published.append(time.monotonic())
        return True

    def _consume(
        self, channel: pika.adapters.blocking_connection.BlockingChannel, name: str
    ) -> bool:
        method, _, _ = channel.basic_get(name)
        if method is None or method.delivery_tag is None:
            return False
        channel.basic_ack(method.delivery_tag)
        self.truths[name].gone(self.truths[name].taken + 1)
        return True


class Look(NamedTuple):
    """What an exporter said of a queue, and what was true."""

    queue: str
    elapsed: float
    method: str
    lag: float
    true: float

    def is_right(self, tolerance: float) -> bool:
        """Return whether it is near enough."""
        return abs(self.lag - self.true) <= max(tolerance, 0.1 * self.true)


@contextmanager
def exporter(broker: Broker) -> Iterator[RabbitMQ]:
    """Return a collector of the broker that is stopped in the end."""
    made = COLLECTOR(COLLECTOR.Config(url=Url.from_setting(broker.url), source="management"))
    try:
        yield made
    finally:
        made.stop()


def look(made: RabbitMQ, traffic: Traffic) -> Iterator[Look]:
    """Yield what the exporter says now of each queue of which it says something."""
    samples = testing.collect(made, 20)
    now = time.monotonic()
    lags = samples.get("messaging_lag_seconds", {})
    methods = {key[:3]: key[3] for key in samples.get("messaging_lag_method_info", {})}
    for name, truth in traffic.truths.items():
        key = ("rabbitmq", name, "")
        if key in lags:
            elapsed = now - traffic.began
            yield Look(name, elapsed, methods.get(key, ""), lags[key], truth.age(now))


@pytest.fixture(scope="module")
def looks(
    rabbitmq: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[float, str], list[Look]]]:
    """Return all looks at both brokers, by tolerance in seconds and exporter: `first`, `second`."""
    with ExitStack() as ends:
        late = start(tmp_path_factory, "collect_statistics_interval = 5000\n")
        ends.callback(late.stop)
        found: dict[tuple[float, str], list[Look]] = {}
        brokers = ((rabbitmq, 5.0), (late, 10.0))
        for broker, tolerance in brokers:
            used = plans(tolerance)
            for plan in used:
                broker.queue(plan.name, queue_type=plan.kind)
            broker.wait_for_statistics([plan.name for plan in used])
        # Nothing is published before both are ready: the first look must find empty queues.
        traffics = [
            (broker, tolerance, ends.enter_context(Traffic(broker, plans(tolerance))))
            for broker, tolerance in brokers
        ]
        watching = [
            threading.Thread(target=watch, args=(broker, tolerance, traffic, found))
            for broker, tolerance, traffic in traffics
        ]
        for thread in watching:
            thread.start()
        for thread in watching:
            thread.join()
        yield found


def watch(
    broker: Broker,
    tolerance: float,
    traffic: Traffic,
    found: dict[tuple[float, str], list[Look]],
) -> None:
    """Look again and again, from some time on with a second exporter, and let things happen."""
    first, second = (found.setdefault((tolerance, name), []) for name in ("first", "second"))
    events = {
        PURGE: ("purged", "DELETE", "queues/%2F/{}/contents"),
        RECREATION: ("made-again", "DELETE", "queues/%2F/{}"),
    }
    with exporter(broker) as old, exporter(broker) as new:
        for elapsed in range(0, SECONDS + 1, SCRAPES_EVERY):
            time.sleep(max(traffic.began + elapsed - time.monotonic(), 0))
            if elapsed in events:
                name, method, path = events[elapsed]
                for kind in ("classic", "quorum"):
                    traffic.empty(f"{name}-{kind}", method, path)
            first += look(old, traffic)
            if elapsed >= RESTART:
                second += look(new, traffic)


def undisturbed(looks: Sequence[Look]) -> list[Look]:
    """Return those at queues that are not purged or replaced: the broker reports such changes late."""
    return [one for one in looks if not one.queue.startswith(("purged", "made-again"))]


@pytest.mark.parametrize("tolerance", [5.0, 10.0], ids=["statistics-1s", "statistics-5s"])
@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_the_lag_is_the_age_of_the_oldest_message_that_waits(
    looks: dict[tuple[float, str], list[Look]], kind: str, tolerance: float
) -> None:
    """At 95 of 100 scrapes the lag is within the tolerance, whatever publishers do."""
    found = [one for one in undisturbed(looks[tolerance, "first"]) if one.queue.endswith(kind)]
    wrong = [one for one in found if not one.is_right(tolerance)]

    assert len(found) > SECONDS / SCRAPES_EVERY * 4
    assert len(wrong) <= 0.05 * len(found), wrong


@pytest.mark.parametrize("tolerance", [5.0, 10.0], ids=["statistics-1s", "statistics-5s"])
def test_no_lag_is_absurd(looks: dict[tuple[float, str], list[Look]], tolerance: float) -> None:
    """No lag is negative or impossible, across a start of the exporter, a purge and a recreated queue."""
    for one in (*looks[tolerance, "first"], *looks[tolerance, "second"]):
        assert 0 <= one.lag <= one.elapsed + tolerance, one


@pytest.mark.parametrize("tolerance", [5.0, 10.0], ids=["statistics-1s", "statistics-5s"])
@pytest.mark.parametrize("queue", ["purged", "made-again"])
def test_a_queue_that_was_emptied_has_no_old_messages(
    looks: dict[tuple[float, str], list[Look]], queue: str, tolerance: float
) -> None:
    """After a purge the lag is 0 with the next statistics."""
    settled = max(PURGE, RECREATION) + 2 * tolerance
    found = [
        one
        for one in looks[tolerance, "first"]
        if one.queue.startswith(queue) and one.elapsed > settled
    ]

    exact = [one for one in found if one.method != "lower_bound"]
    assert exact
    assert all(one.is_right(tolerance) for one in exact), found
    assert all(one.lag <= one.true + tolerance for one in found), found


@pytest.mark.parametrize("tolerance", [5.0, 10.0], ids=["statistics-1s", "statistics-5s"])
def test_an_exporter_that_was_started_later_says_no_more_than_it_knows(
    looks: dict[tuple[float, str], list[Look]], tolerance: float
) -> None:
    """Messages from before the start have a lower bound, later ones an exact lag."""
    found = undisturbed(looks[tolerance, "second"])
    bounds = [one for one in found if one.method == "lower_bound"]
    exact = [one for one in found if one.method != "lower_bound"]
    wrong = [one for one in exact if not one.is_right(tolerance)]

    assert bounds
    assert all(one.lag <= one.true + tolerance for one in bounds), bounds
    assert len(wrong) <= 0.05 * len(exact), wrong


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Return a broker whose statistics tests may reset."""
    broker = start(tmp_path_factory)
    yield broker
    broker.stop()


def lag_and_method(made: RabbitMQ, queue: str) -> tuple[float, str] | None:
    """Return the lag of a queue and how it is known; None if there is no lag."""
    samples = testing.collect(made, 20)
    lag = samples.get("messaging_lag_seconds", {}).get(("rabbitmq", queue, ""))
    methods = {key[1]: key[3] for key in samples.get("messaging_lag_method_info", {})}
    return None if lag is None else (lag, methods.get(queue, ""))


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_the_lag_of_a_hung_consumer_continues_when_the_statistics_are_lost(
    forgetful: Broker, kind: str
) -> None:
    """After a reset of the statistics, the oldest message is still at least as old as it is known to be."""
    name = f"hung-{kind}"
    forgetful.queue(name, queue_type=kind)
    with (
        exporter(forgetful) as made,
        AmqpConsumer(forgetful.amqp, name, auto_ack=False, prefetch=10),
    ):
        wait_until(lambda: lag_and_method(made, name) == (0, ""), "the empty queue shows")
        before = time.monotonic()
        with forgetful.channel() as channel:
            for _ in range(20):
                channel.basic_publish("", name, b"x")
            wait_until(lambda: (lag_and_method(made, name) or (0, ""))[0] > 0, "the lag is known")
        # The counts of a channel outlive it for some seconds.
        wait_until(lambda: (lag_and_method(made, name) or (0, ""))[0] > 20, "nothing happens")
        forgetful.api("reset", "DELETE")

        def is_reset() -> bool:
            testing.collect(made, 20)
            shown = forgetful.api(f"queues/%2F/{name}")
            return "publish" not in shown.get("message_stats", {}) and "messages_ready" in shown

        wait_until(is_reset, "the counts are lost")
        continued = lag_and_method(made, name)
        truth = time.monotonic() - before

    assert continued is not None
    assert 20 - DEPTH_DELAY_SECONDS < continued[0] <= truth
    assert continued[1] == "lower_bound"


def test_messages_that_were_counted_before_their_depth_showed_have_a_lag(
    forgetful: Broker,
) -> None:
    """A slow consumer's 10 ready and 10 unacknowledged messages have a lag, whenever the exporter started."""
    forgetful.queue("slow")
    before = time.monotonic()
    with exporter(forgetful) as made, forgetful.channel() as channel:
        for _ in range(20):
            channel.basic_publish("", "slow", b"x")

        def is_counted() -> bool:
            shown = forgetful.api("queues/%2F/slow")
            return "message_stats" in shown and "messages_ready" in shown

        wait_until(is_counted, "the messages are counted")
        testing.collect(made, 20)
        with AmqpConsumer(forgetful.amqp, "slow", auto_ack=False, prefetch=10):
            wait_until(lambda: (lag_and_method(made, "slow") or (0, ""))[0] > 5, "a lag", 60)
            found = lag_and_method(made, "slow")
        truth = time.monotonic() - before

    assert found is not None
    assert found[0] <= truth


def test_the_consumers_of_a_stream_are_as_far_behind_as_they_have_read(rabbitmq: Broker) -> None:
    """Lag is given by consumer name, and the largest one for the stream."""
    rabbitmq.queue("journal", queue_type="stream")
    for _ in range(4):
        rabbitmq.publish("journal", 5)
    behind = ("rabbitmq", "journal", "behind")
    ahead = ("rabbitmq", "journal", "ahead")
    with (
        exporter(rabbitmq) as made,
        StreamReader(rabbitmq.stream, "journal", "behind"),
        StreamReader(rabbitmq.stream, "journal", "ahead") as reader,
    ):
        reader.read(100)
        samples: testing.Samples = {}

        def is_read() -> bool:
            samples.clear()
            samples.update(testing.collect(made, 20))
            return samples.get("messaging_backlog_messages", {}).get(ahead) == 0

        wait_until(is_read, "the stream is read")
        assert samples["messaging_lag_seconds"][ahead] == 0
        assert samples["messaging_backlog_messages"][behind] == 19
        assert samples["rabbitmq_stream_consumer_max_offset_lag"]["/", "journal"] == 19
        assert samples["rabbitmq_stream_consumers"]["/", "journal"] == 2
        method = samples["messaging_lag_method_info"][*behind, "lower_bound"]
        assert method == 1
