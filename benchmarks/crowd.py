"""Many simultaneous scrapers: how many scrapes are answered, and what each costs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from threading import Barrier

from measuring import Answer, Bench, Scraper, Server, ratios, running, spread
from report import Bar, Row, Section, Table

SCRAPERS = 50


@dataclass
class Crowd:
    """One server, its scrapers, and the results of their scrapes."""

    server: Server
    scrapers: list[Scraper] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # duration of each answered scrape
    last: list[float] = field(
        default_factory=list
    )  # time until all scrapes of a burst were answered
    cpu: list[float] = field(
        default_factory=list
    )  # CPU seconds per answered scrape, for each burst
    statuses: list[int] = field(default_factory=list)

    def burst(self, pool: ThreadPoolExecutor) -> None:
        """Let all scrapers scrape at the same moment."""
        ready = Barrier(SCRAPERS)
        before = self.server.cpu()
        answers = list(pool.map(partial(_scrape, ready), self.scrapers))
        spent = self.server.cpu() - before
        served = [answer.seconds for answer in answers if answer.status == 200]
        self.statuses += [answer.status for answer in answers]
        self.seconds += served
        self.last.append(max(served))
        self.cpu.append(spent / len(served))

    def forget(self) -> None:
        """Discard the results so far."""
        for measured in (self.statuses, self.seconds, self.last, self.cpu):
            measured.clear()


def run(bench: Bench) -> Section:
    """Send bursts to both servers alternately."""
    bursts = bench.often(20, 5)
    ours, theirs = bench.start_ours(), bench.start_node_exporter("--web.max-requests=0")
    with running(ours, theirs), ThreadPoolExecutor(SCRAPERS) as pool, ExitStack() as connections:
        crowds = (Crowd(ours), Crowd(theirs))
        for crowd in crowds:
            crowd.scrapers = [
                connections.enter_context(Scraper(crowd.server.port)) for _ in range(SCRAPERS)
            ]
            crowd.burst(pool)
            crowd.forget()  # the warm-up
        for _ in range(bursts):
            for crowd in crowds:
                crowd.burst(pool)
        return _section(*crowds)


def _section(ours: Crowd, theirs: Crowd) -> Section:
    both = (ours, theirs)
    rows = [
        Row("scrapes asked for", [len(crowd.statuses) for crowd in both]),
        Row("answered with 200", [len(crowd.seconds) for crowd in both]),
        Row("wall of a scrape, ms", [spread(s * 1000 for s in crowd.seconds) for crowd in both]),
        Row(
            "until the last has its answer, ms",
            [spread(s * 1000 for s in crowd.last) for crowd in both],
            ratios(ours.last, theirs.last),
        ),
        Row(
            "CPU an answered scrape, ms",
            [spread(s * 1000 for s in crowd.cpu) for crowd in both],
            ratios(ours.cpu, theirs.cpu),
        ),
        Row("threads of the server", [crowd.server.threads() for crowd in both]),
        Row("resident memory, MB", [crowd.server.memory().resident / 1e6 for crowd in both]),
    ]
    how = f"""\
{SCRAPERS} clients with a connection each send a scrape (gzip) at the same moment, {len(ours.cpu)} times, in turns. The clients are
threads of one Python process on the same cores, so that its CPU is part of every wall time. bts-exporter collects once
for all scrapes that overlap. node_exporter runs with `--web.max-requests=0`, because by default it refuses more
than 40 at once."""
    return Section(
        f"{SCRAPERS} scrapers at once",
        how,
        [Table(("bts-exporter", "node_exporter"), "bts / node", rows)],
        bars=[Bar("every scrape of bts-exporter is answered", set(ours.statuses) == {200})],
    )


def _scrape(ready: Barrier, scraper: Scraper) -> Answer:
    ready.wait(30)
    return scraper.scrape()
