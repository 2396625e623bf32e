"""Who is connected, counted: by the name, user and library that connections give of themselves."""

from __future__ import annotations

from collections import Counter

from bts_collectors.redis.connection import Reply
from bts_collectors.redis.visit import text
from bts_exporter import Metric, Scrape, gauge

#: Combinations of name, user and library; the rarer ones beyond it are counted together.
MOST = 100
_WHO = ("name", "user", "lib_name")

CLIENTS = gauge("redis_clients", "Connections by name, user and lib-name of CLIENT LIST.", _WHO)
OTHERS = gauge(
    "redis_clients_other",
    f"Connections beyond the {MOST} most frequent combinations of redis_clients.",
)
METRICS: tuple[Metric, ...] = (CLIENTS, OTHERS)


def count(listed: str) -> Counter[tuple[str, ...]]:
    """Return how many connections a CLIENT LIST has by name, user (6.0) and lib-name (7.2)."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in listed.splitlines():
        found[_word(line, " name="), _word(line, " user="), _word(line, " lib-name=")] += 1
    return found


def _word(line: str, start: str) -> str:
    # Not all 30 words of a line as a dict: that took five times as long.
    return line.partition(start)[2].partition(" ")[0]


def emit(scrape: Scrape, reply: Reply) -> None:
    """Emit the reply of CLIENT LIST."""
    if type(reply) is not bytes:
        return
    found = count(text(reply))
    for who, number in found.most_common(MOST):
        scrape.emit(CLIENTS, number, *who)
        del found[who]
    scrape.emit(OTHERS, found.total())
