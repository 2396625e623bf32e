from __future__ import annotations

from bts_collectors.redis.client.context import ScrapeContext

NAMES = [b"a", b"b", b"{a}c", b"d", b"{a}e"]


def test_batches_of_one_server(scrape_context: ScrapeContext) -> None:
    """On one server a command may name any keys together."""
    assert scrape_context.batches(NAMES, 2, lambda name: name) == [NAMES[:2], NAMES[2:4], NAMES[4:]]
    assert scrape_context.batches([], 2, lambda name: name) == []


def test_batches_of_a_cluster(scrape_context: ScrapeContext) -> None:
    """In a cluster the keys that a command names share a slot."""
    scrape_context.clustered = True

    assert scrape_context.batches(NAMES, 2, lambda name: name) == [
        [b"a", b"{a}c"],
        [b"{a}e"],
        [b"b"],
        [b"d"],
    ]
