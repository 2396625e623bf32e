from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from bts_collectors.redis.server import slowlog
from bts_exporter import Scrape

Samples = dict[str, dict[tuple[str, ...], float]]


def emitted(emit: Callable[[Scrape, Any], None], reply: Any) -> Samples:
    """Return the samples of a reply."""
    scrape = Scrape(monotonic() + 60)
    emit(scrape, reply)

    assert scrape.losses == []
    return {metric.name: samples for metric, samples in scrape.samples.items()}


def test_length() -> None:
    """SLOWLOG LEN is the length."""
    assert emitted(slowlog.emit_length, 3) == {"redis_slowlog_length": {(): 3}}


def test_latest_entry() -> None:
    """The latest entry has an id and a duration; its command, which may hold user data, is not read."""
    entry = [14, 1767225600, 15400, [b"GET", b"secret"], b"10.0.0.1:50000", b"name"]

    assert emitted(slowlog.emit_latest, [entry]) == {
        "redis_slowlog_last_id": {(): 14},
        "redis_last_slow_execution_duration_seconds": {(): 0.0154},
    }


@pytest.mark.parametrize("reply", [[], None, 7, [[]], [[1, 2]], [[b"1", 2, b"3"]]])
def test_an_empty_log_has_no_latest_entry(reply: Any) -> None:
    """An empty log or an odd reply gives no samples: 0 would be the id of an entry."""
    assert emitted(slowlog.emit_latest, reply) == {}


def test_logs_of_valkey() -> None:
    """Every kind of Valkey's log has its length; a reply that is not a number is skipped."""
    assert emitted(slowlog.emit_commandlogs, [1, 2, None]) == {
        "redis_commandlog_slow_length": {(): 1},
        "redis_commandlog_large_request_length": {(): 2},
    }
