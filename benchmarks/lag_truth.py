"""Measures how far messaging_lag_seconds is from the truth, for every kind of queue and ten schedules side by side.

    PYTHONPATH=tests .venv/bin/python benchmarks/lag_truth.py [--seconds 480] [--write] [KIND...]

Prints a table, and with --write puts it into docs/lag.md. The exit status is 1 if a lag was wrong.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import redis

from lag_kinds import (
    CeleryDriver,
    Driver,
    ListDriver,
    MqttPipelineDriver,
    MqttSessionDriver,
    RabbitDriver,
    RedisStreamDriver,
    RqDriver,
    StreamDriver,
    Taken,
)
from lag_schedules import SCHEDULES, Bounds, Schedule, Truth
from servers.exporter import Exporter
from servers.mosquitto import Mosquitto
from servers.rabbitmq import RabbitMQ
from servers.redis import RedisServer

PAGE = Path(__file__).parents[1] / "docs" / "lag.md"
BEGIN, END = "<!-- lag_truth: begin -->", "<!-- lag_truth: end -->"
#: A lag is right if it differs by no more than this many seconds, or this share of the truth.
SECONDS, SHARE = 10.0, 0.1
#: By how much bounds may be beyond the truth, in seconds: clocks are read at different moments.
READING = 1.0
#: Methods whose value says only that the lag is at least, or at most, so large.
LOWER, UPPER = "lower_bound", "upper_bound"
#: Shown as methods: no message waits by the exporter; messages wait and it has no lag.
NOTHING, ABSENT = "0, nothing waits", "absent"
#: How often the clients look for what is due, and how long a consumer holds messages, in seconds.
_STEP, _HOLD = 0.05, 1.0
#: Messages that a consumer returns at once.
_RETURNED = 10


class Servers(NamedTuple):
    """The servers of a run."""

    rabbitmq: RabbitMQ
    redis: RedisServer
    mosquitto: Mosquitto

    def client(self) -> redis.Redis:
        """Return a new connection to Redis."""
        return redis.Redis(port=self.redis.port)


class Kind(NamedTuple):
    """A kind of queue."""

    make: Callable[[Servers], Driver]
    #: How old what the broker reports may be, in seconds: its own statistics or files.
    delay: float


KINDS = {
    "RabbitMQ classic": Kind(lambda s: RabbitDriver(s.rabbitmq.amqp, "classic"), 10.0),
    "RabbitMQ quorum": Kind(lambda s: RabbitDriver(s.rabbitmq.amqp, "quorum"), 10.0),
    "RabbitMQ stream": Kind(lambda s: StreamDriver(s.rabbitmq.amqp, s.rabbitmq.stream), 10.0),
    "Redis stream": Kind(lambda s: RedisStreamDriver(s.client()), 0.0),
    "Redis list": Kind(lambda s: ListDriver(s.client()), 0.0),
    "Celery": Kind(lambda s: CeleryDriver(s.redis.url), 0.0),
    "RQ": Kind(lambda s: RqDriver(s.client()), 0.0),
    "MQTT session": Kind(lambda s: MqttSessionDriver(s.mosquitto.port), 2.0),
    "MQTT pipeline": Kind(lambda s: MqttPipelineDriver(s.mosquitto.port), 0.0),
}


@dataclass
class Destination:
    """A queue that is used and measured."""

    kind: str
    name: str
    truth: Truth
    schedule: Schedule | None = None
    #: The queue of its dead letters.
    dead: Destination | None = None
    #: Its numbers of messages, by those that the messages carry.
    numbers: dict[int, int] = field(default_factory=dict)
    due: list[float] = field(default_factory=lambda: [0.0, 0.0])
    #: Delivered messages with the time of their acknowledgement.
    held: list[tuple[float, Taken]] = field(default_factory=list)
    #: Messages to return, and when.
    returned: tuple[float, list[Taken]] | None = None


class Look(NamedTuple):
    """What the exporter said of a queue, and what was true."""

    kind: str
    name: str
    method: str
    lag: float | None
    true: float
    bounds: Bounds

    @property
    def error(self) -> float:
        """Return the difference to the truth in seconds."""
        return abs((self.lag or 0.0) - self.true)

    @property
    def is_right(self) -> bool:
        """Return whether it is near enough."""
        return self.error <= max(SECONDS, SHARE * self.true)

    @property
    def is_wrong(self) -> bool:
        """Return whether it was not true at any moment that it may be of."""
        if self.lag is None:
            return False
        least, most = self.bounds
        if self.method == LOWER:
            return self.lag > most + READING
        if self.method == UPPER:
            return self.lag < least - READING
        return (
            not least - max(SECONDS, SHARE * least) <= self.lag <= most + max(SECONDS, SHARE * most)
        )


class Traffic:
    """Uses all queues of one kind in a thread."""

    def __init__(self, kind: str, servers: Servers, seconds: float) -> None:
        self._driver = KINDS[kind].make(servers)
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=kind)
        self.failure: BaseException | None = None
        self.destinations = [
            self._destination(kind, schedule)
            for schedule in SCHEDULES
            if schedule.name in self._driver.schedules
        ]
        dead = [each.dead for each in self.destinations if each.dead is not None]
        self.measured = [*self.destinations, *dead]
        for each in (*dead, *self.destinations):
            ttl = each.schedule.ttl if each.schedule is not None else None
            expiry = None if ttl is None else ttl * seconds
            self._driver.declare(each.name, expiry, each.dead.name if each.dead else "")

    @staticmethod
    def _destination(kind: str, schedule: Schedule) -> Destination:
        name = f"truth-{kind.lower().replace(' ', '-')}-{schedule.name}"
        dead = Destination(kind, f"{name}-dead", Truth(time.monotonic()))
        return Destination(
            kind, name, Truth(time.monotonic()), schedule, dead if schedule.dead_letters else None
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and close the connections."""
        self._over.set()
        self._thread.join()
        self._driver.close()

    def _run(self) -> None:
        begin = last = time.monotonic()
        try:
            while not self._over.is_set():
                now = time.monotonic()
                for each in self.destinations:
                    self._step(each, (last - begin) / self._seconds, (now - begin) / self._seconds)
                last = now
                self._over.wait(_STEP)
        except BaseException as error:
            self.failure = error
            raise

    def _step(self, each: Destination, before: float, at: float) -> None:
        """Do what is due of one queue in a part of the run."""
        schedule = each.schedule
        assert schedule is not None
        for index, speed in enumerate((schedule.publish, schedule.consume)):
            each.due[index] = min(each.due[index] + speed(at) * (at - before) * self._seconds, 100)
        while each.due[0] >= 1:
            each.due[0] -= 1
            self._publish(each)
        self._do_events(each, schedule, before, at)
        self._acknowledge(each)
        if each.returned is None:
            self._consume(each, schedule)

    def _publish(self, each: Destination) -> None:
        # Its number is known before it is there: it must not leave before it has arrived.
        number = each.truth.arrive(time.monotonic())
        each.numbers[number] = number
        self._driver.publish(each.name, number)

    def _consume(self, each: Destination, schedule: Schedule) -> None:
        while each.due[1] >= 1:
            taken = self._driver.take(each.name)
            if not taken:
                each.due[1] = 0.0
                return
            each.due[1] -= len(taken)
            now = time.monotonic()
            for message in taken:
                each.truth.leave(message[0], now)
                if each.dead is not None and message[0] % 2:
                    self._bury(each, each.dead, message)
                elif schedule.consumers > 1:
                    each.held.append((now + _HOLD, message))
                else:
                    self._driver.acknowledge(each.name, message)

    def _bury(self, each: Destination, dead: Destination, message: Taken) -> None:
        number = dead.truth.arrive(time.monotonic())
        dead.numbers[message[0]] = number
        self._driver.bury(each.name, dead.name, message)
        if number % 3 == 0:  # some of the dead letters are handled
            for taken in self._driver.take(dead.name):
                self._driver.acknowledge(dead.name, taken)
                dead.truth.leave(dead.numbers[taken[0]], time.monotonic())

    def _do_events(self, each: Destination, schedule: Schedule, before: float, at: float) -> None:
        def is_due(times: Iterable[float]) -> bool:
            return any(before < moment <= at for moment in times)

        now = time.monotonic()
        if schedule.ttl is not None:
            age = schedule.ttl * self._seconds
            if gone := each.truth.expire(now - age, now):
                self._driver.expire(each.name, gone, time.time() - age)
        if is_due(schedule.purges):
            self._driver.purge(each.name)
            each.truth.clear(time.monotonic())
        if is_due(schedule.redeclarations):
            self._driver.redeclare(each.name)
            each.truth.clear(time.monotonic())
        if is_due(schedule.requeues):
            self._hold_back(each)
        if each.returned is not None and now >= each.returned[0]:
            messages, each.returned = each.returned[1], None
            self._driver.give_back(each.name, messages)
            for number, _ in messages:
                each.truth.give_back(number, time.monotonic())

    def _hold_back(self, each: Destination) -> None:
        """Take messages that are returned after a while."""
        messages: list[Taken] = []
        while len(messages) < _RETURNED and (taken := self._driver.take(each.name)):
            messages += taken
        now = time.monotonic()
        for number, _ in messages:
            each.truth.leave(number, now)
        if messages:
            each.returned = now + 5 * _HOLD, messages

    def _acknowledge(self, each: Destination) -> None:
        now = time.monotonic()
        while each.held and each.held[0][0] <= now:
            self._driver.acknowledge(each.name, each.held.pop(0)[1])


def settings(servers: Servers, traffics: Sequence[Traffic]) -> str:
    """Return the exporter's settings for the queues."""

    def names(kind: str) -> list[str]:
        return [each.name for part in traffics for each in part.measured if each.kind == kind]

    pipelines = {
        name: f'{{in_topic: "in/{name}", out_topic: "out/{name}", in_id: id, out_id: id, timeout: 1h}}'
        for name in names("MQTT pipeline")
    }
    return f"""\
collectors:
  rabbitmq: {{url: "http://guest:guest@127.0.0.1:{servers.rabbitmq.mgmt}", source: management}}
  redis:
    url: "{servers.redis.url}"
    streams: {names("Redis stream")}
    queues: {{rq: true, celery: {names("Celery") or "false"}, lists: {names("Redis list")}}}
  mqtt:
    url: "{servers.mosquitto.url}"
    persistence: {{file: "{servers.mosquitto.folder}/mosquitto.db"}}
    pipelines: {{{", ".join(f"{name}: {block}" for name, block in pipelines.items())}}}
"""


def measure(
    servers: Servers, kinds: Sequence[str], folder: Path, *, seconds: float, interval: float
) -> list[Look]:
    """Use all queues for so long, scrape the exporter at each interval, and return every look at a queue."""
    traffics = [Traffic(kind, servers, seconds) for kind in kinds]
    exporter = Exporter(folder, settings(servers, traffics))
    looks: list[Look] = []
    of_rabbitmq = [
        each.name for traffic in traffics for each in traffic.measured if "RabbitMQ" in each.kind
    ]
    try:
        servers.rabbitmq.wait_for_statistics(of_rabbitmq)
        exporter.samples()  # the queues are known while they are empty
        begin = time.monotonic()
        for traffic in traffics:
            traffic.start()
        while time.monotonic() < begin + seconds:
            looks += look(exporter, [each for traffic in traffics for each in traffic.measured])
            time.sleep(interval)
    finally:
        for traffic in traffics:
            traffic.stop()
        exporter.kill()
    failures = [traffic.failure for traffic in traffics if traffic.failure is not None]
    if failures:
        raise failures[0]
    return looks


def look(exporter: Exporter, destinations: Sequence[Destination]) -> Iterator[Look]:
    """Yield what one scrape says of each queue."""
    begin = time.monotonic()
    lags: dict[str, float] = {}
    methods: dict[str, str] = {}
    for (name, labels), value in exporter.samples().items():
        found = dict(labels)
        # The name of the queue is a part of the key, or that of the client or consumer.
        key = found.get("group") or found.get("destination", "").rpartition(":")[2]
        key = found.get("destination", "") if key == RedisStreamDriver.group else key
        key = key.removeprefix("reader-of-")
        if name == "messaging_lag_seconds":
            lags[key] = value
        elif name == "messaging_lag_method_info":
            methods[key] = found["method"]
    now = time.monotonic()
    for each in destinations:
        lag, true = lags.get(each.name), each.truth.age(now)
        bounds = each.truth.bounds(begin - KINDS[each.kind].delay, now)
        if lag is not None:
            method = methods.get(each.name, NOTHING) if lag else NOTHING
        elif bounds.least > 0:
            method = ABSENT
        else:
            continue
        yield Look(each.kind, each.name, method, lag, true, bounds)


def table(looks: Sequence[Look]) -> str:
    """Return the distribution of errors as a Markdown table."""
    lines = [
        "| kind | method | scrapes | error p50 | p95 | max | within max(10 s, 10 %) | wrong |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[Look]] = defaultdict(list)
    for each in looks:
        groups[each.kind, each.method].append(each)
    for kind in KINDS:
        for (_, method), found in sorted(item for item in groups.items() if item[0][0] == kind):
            lines.append(_row(kind, method, found))
    return "\n".join(lines)


def _row(kind: str, method: str, found: Sequence[Look]) -> str:
    if method == ABSENT:
        return f"| {kind} | {method} | {len(found)} | | | | | |"
    errors = sorted(each.error for each in found)

    def quantile(share: float) -> str:
        return f"{errors[min(int(len(errors) * share), len(errors) - 1)]:.1f} s"

    right = sum(each.is_right for each in found) / len(found)
    wrong = sum(each.is_wrong for each in found)
    return (
        f"| {kind} | {method} | {len(found)} | {quantile(0.5)} | {quantile(0.95)} |"
        f" {errors[-1]:.1f} s | {right:.1%} | {wrong} |"
    )


def write(text: str, page: Path = PAGE) -> None:
    """Replace what is between the markers of the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


@contextmanager
def own_servers(folder: Path) -> Iterator[Servers]:
    """Start servers as they are installed, but for the interval at which mosquitto saves."""
    with ExitStack() as running:
        folders = {name: folder / name for name in ("rabbitmq", "redis", "mosquitto")}
        for each in folders.values():
            each.mkdir()
        rabbitmq = RabbitMQ(folders["rabbitmq"], "collect_statistics_interval = 5000\n")
        running.callback(rabbitmq.stop)
        redis_server = RedisServer(folders["redis"])
        running.callback(redis_server.kill)
        mosquitto = Mosquitto(
            folders["mosquitto"], *session_settings(folders["mosquitto"]), persistence=True
        )
        mosquitto.start()
        running.callback(mosquitto.kill)
        yield Servers(rabbitmq, redis_server, mosquitto)


def session_settings(folder: Path) -> tuple[str, ...]:
    """Return mosquitto's settings for the kinds of MQTT."""
    return (
        f"persistence_location {folder}/",
        "autosave_interval 1",
        "max_inflight_messages 1",
        "max_queued_messages 0",
    )


def main() -> int:
    """Measure, print the table, and name each wrong lag."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument(
        "--interval", type=float, default=5.0, help="between two scrapes, in seconds"
    )
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.name}")
    given = parser.parse_args()
    if unknown := set(given.kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(unknown)}; there are: {', '.join(KINDS)}")
    with TemporaryDirectory() as name, own_servers(Path(name)) as servers:
        looks = measure(
            servers,
            given.kinds or list(KINDS),
            Path(name),
            seconds=given.seconds,
            interval=given.interval,
        )
    text = table(looks)
    print(text)
    for each in looks:
        if each.is_wrong:
            print(f"wrong: {each}", file=sys.stderr)
    if given.write:
        write(text)
    return int(any(each.is_wrong for each in looks))


if __name__ == "__main__":
    sys.exit(main())
