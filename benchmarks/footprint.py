"""Time to the first scrape and resident memory, compared with the exporters that this one replaces."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

import brokers
from measuring import HOST_ONLY, Bench, Scraper, Server, ratios, spread
from report import Bar, Row, Section, Table
from servers import need

SCRAPES = 50
#: Limits: seconds to the first scrape, and resident megabytes without and with the brokers.
START_SECONDS, HOST_MB, ALL_MB = 1.0, 30, 50

#: A metric that the first page of a host must have.
HOST_SAMPLE = "node_cpu_seconds_total{"

#: A sample that no page may have: it shows that the server had less work.
_FAILURE = re.compile(
    r"^(?:bts_exporter_collector_success\{.*\}|(?:redis|rabbitmq|mosquitto|mqtt)_up(?:\{.*\})?) 0(?:\.0)?$",
    re.MULTILINE,
)

_HOW = f"""\
Each program is started, asked every 2 ms until a scrape succeeds, scraped {SCRAPES} times (gzip, one connection), measured, and
stopped, in turns; the first start of each is not counted. Resident memory is the sum of pages (/proc/PID/smaps_rollup)
and includes libraries shared with other programs; private memory does not. bts-exporter runs as in its systemd unit
(MALLOC_ARENA_MAX=2, MALLOC_TRIM_THRESHOLD_=1048576), from compiled files. A megabyte is 1,000,000 bytes. The brokers
are real: RabbitMQ with 20 queues, Redis with 3 streams of 2 groups, mosquitto. The right column of the second table
is the sum of one process of each, and the slowest start."""


class Measured(NamedTuple):
    """One server after SCRAPES scrapes, or the sum of several."""

    start: float  # seconds to the first successful scrape
    cpu: float  # CPU seconds until then
    resident: int
    private: int
    threads: int
    samples: int


@dataclass
class Contest:
    """A server that is started repeatedly."""

    start: Callable[[], Server]
    expected: str = ""
    measured: list[Measured] = field(default_factory=list)

    def measure(self) -> None:
        """Start it, scrape it, read its memory, end it."""
        server = self.start()
        try:
            start = server.wait(self.expected), server.cpu()
            with Scraper(server.port) as scraper:
                answers = [scraper.scrape() for _ in range(SCRAPES)]
            memory = server.memory()
            threads = server.threads()
        finally:
            server.end()
        assert {answer.status for answer in answers} == {200}
        failures = _FAILURE.findall(answers[-1].text)
        assert not failures, failures
        self.measured.append(Measured(*start, *memory, threads, answers[-1].samples))


@dataclass
class Everything:
    """This exporter with all brokers that can be started here, and the other exporters for them."""

    ours: Contest
    others: dict[str, Contest] = field(default_factory=dict)
    served: list[str] = field(default_factory=lambda: ["host"])
    missing: list[str] = field(default_factory=list)


def run(bench: Bench) -> Section:
    """Measure with the host only, then with the brokers."""
    starts = bench.often(7, 2)
    host = Contest(bench.start_ours, HOST_SAMPLE)
    node = Contest(bench.start_node_exporter, HOST_SAMPLE)
    _in_turns([host, node], starts)
    with ExitStack() as ends:
        everything = _everything(bench, ends)
        _in_turns([everything.ours, *everything.others.values()], starts)
    return _section(host, node, everything)


def _everything(bench: Bench, ends: ExitStack) -> Everything:
    settings = HOST_ONLY
    everything = Everything(Contest(lambda: bench.start_ours(settings), HOST_SAMPLE))
    for name, start in brokers.STARTS.items():
        try:
            broker = start(bench.new_folder(name), ends)
            settings += f"  {name}: {broker.settings}\n"
            everything.served.append(name)
            if broker.alternative is None:
                everything.missing.append(f"Debian has no other exporter for {name}")
            else:
                package = broker.alternative.package
                everything.others[package] = _other(bench, broker.alternative)
        except pytest.skip.Exception as missing:
            everything.missing.append(str(missing))
    return everything


def _other(bench: Bench, alternative: brokers.Alternative) -> Contest:
    package, flags = alternative
    program = need(package, package)
    return Contest(lambda: bench.start(package, lambda port: [program, *flags(port)]))


def _in_turns(contests: list[Contest], starts: int) -> None:
    for contest in contests:
        contest.measure()
        contest.measured.clear()  # the first start reads from disk and compiles
    for _ in range(starts):
        for contest in contests:
            contest.measure()


def _section(host: Contest, node: Contest, everything: Everything) -> Section:
    others = {"node_exporter": node} | everything.others
    rounds = zip(*(other.measured for other in others.values()), strict=True)
    served = " + ".join(everything.served)
    ours = everything.ours.measured
    return Section(
        "Start and memory",
        _HOW,
        [
            _table("bts-exporter: host", host.measured, "node_exporter", node.measured),
            _table(f"bts-exporter: {served}", ours, " + ".join(others), list(map(_sum, rounds))),
        ],
        facts=everything.missing,
        bars=[
            _bar("host: first scrape, s", START_SECONDS, [m.start for m in host.measured]),
            _bar("host: MB", HOST_MB, [m.resident / 1e6 for m in host.measured]),
            _bar(f"{served}: MB", ALL_MB, [m.resident / 1e6 for m in ours]),
        ],
    )


def _sum(exporters: tuple[Measured, ...]) -> Measured:
    return Measured(
        max(m.start for m in exporters),
        sum(m.cpu for m in exporters),
        sum(m.resident for m in exporters),
        sum(m.private for m in exporters),
        sum(m.threads for m in exporters),
        sum(m.samples for m in exporters),
    )


def _table(ours: str, measured: list[Measured], theirs: str, others: list[Measured]) -> Table:
    def row(what: str, of: Callable[[Measured], float]) -> Row:
        pair = [of(m) for m in measured], [of(m) for m in others]
        return Row(what, list(map(spread, pair)), ratios(*pair))

    return Table(
        (ours, theirs),
        "left / right",
        [
            row("start to first scrape, s", lambda m: m.start),
            row("CPU until then, s", lambda m: m.cpu),
            row("resident memory, MB", lambda m: m.resident / 1e6),
            row("of it private, MB", lambda m: m.private / 1e6),
            row("threads", lambda m: m.threads),
            row("samples", lambda m: m.samples),
        ],
    )


def _bar(what: str, limit: float, measured: list[float]) -> Bar:
    median = spread(measured).median
    return Bar(f"{what}: {median:.3g}, at most {limit:g}", median <= limit)
