"""A scrape of a broker with thousands of queues: what it costs the broker, and what it costs us."""

from __future__ import annotations

import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pika

from bts_collectors.rabbitmq.api.models import Consumer, Overview, columns
from bts_collectors.rabbitmq.management.listing import queues_query
from measuring import Bench, Scraper, Server, Spread, cpu_of, ratios, running, spread
from report import Bar, Row, Section, Table
from servers.rabbitmq import RabbitMQ

QUEUES = 5000
CONSUMERS = 1000
#: Consumers of one channel.
PER_CHANNEL = 100

#: What may not be exceeded: our part of the other's CPU, and seconds.
BROKER_BAR = 0.25
CPU_BAR = 0.5
SECONDS_BAR = 1.0

#: As RabbitMQ is installed.
INTERVAL = 5
CONFIG = f"collect_statistics_interval = {INTERVAL * 1000}\n"
#: Seconds in which the broker has counted all queues.
SETTLING = 12.0
#: Seconds after an answer in which the broker may still tidy up, which is part of the price.
AFTER = 0.3

#: What our collector asks of so many queues.
FAMILIES = (
    f"/api/queues?{queues_query(Overview(), totals=True)}",
    f"/api/consumers?{columns(Consumer)}",
)
REFERENCE = Path(__file__).with_name("rabbitmq_reference.py")
CREDENTIALS = {"Authorization": f"Basic {b64encode(b'guest:guest').decode()}"}


class Costs:
    """What one way of asking costs, time by time."""

    def __init__(self) -> None:
        self.broker: list[float] = []
        self.own: list[float] = []
        self.seconds: list[float] = []


def run(bench: Bench) -> Section:
    """Measure, in turns, a plain listing, our scrape, and a scrape by prometheus_client."""
    with _broker(bench) as broker:
        ours = bench.start_ours(
            f"plugins: none\ncollectors:\n  rabbitmq: {{url: '{broker.url}'}}\n"
        )
        theirs = bench.start(
            "reference",
            lambda port: [sys.executable, str(REFERENCE), str(port), broker.url, *FAMILIES],
        )
        with running(ours, theirs):
            return _section(*_measure(bench, broker, ours, theirs), ours)


def _measure(
    bench: Bench, broker: RabbitMQ, ours: Server, theirs: Server
) -> tuple[Costs, Costs, Costs, list[int]]:
    plain, own, other = Costs(), Costs(), Costs()
    for _ in range(bench.often(9, 3)):
        idle = _idle(broker)
        _take(plain, broker, idle, None, lambda: _listing(broker))
        samples = [
            _take(costs, broker, idle, server, lambda server=server: _scrape(server))
            for costs, server in ((own, ours), (other, theirs))
        ]
    return plain, own, other, samples


def _idle(broker: RabbitMQ) -> float:
    """Return the CPU seconds per second that the broker uses without requests, for its statistics."""
    pid = broker.process.popen.pid
    before, began = cpu_of(pid), time.perf_counter()
    time.sleep(INTERVAL)
    return (cpu_of(pid) - before) / (time.perf_counter() - began)


def _take(
    costs: Costs, broker: RabbitMQ, idle: float, server: Server | None, ask: Callable[[], int]
) -> int:
    """Ask once, note what it cost beyond `idle`, and return what the question returned."""
    pid = broker.process.popen.pid
    before, own, began = cpu_of(pid), server.cpu() if server else 0.0, time.perf_counter()
    found = ask()
    costs.seconds.append(time.perf_counter() - began)
    time.sleep(AFTER)
    costs.broker.append(cpu_of(pid) - before - idle * (time.perf_counter() - began))
    if server:
        costs.own.append(server.cpu() - own)
    return found


def _listing(broker: RabbitMQ) -> int:
    connection = HTTPConnection("127.0.0.1", broker.mgmt, timeout=60)
    connection.request("GET", "/api/queues", headers=CREDENTIALS)
    body = connection.getresponse().read()
    connection.close()
    return len(body)


def _scrape(server: Server) -> int:
    with Scraper(server.port) as scraper:
        answer = scraper.scrape(patience=30)
    if f'queue="queue-{QUEUES - 1}"' not in answer.text:
        msg = f"status {answer.status}, and not all queues: {answer.text[:500]}"
        raise AssertionError(msg)
    return answer.samples


@contextmanager
def _broker(bench: Bench) -> Iterator[RabbitMQ]:
    """Start a broker with queues of one message each, and consumers for some of them."""
    broker = RabbitMQ(bench.new_folder("rabbitmq"), CONFIG)
    bench.ends.callback(broker.stop)
    parameters = pika.ConnectionParameters("127.0.0.1", broker.amqp, heartbeat=0)
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        for number in range(QUEUES):
            channel.queue_declare(f"queue-{number}")
            channel.basic_publish("", f"queue-{number}", b"x")
        for first in range(0, CONSUMERS, PER_CHANNEL):
            channel = connection.channel()
            channel.basic_qos(prefetch_count=1)
            for number in range(first, first + PER_CHANNEL):
                channel.basic_consume(f"queue-{number}", lambda *_: None)
        connection.sleep(SETTLING)
        yield broker
    broker.stop()


def _section(plain: Costs, own: Costs, other: Costs, samples: list[int], ours: Server) -> Section:
    broker = ratios(own.broker, plain.broker)
    cpu = ratios(own.own, other.own)
    seconds = spread(own.seconds)
    rows = [
        Row("CPU of the broker, ms", [*map(_ms, (plain.broker, own.broker, other.broker))], broker),
        Row("CPU of the exporter, ms", [None, _ms(own.own), _ms(other.own)], cpu),
        Row("wall, ms", [*map(_ms, (plain.seconds, own.seconds, other.seconds))]),
        Row("samples", [None, *samples]),
        Row("resident memory, MB", [None, ours.memory().resident / 1e6, None]),
    ]
    return Section(
        f"RabbitMQ with {QUEUES:,} queues",
        _how(),
        [Table(("GET /api/queues", "bts-exporter", "prometheus_client"), "bts / other", rows)],
        bars=[
            Bar(f"the broker's CPU at most {BROKER_BAR} of a listing", broker.median <= BROKER_BAR),
            Bar(f"our CPU at most {CPU_BAR} of prometheus_client", cpu.median <= CPU_BAR),
            Bar(f"wall under {SECONDS_BAR:g} s", seconds.median < SECONDS_BAR),
        ],
    )


def _how() -> str:
    return f"""\
One broker with {QUEUES:,} classic queues, a message in each, and {CONSUMERS:,} consumers, on one scheduler. In turns: the plain
listing of the management API, which most exporters request; a scrape of bts-exporter with its default settings; and a
scrape of a program that requests the same as bts-exporter, decodes it with the standard library, and serves the same
series with prometheus_client. CPU is that of the processes; for the broker, its CPU without requests is subtracted. The
ratio of the broker's CPU is that of the first two columns, the ratio of the exporters' CPU that of the last two."""


def _ms(seconds: list[float]) -> Spread:
    return spread(each * 1000 for each in seconds)
