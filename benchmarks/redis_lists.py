"""A thousand lists of a hundred thousand elements: what the ages of their elements cost the server."""

from __future__ import annotations

import re

from measuring import Bench, Scraper, Server, running, spread
from report import Bar, Row, Section, Table
from servers.redis import RedisServer

LISTS = 1000
ELEMENTS = 100_000
#: Seconds between two scrapes, of which the server may be busy with one for this part.
INTERVAL = 15
BUSY = 0.05
#: Part of the ages that must be known, also after the flow has changed.
KNOWN = 0.95
#: Elements that come in, and elements that leave, between two scrapes of a list.
FLOWS = ((0, 0), (20, 20), (200, 200), (1000, 1000))

_AGE = re.compile(r'^messaging_lag_seconds\{[^}]*destination="jobs:', re.MULTILINE)
_HOW = f"""\
{LISTS:,} lists of {{elements:,}} elements in Debian's redis-server, found with the setting `lists: ["jobs:*"]`. Before each
scrape, elements come in at one end of every list and leave at the other. "Busy" is the CPU time of redis-server's
process during a scrape, divided by an interval of {INTERVAL} s. It includes INFO, LLEN and the transfer. The script's
time is the server's own measurement (INFO commandstats). Alone: `make bench ARGS=redis_lists`."""


def run(bench: Bench) -> Section:
    """Measure scrapes by the server's clock and its process's."""
    elements = bench.often(ELEMENTS, 10_000)
    server = RedisServer(bench.new_folder("redis"))
    bench.ends.callback(server.kill)
    _fill(server, elements)
    ours = bench.start_ours(
        f"plugins: none\ncollectors: {{redis: {{url: '{server.url}', queues: {{lists: ['jobs:*']}}}}}}\n"
    )
    rows: list[Row] = []
    busiest = 0.0
    known: list[int] = []
    with running(ours):
        ours.wait('redis_exporter_discovery_truncated{setting="queues.lists"} 0')
        for _ in range(4):  # the first scrapes read more, and find the consumers' end
            _move(server, 5, 5)
            _scrape(server, ours)
        for came, left in FLOWS:
            costs = []
            for _ in range(bench.often(7, 2)):
                _move(server, came, left)
                costs.append(_scrape(server, ours))
            cpu, script, wall, ages = zip(*costs, strict=True)
            known += ages
            busy = spread([each / INTERVAL for each in cpu])
            busiest = max(busiest, busy.median)
            times = [spread([1000 * each for each in column]) for column in (cpu, script, wall)]
            rows.append(Row(f"{left:,} elements left each list", [*times, busy]))
    share = sum(known) / len(known) / LISTS
    columns = ("server's CPU, ms", "of it scripts, ms", "wall of a scrape, ms", "busy")
    return Section(
        "Redis: the age of elements of a thousand lists",
        _HOW.format(elements=elements),
        [Table(columns, "", rows)],
        bars=[
            Bar(
                f"the server is busy for {busiest:.2%} of an interval, at most {BUSY:.0%}",
                busiest <= BUSY,
            ),
            Bar(
                f"{share:.1%} of the lists have an age, at least {KNOWN:.0%}",
                share >= KNOWN,
            ),
        ],
    )


def _fill(server: RedisServer, elements: int) -> None:
    for start in range(0, elements, 10_000):
        server.client.rpush("jobs:0", *range(start, min(start + 10_000, elements)))
    pipeline = server.client.pipeline(transaction=False)
    for number in range(1, LISTS):
        pipeline.copy("jobs:0", f"jobs:{number}")
    pipeline.execute()


def _move(server: RedisServer, came: int, left: int) -> None:
    """Let elements come in on the right, and leave on the left."""
    if not came:
        return
    first = int(server.client.lindex("jobs:0", -1) or 0) + 1
    pipeline = server.client.pipeline(transaction=False)
    for number in range(LISTS):
        pipeline.rpush(f"jobs:{number}", *range(first, first + came))
        pipeline.lpop(f"jobs:{number}", left)
    pipeline.execute()


def _scrape(server: RedisServer, ours: Server) -> tuple[float, float, float, int]:
    """Return seconds of the server's CPU, of its scripts, and of a scrape, and the number of ages."""
    before = _used(server)
    with Scraper(ours.port) as scraper:
        answer = scraper.scrape(patience=60)
    cpu, script = (now - then for now, then in zip(_used(server), before, strict=True))
    return cpu, script, answer.seconds, len(_AGE.findall(answer.text))


def _used(server: RedisServer) -> tuple[float, float]:
    info = server.client.info("everything")
    script = info.get("cmdstat_eval_ro", {"usec": 0})["usec"] / 1e6
    return info["used_cpu_sys"] + info["used_cpu_user"], script
