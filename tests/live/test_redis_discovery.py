"""Names found on real servers: patterns read as the server reads them, one walk, none in a scrape."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bts_collectors.redis.collector import RedisCollector
from bts_collectors.redis.keyspace import globs, scanner
from bts_collectors.redis.queues.config import LibrarySettings, QueueSettings, WantedNames
from bts_exporter import testing
from servers import wait_until
from servers.redis import MakeCollector, RedisServer, calls

pytestmark = pytest.mark.live

#: What means something in a pattern, and a little that does not.
LETTERS = "ab-]^[\\*?"
#: Strings that match no pattern.
KEYS = 20_000


@pytest.fixture
def crowded(redis_server: RedisServer) -> RedisServer:
    """Give a server with many strings, and a few streams and lists among them."""
    pipeline = redis_server.client.pipeline(transaction=False)
    for number in range(KEYS):
        pipeline.set(f"session:{number}", "x")
    for number in range(50):
        pipeline.xadd(f"bts:{number}", {"a": 1})
        pipeline.rpush(f"jobs:{number}", 1)
        pipeline.set(f"bts:text:{number}", "x")
    pipeline.execute()
    redis_server.client.config_resetstat()
    return redis_server


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pattern=st.text(LETTERS, min_size=1, max_size=8), data=st.data())
def test_patterns_match_as_the_server_does(
    any_redis: RedisServer, pattern: str, data: st.DataObject
) -> None:
    """For any pattern, the same names match here and in the server."""
    names = data.draw(st.lists(st.text(LETTERS, min_size=1, max_size=6), min_size=5, max_size=20))
    any_redis.client.flushall()
    any_redis.client.mset(dict.fromkeys([*names, pattern], "x"))
    match = globs.compiled([pattern.encode()]).fullmatch

    expected = set(any_redis.client.keys(pattern))

    assert {name for name in {n.encode() for n in (*names, pattern)} if match(name)} == expected


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patterns=st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=2, max_size=4))
def test_one_pattern_covers_several(redis_server: RedisServer, patterns: list[str]) -> None:
    """The pattern that replaces several patterns in SCAN matches all names that they match."""
    client = redis_server.client
    if not client.dbsize():
        client.mset({a + b + c: "x" for a in LETTERS for b in LETTERS for c in LETTERS})
    spelled = [pattern.encode() for pattern in patterns]

    matched = set(client.keys(globs.covering(spelled)))

    assert matched >= {name for pattern in spelled for name in client.keys(pattern)}


def test_one_walk_for_all_settings(crowded: RedisServer, redis_collector: MakeCollector) -> None:
    """Streams, queues and keys of many patterns are found by the SCANs that one pattern needs."""
    collector = redis_collector(
        crowded.url,
        streams=("bts:*",),
        keys=("session:1999?",),
        queues=QueueSettings(lists=("jobs:*",), bullmq=LibrarySettings(), huey=WantedNames()),
    )
    complete(collector)

    samples = testing.collect(collector)

    assert len(samples["redis_stream_length"]) == 50
    assert len(samples["redis_key_size"]) == 10
    assert len(samples["redis_queue_messages"]) == 50
    assert calls(crowded.client, "scan") == pytest.approx(KEYS / 500, rel=0.2)


def test_a_scrape_does_not_scan(crowded: RedisServer, redis_collector: MakeCollector) -> None:
    """Between two walks, scrapes read the known names, and do not scan."""
    collector = redis_collector(crowded.url, streams=("bts:*",), keys=("jobs:*",))
    complete(collector)
    before = calls(crowded.client, "scan")

    for _ in range(3):
        assert len(testing.collect(collector)["redis_stream_length"]) == 50

    assert calls(crowded.client, "scan") == before


def test_an_interrupted_walk_is_resumed(
    crowded: RedisServer, redis_collector: MakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key space that is too large for one walk is scanned in several, each from the previous cursor."""
    monkeypatch.setattr(scanner, "KEYS_BUDGET", KEYS // 4)
    collector = redis_collector(crowded.url, streams=("bts:*",))
    first = testing.collect(collector)

    complete(collector)

    assert first["redis_exporter_discovery_truncated"] == {("streams",): 1}
    assert len(testing.collect(collector)["redis_stream_length"]) == 50
    assert calls(crowded.client, "scan") == pytest.approx(KEYS / 500, rel=0.2)


def complete(collector: RedisCollector) -> None:
    """Collect until the first walk is complete."""

    def is_complete() -> bool:
        known = testing.collect(collector)["redis_exporter_discovery_truncated"]
        return not any(known.values())

    wait_until(is_complete, "all keys were looked at")
