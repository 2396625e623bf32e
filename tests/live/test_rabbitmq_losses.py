"""Real queues that refuse, drop or expire messages, and a virtual host that is stopped.

Each message says when it was published, so that what is consumed next says how old the oldest was.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_exporter import Scrape, TargetError, Url, testing
from servers import wait_until
from servers.exporter import StartExporter
from servers.rabbitmq import RabbitMQ as Broker

pytestmark = pytest.mark.live

SECONDS = 60
SCRAPES_EVERY = 5
#: Messages a second.
PUBLISHED, CONSUMED = 20, 2
TOLERANCE = 10.0

QUEUES: dict[str, dict[str, object]] = {
    "refusing": {"max_length": 200, "overflow": "reject-publish"},
    "refusing-quorum": {
        "queue_type": "quorum",
        "max_length": 200,
        "overflow": "reject-publish",
    },
    "dropping": {"max_length": 300},
    "expiring": {"message_ttl": 15_000},
    "overtaking": {"max_priority": 5},
}


class Look(NamedTuple):
    """What was exported of a queue at a time."""

    queue: str
    time: float
    method: str
    lag: float


class Traffic:
    """Publishes faster than it consumes, and notes what it consumes."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._over = threading.Event()
        #: By queue, when each message was consumed, and when that had been published.
        self.consumed: dict[str, list[tuple[float, float]]] = {name: [] for name in QUEUES}
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def age(self, look: Look) -> float | None:
        """Return how old the oldest message was, None if it was not consumed yet."""
        found = self.consumed[look.queue]
        following = bisect_right(found, (look.time, 0.0))
        return look.time - found[following][1] if following < len(found) else None

    def _run(self) -> None:
        with self._broker.channel() as channel:
            # The channel confirms; waiting for each confirmation would slow the publisher down.
            plain = channel.connection.channel()
            began = time.monotonic()
            sent = taken = 0
            while not self._over.wait(0.02):
                elapsed = time.monotonic() - began
                while sent < elapsed * PUBLISHED:
                    sent += 1
                    for name in QUEUES:
                        plain.basic_publish("", name, str(time.monotonic()).encode())
                while taken < elapsed * CONSUMED:
                    taken += 1
                    for name in QUEUES:
                        self._take(plain, name)

    def _take(self, channel: object, name: str) -> None:
        method, _, body = channel.basic_get(name)  # type: ignore[attr-defined]
        if method is not None:
            channel.basic_ack(method.delivery_tag)  # type: ignore[attr-defined]
            self.consumed[name].append((time.monotonic(), float(body)))


@contextmanager
def exporter(broker: Broker) -> Iterator[RabbitMQ]:
    """Return a collector of the broker that is stopped in the end."""
    made = COLLECTOR(COLLECTOR.Config(url=Url.from_setting(broker.url), source="management"))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def looks(rabbitmq: Broker) -> list[tuple[Look, float]]:
    """Return what was exported in a minute, and what was true."""
    for name, arguments in QUEUES.items():
        rabbitmq.queue(name, **arguments)
    found = []
    with exporter(rabbitmq) as made:
        testing.collect(made, 20)
        with Traffic(rabbitmq) as traffic:
            began = time.monotonic()
            for due in range(SCRAPES_EVERY, SECONDS, SCRAPES_EVERY):
                time.sleep(max(began + due - time.monotonic(), 0))
                samples = testing.collect(made, 20)
                now = time.monotonic()
                methods = {key[1]: key[3] for key in samples["messaging_lag_method_info"]}
                found += [
                    Look(name, now, methods.get(name, ""), lag)
                    for (_, name, _), lag in samples["messaging_lag_seconds"].items()
                    if name in QUEUES
                ]
            time.sleep(2)
    return [(one, true) for one in found if (true := traffic.age(one)) is not None]


@pytest.mark.parametrize("queue", [name for name in QUEUES if name != "overtaking"])
def test_the_lag_is_right_whatever_the_queue_does_with_messages(
    looks: list[tuple[Look, float]], queue: str
) -> None:
    """At nine of ten scrapes the lag is within ten seconds or a tenth."""
    found = [(one, true) for one, true in looks if one.queue == queue]
    wrong = [(one, true) for one, true in found if abs(one.lag - true) > max(TOLERANCE, 0.1 * true)]

    assert len(found) >= 8
    assert len(wrong) <= 0.1 * len(found), wrong


def test_a_lag_of_a_queue_with_priorities_is_a_lower_bound(
    looks: list[tuple[Look, float]],
) -> None:
    """With priorities the lag is a lower bound."""
    found = [(one, true) for one, true in looks if one.queue == "overtaking"]

    assert found
    assert {one.method for one, _ in found} <= {"lower_bound", ""}
    assert all(one.lag <= true + TOLERANCE for one, true in found)


def test_a_virtual_host_that_is_stopped_has_no_backlog_until_it_runs_again(
    rabbitmq: Broker,
) -> None:
    """The backlog of a stopped virtual host is absent, not 0."""
    rabbitmq.vhost("stopped")
    rabbitmq.queue("orders", "stopped")
    with exporter(rabbitmq) as made:
        key = ("rabbitmq", "/stopped/orders", "")

        def depth() -> float | None:
            return testing.collect(made, 20).get("messaging_backlog_messages", {}).get(key)

        rabbitmq.publish("orders", 3, "stopped", delivery_mode=2)
        wait_until(lambda: depth() == 3, "the messages show")
        rabbitmq.ctl("eval", 'rabbit_vhost_sup_sup:stop_and_delete_vhost(<<"stopped">>).')
        wait_until(lambda: depth() != 3, "the virtual host is stopped")
        stopped = testing.collect(made, 20)
        rabbitmq.ctl("restart_vhost", "--vhost", "stopped")
        # The way to stop it takes the messages along.
        wait_until(lambda: depth() == 0, "the queue shows again")

    assert key not in stopped["messaging_backlog_messages"]
    assert key not in stopped["messaging_lag_seconds"]
    assert stopped["rabbitmq_health_check_ok"]["virtual-hosts",] == 0
    rabbitmq.api("vhosts/stopped", "DELETE")


@pytest.mark.parametrize(
    ("port", "scheme", "settings", "words"),
    [
        ("amqp", "http", {}, "AMQP"),
        ("stream", "http", {}, "15672"),
        ("native", "http", {"source": "management"}, "15692"),
        ("mgmt", "amqp", {"declare": ("q",)}, "15672"),
        ("stream", "amqp", {"declare": ("q",)}, "5672"),
        ("amqp", "https", {}, "TLS"),
        ("amqp", "amqps", {"declare": ("q",)}, "TLS"),
    ],
)
def test_a_wrong_port_of_the_broker_is_named(
    rabbitmq: Broker, port: str, scheme: str, settings: dict[str, object], words: str
) -> None:
    """The error for another port of the broker names the right one."""
    url = Url.from_setting(f"{scheme}://127.0.0.1:{getattr(rabbitmq, port)}")
    made = COLLECTOR(COLLECTOR.Config(url=url, **settings))
    with pytest.raises(TargetError) as caught:
        made.collect(Scrape(time.monotonic() + 5))
    made.stop()

    assert words in str(caught.value)


def test_a_password_that_was_changed_is_read_again_over_amqp(
    rabbitmq: Broker, exporter: StartExporter, tmp_path: Path
) -> None:
    """A rotated password is used over AMQP without a reload."""
    secret = tmp_path / "password"
    secret.write_text("old")
    rabbitmq.user("rotated", "old", "")
    rabbitmq.ctl("set_permissions", "-p", "/", "rotated", "^$", "^$", ".*")
    rabbitmq.queue("rotated")
    process = exporter(
        "plugins: none\ncollectors:\n  rabbitmq:\n"
        f"    url: amqp://rotated@127.0.0.1:{rabbitmq.amqp}\n"
        f"    password: !file {secret}\n    declare: [rotated]\n"
    )
    before = process.value("rabbitmq_up")
    rabbitmq.user("rotated", "new", "")
    secret.write_text("new")
    rabbitmq.ctl("close_all_user_connections", "rotated", "rotated")

    assert before == 1
    wait_until(lambda: process.value("rabbitmq_up") == 1, "the new password is used")
    assert process.value("rabbitmq_queue_exists", vhost="/", queue="rotated") == 1
