"""Collectors that never return: the scrape ends in time, and only their own samples are missing."""

from __future__ import annotations

import re

from measuring import Answer, Bench, Scraper, Server, spread
from report import Bar, Row, Section, Table

HANGING = ("a", "b", "c")
#: The path of a page without the hanging collectors.
OTHERS = "/metrics?exclude[]=sleeper"
#: Scrapes of each process after the first one.
LATER = 4
#: The timeout that the scraper sends, in seconds; half a second of it is reserved for sending.
PATIENCE = 3
DEADLINE = PATIENCE - 0.5
#: Maximum delay of the whole response, in seconds.
TOLERANCE = 0.25

PLUGIN = '''\
"""Sleeps, like a system call on a dead mount."""

import time

from bts_exporter import Collector, Scrape


class Sleeper(Collector):
    """Never returns."""

    def collect(self, scrape: Scrape) -> None:
        time.sleep(3600)
'''

_FAILED = re.compile(
    r'^bts_exporter_collector_success\{collector="sleeper",.*\} 0(?:\.0)?$', re.MULTILINE
)

_HOW = f"""\
A plug-in that sleeps for an hour is configured {len(HANGING)} times, in addition to the host's collectors. Scrapes have a deadline of
{DEADLINE} s (`scrape_timeout`; the scraper announces {PATIENCE} s). Every series that a scrape without the plug-in has, before and
after, must be on the pages with it. A collection that hangs is not started again, so later scrapes do not wait."""


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
            before = _series(_page(server, OTHERS))
            answers = [_page(server, "/metrics") for _ in range(LATER + 1)]
            others = before & _series(_page(server, OTHERS))
        finally:
            server.end()
        first.append(answers[0].seconds)
        later += [answer.seconds for answer in answers[1:]]
        failed += [len(_FAILED.findall(answer.text)) for answer in answers]
        for answer in answers:
            missing |= others - _series(answer)
    return Section(
        "Three collectors that hang",
        _HOW,
        [
            Table(
                ("wall, s",),
                "",
                [Row("first scrape", [spread(first)]), Row("later scrapes", [spread(later)])],
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
    plugins.chmod(0o755)  # the exporter loads no code from a folder that others can write to
    (plugins / "sleeper.py").write_text(PLUGIN)
    names = ", ".join(f"{{name: {name}}}" for name in HANGING)
    return f"""\
plugins: {plugins}
scrape_timeout: {DEADLINE}s
collectors:
  host:
  sleeper: [{names}]
"""


def _page(server: Server, path: str) -> Answer:
    with Scraper(server.port, path) as scraper:
        answer = scraper.scrape(patience=PATIENCE)
    if answer.status != 200:
        msg = f"status {answer.status}: {answer.text}"
        raise AssertionError(msg)
    return answer


def _series(answer: Answer) -> set[str]:
    """Return names and labels on a page, without the metrics of the exporter itself."""
    lines = (
        line for line in answer.text.splitlines() if not line.startswith(("#", "bts_exporter_"))
    )
    return {line.rpartition(" ")[0] for line in lines}
