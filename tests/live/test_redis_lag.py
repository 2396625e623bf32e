"""The lag of consumer groups on a real server, held against the entries themselves."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import redis

from bts_collectors.redis import lag
from bts_collectors.redis.collector import RedisCollector
from bts_exporter import testing
from servers.redis import MakeCollector, RedisServer

pytestmark = pytest.mark.live

GROUP = ("db0", "s", "g")
COMMON = ("redis", "s", "g")

#: Something that happens to stream s, of ten entries, after group g has read four.
Event = Callable[["redis.Redis[bytes]", list[bytes]], object]


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    """Give a client of the empty server."""
    return redis_server.client


@pytest.fixture
def collector(redis_server: RedisServer, redis_collector: MakeCollector) -> RedisCollector:
    """Give a collector of stream s and of those beginning with bts:."""
    return redis_collector(redis_server.url, streams=("s", "bts:*"))


def fill(client: redis.Redis, count: int = 10) -> list[bytes]:
    """Add entries to stream s that are ten seconds old; return their ids."""
    seconds, microseconds = client.time()
    then = seconds * 1000 + microseconds // 1000 - 10_000
    with client.pipeline(transaction=False) as pipeline:
        for number in range(count):
            pipeline.xadd("s", {"number": number}, id=f"{then}-*")
        ids: list[bytes] = pipeline.execute()
    return ids


def read(client: redis.Redis, count: int) -> None:
    """Let group g read entries, unacknowledged."""
    client.xreadgroup("g", "c", {"s": ">"}, count=count)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (lambda client, ids: None, 6),
        (lambda client, ids: client.xdel("s", ids[7]), 5),
        (lambda client, ids: client.xdel("s", ids[1]), 6),
        (lambda client, ids: client.xgroup_setid("s", "g", ids[1]), 8),
        (lambda client, ids: client.xtrim("s", maxlen=3, approximate=False), 3),
        (lambda client, ids: client.xdel("s", *ids), 0),
        (lambda client, ids: read(client, 100), 0),
        (lambda client, ids: fill(client, 5), 11),
    ],
    ids=[
        "nothing",
        "entry-ahead-deleted",
        "entry-behind-deleted",
        "set-back",
        "trimmed-past-the-group",
        "all-deleted",
        "all-read",
        "more-added",
    ],
)
def test_lag_is_what_the_group_would_get(
    client: redis.Redis, collector: RedisCollector, event: Event, expected: int
) -> None:
    """The lag of a group that read four of ten entries is exact, whatever happened since."""
    ids = fill(client)
    client.xgroup_create("s", "g", "0")
    read(client, 4)
    event(client, ids)

    samples = testing.collect(collector)

    assert expected == samples["redis_stream_group_lag"][GROUP]
    assert expected == samples["messaging_backlog_messages"][COMMON]
    assert (expected > 0) == (samples["redis_stream_group_lag_seconds"][GROUP] >= 10)
    assert (
        samples["redis_stream_group_lag_seconds"][GROUP] == samples["messaging_lag_seconds"][COMMON]
    )
    assert {(*COMMON, "message_time"): 1} == samples["messaging_lag_method_info"]


@pytest.mark.parametrize(
    ("start", "added", "expected"), [("0", 0, 10), ("middle", 0, 6), ("$", 0, 0), ("$", 3, 3)]
)
def test_lag_of_a_group_that_never_read(
    client: redis.Redis, collector: RedisCollector, start: str, added: int, expected: int
) -> None:
    """A group made at the start, at some id or at the end lags by what was added after that."""
    ids = fill(client)
    client.xgroup_create("s", "g", ids[3] if start == "middle" else start)
    fill(client, added)

    samples = testing.collect(collector)

    assert expected == samples["redis_stream_group_lag"][GROUP]
    assert samples["redis_stream_group_messages_pending"] == {("db0", "s", "g"): 0}
    assert "redis_stream_group_entries_read" not in samples or start == "0"


def test_a_lag_of_several_pages_is_counted(client: redis.Redis, collector: RedisCollector) -> None:
    """What is counted in pages adds up to the exact number, from either end."""
    ids = fill(client, 345)
    client.xgroup_create("s", "g", ids[122])
    client.xdel("s", ids[300])

    assert testing.collect(collector)["redis_stream_group_lag"] == {GROUP: 221}


def test_a_group_near_the_start_of_a_long_stream_is_counted_from_there(
    client: redis.Redis, collector: RedisCollector
) -> None:
    """A backlog far beyond what is counted is exact where few entries are behind the group."""
    fill(client, 123)
    client.xgroup_create("s", "g", "$")
    fill(client, 3 * lag.MOST_COUNTED)

    samples = testing.collect(collector)

    assert samples["redis_stream_group_lag"][GROUP] == 3 * lag.MOST_COUNTED


def test_a_lag_that_would_take_too_long_to_count_is_absent(
    client: redis.Redis, collector: RedisCollector
) -> None:
    """In the middle of a long stream the messages are not told, but the seconds are."""
    count = 3 * lag.MOST_COUNTED
    ids = fill(client, count)
    client.xgroup_create("s", "g", ids[count // 2])

    samples = testing.collect(collector)

    assert "redis_stream_group_lag" not in samples
    assert "messaging_backlog_messages" not in samples
    assert samples["messaging_lag_seconds"][COMMON] >= 10


def test_ages_are_by_the_ids(client: redis.Redis, collector: RedisCollector) -> None:
    """Waiting and pending seconds are those since the entry's id, by the server's clock."""
    seconds, microseconds = client.time()
    now = seconds * 1000 + microseconds // 1000
    for age in (40_000, 30_000, 20_000):
        client.xadd("s", {"age": age}, id=f"{now - age}-0")
    client.xgroup_create("s", "g", "0")
    read(client, 1)

    samples = testing.collect(collector)

    assert samples["redis_stream_group_lag_seconds"][GROUP] == pytest.approx(30, abs=5)
    assert samples["redis_stream_group_oldest_pending_age_seconds"][GROUP] == pytest.approx(
        40, abs=5
    )


def test_ids_without_time_have_no_age(client: redis.Redis, collector: RedisCollector) -> None:
    """Entries with ids set by hand are counted, and have no age."""
    for number in (1, 2, 3):
        client.xadd("s", {"number": number}, id=f"{number}-1")
    client.xgroup_create("s", "g", "0")
    read(client, 1)

    samples = testing.collect(collector)

    assert samples["redis_stream_group_lag"][GROUP] == 2
    assert "messaging_lag_seconds" not in samples
    assert "messaging_lag_method_info" not in samples
    assert "redis_stream_group_oldest_pending_age_seconds" not in samples


def test_random_histories(client: redis.Redis, collector: RedisCollector) -> None:
    """After any history of a stream the lag of each group is the number of entries ahead of it."""
    chance = random.Random(7)
    for number in range(60):
        _live_through(client, f"bts:{number}", chance)

    samples = testing.collect(collector)

    truth = {}
    for number in range(60):
        name = f"bts:{number}"
        for group in client.xinfo_groups(name):
            last = group["last-delivered-id"].decode()
            labels = ("db0", name, group["name"].decode())
            truth[labels] = len(client.xrange(name, f"({last}"))
    assert truth == samples["redis_stream_group_lag"]


def _live_through(client: redis.Redis, name: str, chance: random.Random) -> None:
    """Let thirty things happen to a stream and its two groups."""
    ids = [client.xadd(name, {"number": 0})]
    for group, start in (("g", "0"), ("h", "$")):
        client.xgroup_create(name, group, start)
    for _ in range(30):
        group = chance.choice("gh")
        match chance.randrange(8):
            case 0 | 1 | 2:
                ids += [client.xadd(name, {"number": n}) for n in range(chance.randrange(1, 5))]
            case 3 | 4:
                client.xreadgroup(group, "c", {name: ">"}, count=chance.randrange(1, 6))
            case 5:
                client.xdel(name, *chance.sample(ids, min(2, len(ids))))
            case 6:
                client.xgroup_setid(name, group, chance.choice(ids))
            case 7:
                client.xtrim(name, maxlen=chance.randrange(12), approximate=False)
