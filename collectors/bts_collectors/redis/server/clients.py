"""Who is connected, counted: by the name, user and library that connections give of themselves."""

from __future__ import annotations

import re
from collections import Counter

from bts_collectors.redis.client.connection import Reply
from bts_collectors.redis.client.labels import label
from bts_exporter import Metric, Scrape, gauge

#: Combinations of name, user and library; the rarer ones beyond it are counted together.
MOST = 100
_LINE = re.compile(rb"[^\n]+")
_WHO = ("name", "user", "lib_name")

CLIENTS = gauge("redis_clients", "Connections by name, user and lib-name of CLIENT LIST.", _WHO)
OTHERS = gauge(
    "redis_clients_other",
    f"Connections beyond the {MOST} most frequent combinations of redis_clients.",
)
METRICS: tuple[Metric, ...] = (CLIENTS, OTHERS)


def count(listed: bytes) -> Counter[tuple[bytes, ...]]:
    """Return how many connections a CLIENT LIST has by name, user (6.0) and lib-name (7.2)."""
    found: Counter[tuple[bytes, ...]] = Counter()
    # Line by line: the list may be long, and all its lines at once are as much again.
    for match in _LINE.finditer(listed):
        line = match[0]
        found[_word(line, b" name="), _word(line, b" user="), _word(line, b" lib-name=")] += 1
    return found


def _word(line: bytes, start: bytes) -> bytes:
    # Not all 30 words of a line as a dict: that took five times as long.
    return line.partition(start)[2].partition(b" ")[0]


def emit(scrape: Scrape, reply: Reply) -> None:
    """Emit the reply of CLIENT LIST."""
    if type(reply) is not bytes:
        return
    found = count(reply)
    for who, number in found.most_common(MOST):
        scrape.emit(CLIENTS, number, *map(label, who))
        del found[who]
    scrape.emit(OTHERS, found.total())
