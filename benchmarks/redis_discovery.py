"""A hundred streams among a million keys: what looking for them costs the server, and what a scrape does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bts_collectors.redis.client.connection import Connection
from bts_collectors.redis.keyspace.scanner import KeyspaceScanner, Names
from bts_exporter import Url
from measuring import Answer, Bench, Scraper, Server, running, spread
from report import Bar, Row, Section, Table
from servers import need, wait_until
from servers.redis import RedisServer, calls

STREAMS = 100
#: Microseconds that one call may keep the server from its other clients.
LONGEST = 1000
THEIRS = "prometheus-redis-exporter"

#: The patterns to look for, by their names in the table.
SETTINGS = {
    "streams of one pattern": [(("bts:*",), "stream")],
    "streams, lists and hashes of five patterns": [
        (("bts:*",), "stream"),
        (("jobs:*", "mail.*"), "list"),
        (("bull:*:meta", "dramatiq:*.msgs"), "hash"),
    ],
    "keys of a pattern that begins with *": [(("*:none",), "")],
}

_HOW = f"""\
A Redis with {{keys:,}} strings and {STREAMS} streams, all of which discovery scans several times. The server's slow log
(threshold 0) has the duration of each SCAN. The work at one cursor is the same in every pass, so its time is the
minimum over all passes; the rest is due to other load on the machine. Then a process that finds the streams with
`bts:*` and Debian's redis_exporter with `-check-streams=bts:*` are scraped in turns; SCANs are the server's count."""


def run(bench: Bench) -> Section:
    """Measure walks by the server's clock, and scrapes by its count of commands."""
    keys = bench.often(1_000_000, 200_000)
    server = RedisServer(bench.new_folder("redis"), "--enable-debug-command", "yes")
    bench.ends.callback(server.kill)
    _fill(server, keys)
    walks = []
    longest = 0.0
    for what, settings in SETTINGS.items():
        times = sorted(_walks(server, settings, bench.often(7, 4)))
        longest = max(longest, times[-1])
        walks.append(Row(what, [len(times), times[len(times) // 2], times[-1], sum(times) / 1e6]))
    scrapes, scans, found = _scrapes(bench, server)
    return Section(
        "Redis: a hundred streams among a million keys",
        _HOW.format(keys=keys),
        [
            Table(("SCANs", "median, us", "longest, us", "all of them, s"), "", walks),
            Table(("wall of a scrape, ms", "SCANs a scrape"), "", scrapes),
        ],
        bars=[
            Bar(f"no SCAN keeps the server longer than {LONGEST} us", longest <= LONGEST),
            Bar("a scrape does not scan", scans == 0),
            Bar("all streams are found", found == STREAMS),
        ],
    )


def _fill(server: RedisServer, keys: int) -> None:
    server.client.execute_command("DEBUG", "POPULATE", keys, "session", 10)
    pipeline = server.client.pipeline(transaction=False)
    for number in range(STREAMS):
        pipeline.xadd(f"bts:{number}", {"a": 1})
    pipeline.execute()
    # The table of keys grows step by step, and a walk has to look at both while it does.
    wait_until(
        lambda: b"rehash" not in server.client.execute_command("DEBUG", "HTSTATS", 0), "still"
    )


def _walks(
    server: RedisServer, settings: Sequence[tuple[Sequence[str], str]], times: int
) -> Iterator[float]:
    """Yield microseconds of every SCAN of a walk, each the least of several walks."""
    known: dict[bytes, list[int]] = defaultdict(list)
    for _ in range(times):
        names = [Names(patterns, type_) for patterns, type_ in settings]
        with _slow_log(server):
            _walk(names, Url.from_setting(server.url))
        for entry in server.client.slowlog_get(100_000):
            words = entry["command"].split()
            if words[0] == b"SCAN":
                known[words[1]].append(entry["duration"])
    return (min(each) for each in known.values())


def _walk(names: Sequence[Names], url: Url) -> None:
    finder = KeyspaceScanner(names, lambda: [Connection(url)])

    def is_over() -> bool:
        finder.refresh()
        finder.wait_for_first_walk(1)
        return not any(each.truncated for each in names)

    wait_until(is_over, "all keys were looked at", 120)
    finder.stop()


@contextmanager
def _slow_log(server: RedisServer) -> Iterator[None]:
    """Let every command be an entry of the slow log."""
    server.client.config_set("slowlog-max-len", 100_000)
    server.client.slowlog_reset()
    server.client.config_set("slowlog-log-slower-than", 0)
    yield
    server.client.config_set("slowlog-log-slower-than", -1)


def _scrapes(bench: Bench, server: RedisServer) -> tuple[list[Row], int, int]:
    """Return rows of ours and theirs, the SCANs of ours, and the streams on our page."""
    ours = bench.start_ours(
        f"plugins: none\ncollectors: {{redis: {{url: '{server.url}', streams: ['bts:*']}}}}\n"
    )
    flags = [f"-redis.addr={server.url}", "-check-streams=bts:*"]
    program = need(THEIRS, THEIRS)
    theirs = bench.start(
        THEIRS, lambda port: [program, *flags, f"-web.listen-address=127.0.0.1:{port}"]
    )
    with running(ours, theirs):
        ours.wait('redis_exporter_discovery_truncated{setting="streams"} 0')
        found = sum(
            line.startswith("redis_stream_length{") for line in _page(ours).text.splitlines()
        )
        turns = [
            [_scrape(server, each) for each in (ours, theirs)] for _ in range(bench.often(10, 3))
        ]
    columns = [list(zip(*each, strict=True)) for each in zip(*turns, strict=True)]
    rows = [
        Row(what, [spread(wall), spread(scans)])
        for what, (wall, scans) in zip(("bts-exporter", "redis_exporter"), columns, strict=True)
    ]
    return rows, int(max(columns[0][1])), found


def _scrape(server: RedisServer, exporter: Server) -> tuple[float, int]:
    """Return milliseconds of one scrape, and the SCANs in it."""
    before = calls(server.client, "scan")
    answer = _page(exporter)
    return answer.seconds * 1000, calls(server.client, "scan") - before


def _page(exporter: Server) -> Answer:
    with Scraper(exporter.port) as scraper:
        return scraper.scrape(patience=60)
