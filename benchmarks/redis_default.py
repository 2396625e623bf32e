"""A default scrape of a Redis with many commands in its statistics, compared with Debian's redis_exporter."""

from __future__ import annotations

import shlex

import redis

from host import TURN, Contestant
from measuring import Bench, Scraper, Server, ratios, running, spread
from report import Bar, Row, Section, Table
from servers import need
from servers.redis import RedisServer

#: What has to hold: our CPU for a scrape, as a part of theirs.
MOST_CPU = 0.5
#: Rows of INFO commandstats.
ROWS = 94

_PACKAGE = "prometheus-redis-exporter"
# Each has its own row in the statistics; some need keys that others created.
_COMMANDS = """\
SET a 1; GET a; APPEND s x; STRLEN s; INCR n; DECR n; INCRBY n 2; DECRBY n 2; INCRBYFLOAT f 1.5; GETRANGE s 0 1;
SETRANGE s 0 y; MSET b 1 c 2; MGET b c; GETSET b 2; SETNX d 1; SETEX e 100 1; PSETEX g 10000 1; GETDEL g; GETEX e;
EXISTS a; TYPE a; TTL e; PTTL e; EXPIRE a 1000; PEXPIRE a 100000; PERSIST a; TOUCH a; UNLINK d; DEL c; COPY a a2;
RANDOMKEY; DBSIZE; SCAN 0; KEYS z*; LPUSH l 1 2 3; RPUSH l 4; LPOP l; RPOP l; LLEN l; LRANGE l 0 -1; LINDEX l 0;
LSET l 0 9; LINSERT l before 9 8; LREM l 0 7; LTRIM l 0 10; LMOVE l l2 left right; LPOS l 9; SADD s1 1 2 3; SREM s1 1;
SCARD s1; SMEMBERS s1; SISMEMBER s1 2; SMISMEMBER s1 2 3; SRANDMEMBER s1; SINTER s1 s1; SUNION s1 s1; SDIFF s1 s1;
SSCAN s1 0; HSET h a 1 b 2; HGET h a; HMGET h a b; HGETALL h; HDEL h b; HLEN h; HKEYS h; HVALS h; HEXISTS h a;
HINCRBY h n 1; HSCAN h 0; HSETNX h z 1; ZADD z 1 a 2 b; ZREM z b; ZCARD z; ZSCORE z a; ZRANGE z 0 -1; ZRANK z a;
ZINCRBY z 1 a; ZCOUNT z 0 9; ZSCAN z 0; PFADD p a; PFCOUNT p; SETBIT t 7 1; GETBIT t 7; BITCOUNT t; BITPOS t 1;
GEOADD w 13 38 x; GEOPOS w x; XADD x * a 1; XLEN x; XRANGE x - +; PUBLISH c m; ECHO hi; TIME"""

_HOW = f"""\
`collectors: {{redis: }}` only, compared with Debian's {_PACKAGE} with its default flags: the same Redis 7.0 with {ROWS}
rows of commandstats and of latencystats, Prometheus' request headers, gzip, one kept connection each, in turns of {TURN}
scrapes. CPU is that of the exporter's process, wall is the time of the client. "With histograms" is ours with
`latency_histograms: true`, which the other does not have."""


def run(bench: Bench) -> Section:
    """Measure both with their defaults, and the cost of histograms."""
    broker = RedisServer(bench.new_folder("redis"))
    bench.ends.callback(broker.kill)
    rows = _fill(broker.client)
    program = need(_PACKAGE, _PACKAGE)
    theirs = bench.start(
        _PACKAGE,
        lambda port: [
            program,
            f"-redis.addr={broker.url}",
            f"-web.listen-address=127.0.0.1:{port}",
        ],
    )
    settings = f"plugins: none\ncollectors:\n  redis: {{url: '{broker.url}'%s}}\n"
    ours = bench.start_ours(settings % "")
    histograms = bench.start_ours(settings % ", latency_histograms: true")
    servers = (ours, theirs, histograms)
    with running(*servers):
        samples = [_samples(server) for server in servers]
        plain, other, more = (Contestant(server) for server in servers)
        for _ in range(bench.often(40, 8)):
            for one in (plain, other, more):
                one.take_turn(packed=True)
        memory = [server.memory().resident / 1e6 for server in servers]
    return Section(
        "Redis: a default scrape",
        _HOW,
        [
            Table(
                ("bts-exporter", _PACKAGE),
                "bts / other",
                [
                    *_compared("default", plain, other),
                    *_compared("with histograms", more, other),
                    Row("samples", samples[:2], ratios(samples[:1], samples[1:2])),
                    Row("samples with histograms", [samples[2], samples[1]]),
                    Row("resident memory, MB", memory[:2], ratios(memory[:1], memory[1:2])),
                ],
            )
        ],
        facts=[f"rows of commandstats at the start: {rows}"],
        bars=[_bar(plain, other)],
    )


def _fill(client: redis.Redis) -> int:
    """Call commands, and return how many rows INFO commandstats has."""
    for line in _COMMANDS.replace("\n", " ").split(";"):
        client.execute_command(*shlex.split(line))
    return len(client.info("commandstats"))


def _samples(server: Server) -> int:
    with Scraper(server.port) as scraper:
        scraper.scrape()
        return scraper.scrape().samples


def _compared(what: str, ours: Contestant, theirs: Contestant) -> list[Row]:
    both = ours, theirs
    wall = [spread(second * 1000 for second in each.seconds) for each in both]
    cpu = [spread(second * 1000 for second in each.cpu) for each in both]
    return [
        Row(f"{what}: CPU a scrape, ms", cpu, ratios(ours.cpu, theirs.cpu)),
        Row(f"{what}: wall, ms", wall, ratios(ours.typical, theirs.typical)),
    ]


def _bar(ours: Contestant, theirs: Contestant) -> Bar:
    ratio = ratios(ours.cpu, theirs.cpu).median
    return Bar(f"default: CPU {ratio:.2f} of theirs, at most {MOST_CPU}", ratio <= MOST_CPU)
