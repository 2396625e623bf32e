"""Runs readers of the collector with literal replies."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from bts_collectors.redis.client.batching import RequestBatches
from bts_collectors.redis.client.context import ScrapeContext
from bts_exporter import Scrape, Url

#: One round trip: the expected commands, and the replies.
Exchange = tuple[list[Any], list[Any]]
#: Runs a reader with expected round trips.
Converse = Callable[..., None]

#: 2026-01-01 in milliseconds since 1970.
NEW_YEAR = 1_767_225_600_000


@pytest.fixture
def scrape_context() -> ScrapeContext:
    """Give the context of a scrape of a Redis 7.2 at new year 2026."""
    return ScrapeContext(
        Url("redis", "example.net", 6379),
        Scrape(monotonic() + 60),
        version=(7, 2, 0),
        now=NEW_YEAR,
    )


@pytest.fixture
def converse() -> Converse:
    """Return a function that runs a reader with literal replies, and checks its commands."""

    def run(part: RequestBatches, *rounds: Exchange) -> None:
        replies: list[Any] | None = None
        for expected, answer in rounds:
            commands = list(next(part) if replies is None else part.send(replies))
            assert expected == [words[:1] if words[0] == "EVAL_RO" else words for words in commands]
            replies = answer
        with pytest.raises(StopIteration):
            part.send(replies)

    return run
