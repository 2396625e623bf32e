"""CLIENT LIST: connections counted by name, user and client library."""

from __future__ import annotations

import re
from collections import Counter

from bts_collectors.redis.client.connection import Reply
from bts_collectors.redis.client.labels import label
from bts_exporter import Metric, Scrape, gauge

#: Combinations of name, user and library. Rarer ones are counted together.
MOST = 100
_LINE = re.compile(rb"[^\n]+")
_IDENTITY = ("name", "user", "lib_name")

CLIENTS = gauge(
    "redis_clients", "Connections by name, user and lib-name of CLIENT LIST.", _IDENTITY
)
OTHERS = gauge(
    "redis_clients_other",
    f"Connections that are not among the {MOST} most frequent combinations of redis_clients.",
)
METRICS: tuple[Metric, ...] = (CLIENTS, OTHERS)


def count(listed: bytes) -> Counter[tuple[bytes, ...]]:
    """Return the connections in a CLIENT LIST by name, user (since 6.0) and lib-name (since 7.2)."""
    counts: Counter[tuple[bytes, ...]] = Counter()
    # Line by line, because a list of all lines would take as much memory again.
    for match in _LINE.finditer(listed):
        line = match[0]
        counts[_word(line, b" name="), _word(line, b" user="), _word(line, b" lib-name=")] += 1
    return counts


def _word(line: bytes, start: bytes) -> bytes:
    # A dict of all 30 words of a line takes five times as long.
    return line.partition(start)[2].partition(b" ")[0]


def emit(scrape: Scrape, reply: Reply) -> None:
    """Emit the reply of CLIENT LIST."""
    if type(reply) is not bytes:
        return
    counts = count(reply)
    for identity, number in counts.most_common(MOST):
        scrape.emit(CLIENTS, number, *map(label, identity))
        del counts[identity]
    scrape.emit(OTHERS, counts.total())
