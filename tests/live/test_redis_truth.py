"""Numbers of streams that servers and clients distort, on servers of every version."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from bts_collectors.redis.collector import RedisCollector
from bts_collectors.redis.streams.state import MOST_GROUPS
from bts_exporter import Duration, testing
from servers import wait_until
from servers.redis import MakeCollector, RedisServer

pytestmark = pytest.mark.live

GROUP = ("db0", "s", "g")
COMMON = ("redis", "s", "g")
HOUR = 3_600_000


@pytest.fixture
def client(any_redis: RedisServer) -> redis.Redis:
    """Give a client of an empty server of every version."""
    return any_redis.client


@pytest.fixture
def collector(any_redis: RedisServer, redis_collector: MakeCollector) -> RedisCollector:
    """Give a collector of stream s."""
    return redis_collector(any_redis.url, streams=("s",), stream_stale_after=Duration(0.2))


def milliseconds(client: redis.Redis) -> int:
    """Return the server's clock in milliseconds since 1970."""
    seconds, microseconds = client.time()
    return int(seconds * 1000 + microseconds // 1000)


def counts_entries(client: redis.Redis) -> bool:
    """Return whether the server counts the entries that were ever added to a stream."""
    return int(client.info("server")["redis_version"].partition(".")[0]) >= 7


def overrun(client: redis.Redis) -> None:
    """Add ten entries to a stream that is trimmed to ten, and let group g read one of them."""
    for _ in range(10):
        client.xadd("s", {"a": 1}, maxlen=10, approximate=False)
    client.xreadgroup("g", "c", {"s": ">"}, count=1, noack=True)


def test_a_group_that_was_overrun_unseen(client: redis.Redis, collector: RedisCollector) -> None:
    """If 200 of 2,000 entries were delivered and the others trimmed, the server's 1,991 consumed entries are not served."""
    client.xgroup_create("s", "g", "0", mkstream=True)
    for _ in range(200):
        overrun(client)

    for _ in range(2):
        samples = testing.collect(collector)

        assert samples["redis_stream_group_lag"] == {GROUP: 9}
        assert samples["redis_stream_group_lag_exact"] == {GROUP: 1}
        assert "messaging_consumed_messages_total" not in samples
    client.xreadgroup("g", "c", {"s": ">"}, count=3, noack=True)
    samples = testing.collect(collector)

    assert samples["redis_stream_group_lag"] == {GROUP: 6}
    if counts_entries(client):
        assert samples["messaging_consumed_messages_total"] == {COMMON: 3}
        assert samples["redis_stream_group_entries_lost"] == {GROUP: 0}


def test_a_group_that_was_overrun_under_our_eyes(
    client: redis.Redis, collector: RedisCollector
) -> None:
    """If the collector runs before and after each read, deliveries and losses are exact."""
    if not counts_entries(client):
        pytest.skip("not everywhere: Redis 6.2 does not count the entries added")
    client.xgroup_create("s", "g", "0", mkstream=True)
    testing.collect(collector)
    for number in range(1, 4):
        for _ in range(10):
            client.xadd("s", {"a": 1}, maxlen=10, approximate=False)
        samples = testing.collect(collector)
        assert samples["redis_stream_group_entries_lost"] == {GROUP: 9 if number > 1 else 0}
        assert samples["messaging_consumed_messages_total"] == {COMMON: number - 1}
        client.xreadgroup("g", "c", {"s": ">"}, count=1, noack=True)
        samples = testing.collect(collector)
        assert samples["messaging_consumed_messages_total"] == {COMMON: number}


@pytest.mark.parametrize("read", [0, 3, 9, 10])
@pytest.mark.parametrize("command", ["CREATE", "SETID"])
def test_a_wrong_counter(
    client: redis.Redis, collector: RedisCollector, command: str, read: int
) -> None:
    """The lag is the number of waiting entries, whatever ENTRIESREAD was set to."""
    if not counts_entries(client):
        pytest.skip("not everywhere: Redis 6.2 has no such counter")
    ids = [client.xadd("s", {"a": number}) for number in range(10)]
    if command == "SETID":
        client.xgroup_create("s", "g", "0")
    client.execute_command("XGROUP", command, "s", "g", ids[4], "ENTRIESREAD", read)

    samples = testing.collect(collector)

    assert samples["redis_stream_group_lag"] == {GROUP: 5}
    assert samples["redis_stream_group_lag_exact"] == {GROUP: 1}
    assert "messaging_consumed_messages_total" not in samples


def test_a_clock_that_was_set_back(client: redis.Redis, collector: RedisCollector) -> None:
    """Ids an hour ahead are not plausible: at first there is no age, then a lower bound."""
    ahead = milliseconds(client) + HOUR
    client.xgroup_create("s", "g", "0", mkstream=True)
    testing.collect(collector)
    for number in range(50):
        client.xadd("s", {"a": number}, id=f"{ahead}-{number}")

    samples = testing.collect(collector)
    assert samples["redis_stream_group_lag"] == {GROUP: 50}
    assert "messaging_lag_seconds" not in samples
    assert "redis_stream_group_lag_seconds" not in samples
    assert "redis_stream_last_entry_age_seconds" not in samples

    samples = testing.collect(collector)
    assert 0 < samples["messaging_lag_seconds"][COMMON] < 60
    assert samples["messaging_lag_method_info"] == {(*COMMON, "lower_bound"): 1}


def test_a_clock_that_is_behind(client: redis.Redis, collector: RedisCollector) -> None:
    """An entry added after the group had none waiting is not older than that, whatever its id is."""
    behind = milliseconds(client) - HOUR
    client.xadd("s", {"a": 1}, id=f"{behind}-0")
    client.xgroup_create("s", "g", "$")
    assert testing.collect(collector)["messaging_lag_seconds"] == {COMMON: 0}
    client.xadd("s", {"a": 1}, id=f"{behind}-1")

    testing.collect(collector)
    samples = testing.collect(collector)
    assert 0 < samples["messaging_lag_seconds"][COMMON] < 60
    assert samples["messaging_lag_method_info"] == {(*COMMON, "lower_bound"): 1}


def test_a_group_that_is_set_back(client: redis.Redis, collector: RedisCollector) -> None:
    """An entry that was there all the time has the age of its id, also after the group had none waiting."""
    old = milliseconds(client) - HOUR
    client.xadd("s", {"a": 1}, id=f"{old}-0")
    client.xgroup_create("s", "g", "$")
    testing.collect(collector)
    client.xgroup_setid("s", "g", "0")

    samples = testing.collect(collector)
    assert samples["messaging_lag_seconds"][COMMON] == pytest.approx(3600, abs=60)
    assert samples["messaging_lag_method_info"] == {(*COMMON, "message_time"): 1}


def test_a_consumer_that_asks_in_vain_is_not_stale(
    client: redis.Redis, collector: RedisCollector
) -> None:
    """A consumer with a pending entry that still polls is not stale; before 7.2 this is unknown."""
    client.xadd("s", {"a": 1})
    client.xgroup_create("s", "g", "0")
    client.xreadgroup("g", "c", {"s": ">"})
    wait_until(lambda: client.xpending_range("s", "g", "-", "+", 1, idle=300), "it rests")
    client.xreadgroup("g", "c", {"s": ">"})

    samples = testing.collect(collector)

    if "inactive" in client.xinfo_consumers("s", "g")[0]:
        assert samples["redis_stream_group_consumers_stale"] == {GROUP: 0}
        assert samples["redis_stream_group_consumer_max_idle_seconds"][GROUP] < 60
    else:
        assert "redis_stream_group_consumers_stale" not in samples
        assert "redis_stream_group_consumer_max_idle_seconds" not in samples


def test_a_server_that_pauses_writers(client: redis.Redis, collector: RedisCollector) -> None:
    """While CLIENT PAUSE blocks writers, as during a failover, everything is read as before."""
    for number in range(10):
        client.xadd("s", {"a": number})
    client.xgroup_create("s", "g", "0")
    client.xreadgroup("g", "c", {"s": ">"}, count=4)
    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    try:
        samples = testing.collect(collector)
    finally:
        client.execute_command("CLIENT", "UNPAUSE")

    assert samples["redis_up"] == {(): 1}
    assert samples["redis_stream_group_lag"] == {GROUP: 6}


def test_streams_with_many_groups(
    any_redis: RedisServer, client: redis.Redis, redis_collector: MakeCollector
) -> None:
    """Every group is served, also if one or several streams have too many groups for a script."""
    counts = {"none": 0, "some": 150, "more": 151, "many": MOST_GROUPS + 1, "one": 1}
    with client.pipeline(transaction=False) as pipeline:
        for name, count in counts.items():
            pipeline.xadd(name, {"a": 1})
            for number in range(count):
                pipeline.xgroup_create(name, f"g{number}", "0")
        pipeline.execute()
    collector = redis_collector(any_redis.url, streams=tuple(counts))

    for _ in range(2):
        lags: dict[Any, float] = testing.collect(collector)["redis_stream_group_lag"]

        assert set(lags.values()) == {1}
        assert {name: sum(labels[1] == name for labels in lags) for name in counts} == counts


def test_time_until_a_group_has_caught_up(client: redis.Redis, collector: RedisCollector) -> None:
    """The drain time is 0 without waiting entries, and unknown until deliveries were observed for half a minute."""
    client.xadd("s", {"a": 1})
    client.xgroup_create("s", "g", "0")
    assert "messaging_drain_seconds" not in testing.collect(collector)

    client.xreadgroup("g", "c", {"s": ">"})

    assert testing.collect(collector)["messaging_drain_seconds"] == {COMMON: 0}
