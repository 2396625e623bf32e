"""Ten thousand streams with two groups of three consumers each, compared with Debian's redis_exporter."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from measuring import Bench, Memory, Scraper, Server, ratios, running, spread
from report import Bar, Row, Section, Table
from servers import need
from servers.redis import RedisServer

STREAMS = 10_000
GROUPS = ("billing", "shipping")
CONSUMERS = 3
ENTRIES = 10
PACKAGE = "prometheus-redis-exporter"

#: At most, of what the other takes.
WALL = 0.2
RESIDENT = 0.6

_NAME = re.compile(r"^(redis_stream_\w+)\{", re.MULTILINE)
_HOW = f"""\
{STREAMS:,} streams of {ENTRIES} entries in Debian's redis-server, each with {len(GROUPS)} groups of {CONSUMERS} consumers that have read six
entries and acknowledged none. Both exporters find them with the pattern `bts:*`, and are scraped in turns with
Prometheus' request headers. CPU is that of the exporter's process; that of redis-server is what it used during the
scrape. The first table is each exporter with all that it serves; in the second, ours serves only the metrics that both
have."""


@dataclass
class Contestant:
    """An exporter and what its scrapes cost."""

    server: Server
    redis: RedisServer
    wall: list[float] = field(default_factory=list)  # seconds
    cpu: list[float] = field(default_factory=list)  # seconds
    redis_cpu: list[float] = field(default_factory=list)  # seconds
    memory: list[Memory] = field(default_factory=list)
    page: str = ""

    def take_turn(self) -> None:
        """Scrape it once."""
        with Scraper(self.server.port) as scraper:
            before = self.server.cpu(), _used(self.redis)
            answer = scraper.scrape(patience=60)
        if answer.status != 200:
            msg = f"status {answer.status}: {answer.text}"
            raise AssertionError(msg)
        self.cpu.append(self.server.cpu() - before[0])
        self.redis_cpu.append(_used(self.redis) - before[1])
        self.wall.append(answer.seconds)
        self.memory.append(self.server.memory())
        self.page = answer.text


def run(bench: Bench) -> Section:
    """Measure both with all that they serve, and then with what both serve."""
    need(PACKAGE, PACKAGE)
    redis = RedisServer(bench.new_folder("redis"))
    bench.ends.callback(redis.kill)
    fill(redis)
    turns = bench.often(7, 2)
    ours, theirs = _compete(bench, redis, "", turns)
    common = set(_NAME.findall(ours.page)) & set(_NAME.findall(theirs.page))
    common |= {"redis_stream_group_consumer_messages_pending"}
    common |= {"redis_stream_group_consumer_idle_seconds"}
    alike = f", stream_consumers: true, metrics: {{allow: [{', '.join(sorted(common))}]}}"
    tables = [_table(ours, theirs), _table(*_compete(bench, redis, alike, turns))]
    wall = ratios(ours.wall, theirs.wall).median
    resident = ratios(_resident(ours), _resident(theirs)).median
    return Section(
        "Redis: ten thousand streams",
        _HOW,
        tables,
        facts=[f"metrics of streams that both serve: {', '.join(sorted(common))}"],
        bars=[
            Bar(f"wall: {wall:.2f} of the other's, at most {WALL}", wall <= WALL),
            Bar(f"memory: {resident:.2f} of the other's, at most {RESIDENT}", resident <= RESIDENT),
        ],
    )


def fill(redis: RedisServer) -> None:
    """Make the streams with their groups and consumers."""
    for number in range(STREAMS):
        stream = f"bts:stream:{number:05}"
        with redis.client.pipeline(transaction=False) as pipeline:
            for entry in range(ENTRIES):
                pipeline.xadd(stream, {"order": entry, "customer": "x" * 40})
            for group in GROUPS:
                pipeline.xgroup_create(stream, group, "0")
                for consumer in range(CONSUMERS):
                    worker = f"worker-{consumer}"
                    pipeline.xreadgroup(group, worker, {stream: ">"}, count=1 + consumer)
            pipeline.execute()


def _compete(
    bench: Bench, redis: RedisServer, settings: str, turns: int
) -> tuple[Contestant, Contestant]:
    ours = bench.start_ours(
        "plugins: none\ncollectors:\n"
        f"  redis: {{url: '{redis.url}', streams: ['bts:*'], max_series: 1000000{settings}}}\n"
    )
    theirs = bench.start(
        PACKAGE,
        lambda port: [
            PACKAGE,
            f"-redis.addr={redis.url}",
            "-check-streams=bts:*",
            f"-web.listen-address=127.0.0.1:{port}",
        ],
    )
    contestants = Contestant(ours, redis), Contestant(theirs, redis)
    with running(ours, theirs):
        ours.wait(f'redis_stream_length{{db="db0",stream="bts:stream:{STREAMS - 1:05}"}}')
        for _ in range(turns):
            for contestant in contestants:
                contestant.take_turn()
    return contestants


def _table(ours: Contestant, theirs: Contestant) -> Table:
    both = ours, theirs

    def row(what: str, mine: list[float], others: list[float]) -> Row:
        return Row(what, [spread(mine), spread(others)], ratios(mine, others))

    milliseconds = [[1000 * second for second in each.wall] for each in both]
    cpu = [[1000 * second for second in each.cpu] for each in both]
    redis_cpu = [[1000 * second for second in each.redis_cpu] for each in both]
    return Table(
        ("bts-exporter", "redis_exporter"),
        "bts / redis_exporter",
        [
            row("wall, ms", *milliseconds),
            row("CPU a scrape, ms", *cpu),
            row("CPU of redis-server, ms", *redis_cpu),
            row("resident memory, MB", *([r / 1e6 for r in _resident(each)] for each in both)),
            row("samples of streams", *([float(_samples(each))] for each in both)),
        ],
    )


def _resident(contestant: Contestant) -> list[float]:
    return [memory.resident for memory in contestant.memory]


def _samples(contestant: Contestant) -> int:
    return len(re.findall(r"^(?:redis_stream|messaging)_\w+\{", contestant.page, re.MULTILINE))


def _used(redis: RedisServer) -> float:
    cpu = redis.client.info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
