"""Collectors that never answer: the scrape ends in time, and nobody else's samples are missing."""

from __future__ import annotations

import re

from measuring import Answer, Bench, Scraper, Server, ratios, spread
from report import Bar, Row, Section, Table

HANGING = ("a", "b", "c")
#: Scrapes of each process after its first.
LATER = 4
#: What the scraper says it waits for in seconds; half a second of it is kept back to send the answer.
PATIENCE = 3
DEADLINE = PATIENCE - 0.5
#: How late the whole answer may be, in seconds.
TOLERANCE = 0.25

PLUGIN = '''\
"""Sleeps, as a system call on a dead mount does."""

import time

from bts_exporter import Collector, Scrape


class Sleeper(Collector):
    """Never answers."""

    def collect(self, scrape: Scrape) -> None:
        time.sleep(3600)
'''

_FAILED = re.compile(r'^bts_exporter_collector_success\{collector="sleeper",.*\} 0', re.MULTILINE)


_HOW = f"""\
A drop-in collector that sleeps for an hour, configured {len(HANGING)} times beside the host's collectors. The scraper says that
it waits {PATIENCE} s (`X-Prometheus-Scrape-Timeout-Seconds`), so that the deadline is {DEADLINE} s. Every series that a scrape
without the sleepers gives has to be on the page."""


def run(bench: Bench) -> Section:
    """Scrape a set in which three collectors hang, and compare with the same set without them."""
    settings = _settings(bench)
    first: list[float] = []
    later: list[float] = []
    missing: set[str] = set()
    failed: list[int] = []
    for _ in range(bench.often(5, 2)):
        server = bench.start_ours(settings)
        try:
            server.wait(path="/-/ready")
            answers = _scrape(server)
            others = _page(server, "/metrics?exclude[]=sleeper").text
        finally:
            server.end()
        first.append(answers[0].seconds)
        later += [answer.seconds for answer in answers[1:]]
        failed += [len(_FAILED.findall(answer.text)) for answer in answers]
        for answer in answers:
            missing |= _series(others) - _series(answer.text)
    return Section(
        "Three collectors that hang",
        _HOW,
        [
            Table(
                ("wall, s",),
                "of the deadline",
                [_row("first scrape", first), _row("later scrapes", later)],
            )
        ],
        facts=[f"missing: {series}" for series in sorted(missing)[:5]],
        bars=[
            Bar(
                f"every answer within the deadline and {TOLERANCE} s",
                max(*first, *later) <= DEADLINE + TOLERANCE,
            ),
            Bar("no series of another collector is missing", not missing),
            Bar("all three are reported as failed, each time", set(failed) == {len(HANGING)}),
        ],
    )


def _settings(bench: Bench) -> str:
    plugins = bench.new_folder("plugins")
    plugins.mkdir(mode=0o755)
    (plugins / "sleeper.py").write_text(PLUGIN)
    names = ", ".join(f"{{name: {name}}}" for name in HANGING)
    return f"plugins: {plugins}\ncollectors:\n  host:\n  sleeper: [{names}]\n"


def _scrape(server: Server) -> list[Answer]:
    return [_page(server, "/metrics") for _ in range(LATER + 1)]


def _page(server: Server, path: str) -> Answer:
    with Scraper(server.port, path) as scraper:
        answer = scraper.scrape(patience=PATIENCE)
    if answer.status != 200:
        msg = f"status {answer.status}: {answer.text}"
        raise AssertionError(msg)
    return answer


def _series(page: str) -> set[str]:
    """Return the names and labels on `page`, but for what the exporter says of itself."""
    lines = (line for line in page.splitlines() if not line.startswith(("#", "bts_exporter_")))
    return {line.rpartition(" ")[0] for line in lines}


def _row(what: str, seconds: list[float]) -> Row:
    return Row(what, [spread(seconds)], ratios(seconds, [DEADLINE] * len(seconds)))
