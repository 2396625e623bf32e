"""A scrape of this machine over HTTP, compared with Debian's node_exporter."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from urllib.parse import urlencode

from measuring import Answer, Bench, Scraper, Server, ratios, running, spread
from report import Bar, Row, Section, Table

#: Maximum cost of a default scrape, relative to node_exporter's.
MOST_CPU = 0.7
MOST_WALL = 1.0

#: Scrapes of one program in each turn.
TURN = 25

_SERVES = re.compile(
    r'^node_scrape_collector_success\{collector="(.+?)"\} 1(?:\.0)?$', re.MULTILINE
)
_FAILS = re.compile(r'^node_scrape_collector_success\{collector="(.+?)"\} 0(?:\.0)?$', re.MULTILINE)


@dataclass
class Contestant:
    """One server and the cost of its scrapes."""

    server: Server
    path: str = "/metrics"
    seconds: list[float] = field(default_factory=list)  # duration of each scrape
    typical: list[float] = field(default_factory=list)  # median duration of each turn
    cpu: list[float] = field(default_factory=list)  # CPU seconds per scrape, for each turn

    def take_turn(self, *, packed: bool, pause: float = 0.0) -> None:
        """Scrape it TURN times over one connection; `pause` is the seconds before each scrape."""
        turn: list[float] = []
        with Scraper(self.server.port, self.path, packed=packed) as scraper:
            scraper.scrape()
            before = self.server.cpu()
            for _ in range(TURN):
                time.sleep(pause)
                answer = scraper.scrape()
                if answer.status != 200:
                    msg = f"status {answer.status}: {answer.text}"
                    raise AssertionError(msg)
                turn.append(answer.seconds)
            self.cpu.append((self.server.cpu() - before) / TURN)
        self.seconds += turn
        self.typical.append(spread(turn).median)


def run(bench: Bench) -> Section:
    """Measure the defaults of both, then both with their common collectors."""
    ours, theirs = bench.start_ours(), bench.start_node_exporter()
    with running(ours, theirs):
        answers = [_scrape(server) for server in (ours, theirs)]
        turns = bench.often(16, 4)
        rows = _compared(ours, theirs, "plain", turns=turns, packed=False)
        rows += _compared(ours, theirs, "gzip", turns=turns)
        rows += _compared(ours, theirs, "gzip, 0.2 s apart", turns=bench.often(4, 1), pause=0.2)
        rows += [
            _counted("samples", [answer.samples for answer in answers]),
            _counted("bytes, plain", [len(answer.text.encode()) for answer in answers]),
            _counted("bytes, gzip", [len(answer.body) for answer in answers]),
            _counted("resident memory, MB", [s.memory().resident / 1e6 for s in (ours, theirs)]),
        ]
    bars = [*_bars(rows), _as_many(answers)]
    pages = [answer.text for answer in answers]
    served = [set(_SERVES.findall(page)) for page in pages]
    common = sorted(served[0] & served[1])
    return Section(
        "Host scrape",
        _how(turns * TURN),
        [_table(rows), _table(_like_for_like(bench, common, turns))],
        facts=[
            f"{len(common)} collectors that both serve here: {', '.join(common)}",
            f"only bts-exporter: {_names(served[0] - served[1])}",
            f"only node_exporter: {_names(served[1] - served[0])}",
            f"node_exporter reports as failed: {_names(set(_FAILS.findall(pages[1])))}",
            f"bts-exporter reports as failed: {_names(set(_FAILS.findall(pages[0])))}",
        ],
        bars=bars,
    )


def _bars(rows: list[Row]) -> list[Bar]:
    """Return whether a default scrape is within its limits of CPU and time."""
    limits = {"CPU a scrape, ms": MOST_CPU, "wall, ms": MOST_WALL}
    found = []
    for row in rows:
        limit = limits.get(row.what.rpartition(": ")[2])
        if limit is not None and row.ratio is not None:
            ratio = row.ratio.median
            found.append(
                Bar(f"{row.what}: {ratio:.2f} of the other's, at most {limit}", ratio <= limit)
            )
    return found


def _as_many(answers: list[Answer]) -> Bar:
    ours, theirs = (answer.samples for answer in answers)
    return Bar(f"samples: {ours}, at least the other's {theirs}", ours >= theirs)


def _how(scrapes: int) -> str:
    return f"""\
`collectors: {{host: }}`, compared with Debian's prometheus-node-exporter with its default flags on the same machine: {scrapes}
scrapes in turns of {TURN}, with Prometheus' request headers and one kept connection each. Wall is the time from the
request to the last byte; CPU is that of the server's process. bts-exporter answers with OpenMetrics, node_exporter with
text. Both pages include the exporter's own metrics. Caches are warm when scrapes follow each other immediately;
"0.2 s apart" is closer to how Prometheus scrapes. The second table has only those collectors that both serve here."""


def _like_for_like(bench: Bench, common: list[str], turns: int) -> list[Row]:
    flags = [f"--collector.{name}" for name in common]
    ours = bench.start_ours()
    theirs = bench.start_node_exporter("--collector.disable-defaults", *flags)
    path = f"/metrics?{urlencode([('collect[]', name) for name in common])}"
    with running(ours, theirs):
        rows = _compared(ours, theirs, "gzip", turns=turns, path=path)
        pages = [_scrape(ours, path).text, _scrape(theirs).text]
        return [*rows, _counted("samples of node_*", [page.count("\nnode_") for page in pages])]


def _compared(  # noqa: PLR0913  # all are passed by name
    ours: Server,
    theirs: Server,
    what: str,
    *,
    turns: int,
    packed: bool = True,
    pause: float = 0.0,
    path: str = "/metrics",
) -> list[Row]:
    contestants = Contestant(ours, path), Contestant(theirs)
    for _ in range(turns):
        for contestant in contestants:
            contestant.take_turn(packed=packed, pause=pause)
    a, b = contestants
    wall = [spread(second * 1000 for second in each.seconds) for each in contestants]
    cpu = [spread(second * 1000 for second in each.cpu) for each in contestants]
    return [
        Row(f"{what}: wall, ms", wall, ratios(a.typical, b.typical)),
        Row(f"{what}: CPU a scrape, ms", cpu, ratios(a.cpu, b.cpu)),
    ]


def _table(rows: list[Row]) -> Table:
    return Table(("bts-exporter", "node_exporter"), "bts / node", rows)


def _counted(what: str, figures: list[float]) -> Row:
    return Row(what, figures, ratios([figures[0]], [figures[1]]))


def _scrape(server: Server, path: str = "/metrics") -> Answer:
    with Scraper(server.port, path) as scraper:
        return scraper.scrape()


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
