"""The lag of consumer groups on a real server, held against the entries themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from bts_collectors.redis.collector import RedisCollector
from bts_collectors.redis.streams import consumers, lag
from bts_collectors.redis.streams.state import MOST_CONSUMERS
from bts_exporter import Duration, testing
from servers import wait_until
from servers.redis import MakeCollector, MakeRedis, RedisServer
from servers.redis_versions import program

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
    """Give a collector of stream s and of streams that begin with bts:."""
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
    """The lag of a group that read four of ten entries is exact, whatever happened afterwards."""
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
    """The lag of a group created at the start, at an id or at the end is the number of entries after it."""
    ids = fill(client)
    client.xgroup_create("s", "g", ids[3] if start == "middle" else start)
    fill(client, added)

    samples = testing.collect(collector)

    assert expected == samples["redis_stream_group_lag"][GROUP]
    assert samples["redis_stream_group_messages_pending"] == {("db0", "s", "g"): 0}
    assert "redis_stream_group_entries_read" not in samples or start == "0"


def test_a_lag_of_several_pages_is_counted(client: redis.Redis, collector: RedisCollector) -> None:
    """Entries that are counted in pages add up to the exact number, from either end."""
    ids = fill(client, 345)
    client.xgroup_create("s", "g", ids[122])
    client.xdel("s", ids[300])

    assert testing.collect(collector)["redis_stream_group_lag"] == {GROUP: 221}


def test_a_group_near_the_start_of_a_long_stream_is_counted_from_there(
    client: redis.Redis, collector: RedisCollector
) -> None:
    """A backlog that is too long to count is exact if few entries precede the group's position."""
    fill(client, 123)
    client.xgroup_create("s", "g", "$")
    fill(client, 3 * lag.MOST_COUNTED)

    samples = testing.collect(collector)

    assert samples["redis_stream_group_lag"][GROUP] == 3 * lag.MOST_COUNTED


def test_a_lag_that_would_take_too_long_to_count_is_absent(
    client: redis.Redis, collector: RedisCollector
) -> None:
    """In the middle of a long stream the lag in messages is unknown, the lag in seconds is known."""
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


def test_a_hung_consumer_without_traffic_ages(
    client: redis.Redis, collector: RedisCollector
) -> None:
    """Nothing is added, read or acknowledged: the ages grow with the server's clock, also after RESETSTAT."""
    ids = fill(client)
    client.xgroup_create("s", "g", "0")
    read(client, 4)
    added = int(ids[0].partition(b"-")[0]) / 1000

    def is_at_least(seconds: float) -> bool:
        before = server_seconds(client) - added
        samples = testing.collect(collector)
        after = server_seconds(client) - added
        for name in (
            "redis_stream_group_lag_seconds",
            "redis_stream_group_oldest_pending_age_seconds",
        ):
            assert before - 0.01 <= samples[name][GROUP] <= after + 0.01
        assert samples["messaging_lag_seconds"] == {
            COMMON: samples["redis_stream_group_lag_seconds"][GROUP]
        }
        assert samples["messaging_backlog_messages"] == {COMMON: 6}
        assert samples["messaging_in_flight_messages"] == {COMMON: 4}
        return samples["messaging_lag_seconds"][COMMON] >= seconds

    wait_until(lambda: is_at_least(10.3), "the entries age")
    client.config_resetstat()
    wait_until(lambda: is_at_least(10.6), "the entries age after the reset")


def server_seconds(client: redis.Redis) -> float:
    """Return the server's clock as Unix time."""
    seconds, microseconds = client.time()
    return float(seconds) + microseconds / 1e6


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


@pytest.mark.parametrize(
    ("denied", "lost"),
    [
        ("xpending", {"redis_stream_group_oldest_pending_age_seconds"}),
        ("xinfo|consumers", {"redis_stream_group_consumers_stale"}),
        ("xrange", {"redis_stream_group_lag_seconds", "messaging_lag_method_info"}),
        ("eval_ro", set()),
    ],
)
def test_a_denied_command_costs_its_own_samples(
    make_redis: MakeRedis, redis_collector: MakeCollector, denied: str, lost: set[str]
) -> None:
    """Without one permission its samples are missing, a metric shows it, and the scrape succeeds."""
    server = make_redis()
    fill(server.client)
    server.client.xgroup_create("s", "g", "0")
    read(server.client, 4)
    server.client.execute_command(*f"ACL SETUSER bts on >secret ~* +@all -{denied}".split())
    url = server.url.replace("//", "//bts@")
    whole = testing.collect(redis_collector(server.url, streams=("s",)))
    collector = redis_collector(url, "secret", streams=("s",))

    testing.collect(collector)
    samples = testing.collect(collector)

    assert lost <= whole.keys() - samples.keys()
    assert samples["redis_exporter_command_supported"][denied,] == 0
    assert samples["redis_stream_group_lag"] == {GROUP: 6}


def test_payloads_stay_where_they_are(
    redis_server: RedisServer, client: redis.Redis, collector: RedisCollector
) -> None:
    """Entries of 100 KB are counted without transferring them."""
    for number in range(10):
        client.xadd("s", {"number": number, "payload": b"x" * 100_000})
    client.xgroup_create("s", "g", "0")
    read(client, 4)
    client.xtrim("s", maxlen=8, approximate=False)
    testing.collect(collector)

    before = client.info("stats")["total_net_output_bytes"]
    samples = testing.collect(collector)

    assert samples["redis_stream_group_lag"] == {GROUP: 6}
    assert client.info("stats")["total_net_output_bytes"] - before < 100_000


def test_entries_that_were_trimmed_away_unread(
    client: redis.Redis, collector: RedisCollector
) -> None:
    """Entries that MAXLEN removed before their delivery are emitted as lost until the next delivery."""
    fill(client)
    client.xgroup_create("s", "g", "0")
    read(client, 4)
    assert testing.collect(collector)["redis_stream_group_entries_lost"] == {GROUP: 0}

    client.xtrim("s", maxlen=3, approximate=False)
    assert testing.collect(collector)["redis_stream_group_entries_lost"] == {GROUP: 3}

    read(client, 1)
    samples = testing.collect(collector)
    assert samples["redis_stream_group_entries_lost"] == {GROUP: 0}
    assert samples["messaging_entries_lost_total"] == {COMMON: 3}

    client.xtrim("s", maxlen=1, approximate=False)
    testing.collect(collector)
    assert testing.collect(collector)["messaging_entries_lost_total"] == {COMMON: 4}


@pytest.mark.parametrize("approximate", [False, True])
def test_the_length_to_which_producers_trim(
    client: redis.Redis, collector: RedisCollector, *, approximate: bool
) -> None:
    """A stream trimmed by XADD has its MAXLEN as limit after some scrapes; a group then loses what exceeds it."""
    client.xgroup_create("s", "g", "$", mkstream=True)
    with client.pipeline(transaction=False) as pipeline:
        for number in range(3000):
            pipeline.xadd("s", {"a": number}, maxlen=200, approximate=approximate)
            if number % 500 == 0:
                pipeline.execute()
                samples = testing.collect(collector)
        pipeline.execute()
    samples = testing.collect(collector)

    limit = samples["messaging_limit_messages"][COMMON]
    assert 200 <= limit <= 300
    assert approximate or limit == 200
    assert samples["messaging_overflow_info"] == {(*COMMON, "limit", "drop_oldest", "observed"): 1}
    assert samples["messaging_entries_lost_total"][COMMON] > 2000


def test_how_long_a_consumer_has_held_an_entry(
    client: redis.Redis, collector: RedisCollector
) -> None:
    """The time since its delivery is exact, until it is delivered again and others are older."""
    fill(client)
    client.xgroup_create("s", "g", "0")
    assert testing.collect(collector)["messaging_in_flight_oldest_seconds"] == {COMMON: 0}
    read(client, 4)
    (oldest, *_) = client.xpending_range("s", "g", "-", "+", 1)
    client.xclaim("s", "g", "c", 0, [oldest["message_id"]], idle=7000, justid=True)

    samples = testing.collect(collector)
    assert 7 <= samples["messaging_in_flight_oldest_seconds"][COMMON] < 60
    assert samples["messaging_in_flight_method_info"] == {(*COMMON, "delivery_time"): 1}

    client.xclaim("s", "g", "d", 0, [oldest["message_id"]], justid=True)
    samples = testing.collect(collector)
    assert samples["messaging_in_flight_oldest_seconds"][COMMON] < 7
    assert samples["messaging_in_flight_method_info"] == {(*COMMON, "lower_bound"): 1}
    client.xack(
        "s", "g", *(entry["message_id"] for entry in client.xpending_range("s", "g", "-", "+", 9))
    )
    assert testing.collect(collector)["messaging_in_flight_oldest_seconds"] == {COMMON: 0}


def test_an_entry_that_is_delivered_again_and_again(
    client: redis.Redis, collector: RedisCollector
) -> None:
    """The deliveries of the oldest pending entry show one that no consumer can process."""
    ids = fill(client)
    client.xgroup_create("s", "g", "0")
    read(client, 4)
    for consumer in ("d", "e"):
        client.xclaim("s", "g", consumer, 0, [ids[0]])

    samples = testing.collect(collector)

    assert samples["redis_stream_group_oldest_pending_deliveries"] == {GROUP: 3}
    assert samples["redis_stream_group_consumers"] == {GROUP: 3}
    assert samples["redis_stream_group_consumers_stale"] == {GROUP: 0}


def test_each_consumer_on_request(make_redis: MakeRedis, redis_collector: MakeCollector) -> None:
    """With `stream_consumers` every consumer has series, and one with old pending entries is stale."""
    server = make_redis(program=program("redis-8.2"))
    client = server.client
    fill(client)
    client.xgroup_create("s", "g", "0")
    read(client, 4)
    client.xgroup_createconsumer("s", "g", "idler")

    samples = testing.collect(
        redis_collector(
            server.url,
            streams=("s",),
            stream_consumers=True,
            stream_stale_after=Duration(0),
        )
    )

    assert samples["redis_stream_group_consumer_messages_pending"] == {
        (*GROUP, "c"): 4,
        (*GROUP, "idler"): 0,
    }
    assert samples["redis_stream_group_consumer_idle_seconds"].keys() == {
        (*GROUP, "c"),
        (*GROUP, "idler"),
    }
    assert samples["redis_stream_group_consumers_stale"] == {GROUP: 1}


@pytest.mark.parametrize(("stale_after", "stale"), [(0.05, 2), (3600.0, 0)])
def test_consumers_are_judged_alike_with_and_without_scripts(
    make_redis: MakeRedis, redis_collector: MakeCollector, stale_after: float, stale: int
) -> None:
    """Without scripts the metrics are the same: for few consumers, none, and more than a script reads."""
    server = make_redis(program=program("redis-8.2"))
    client = server.client
    fill(client)
    for name, idlers in (("few", 1), ("many", MOST_CONSUMERS), ("none", 0)):
        client.xgroup_create("s", name, "0")
        for number in range(idlers):
            client.xgroup_createconsumer("s", name, f"idler{number}")
        for consumer in ("a", "b") if idlers else ():
            client.xreadgroup(name, consumer, {"s": ">"}, count=2)
    wait_until(
        lambda: all(
            consumer["idle"] >= 50
            for g in ("few", "many")
            for consumer in client.xinfo_consumers("s", g)
        ),
        "all have rested",
    )
    client.execute_command(
        *["ACL", "SETUSER", "bts", "on", ">secret", "~*", "+@all", "-@scripting"]
    )
    settings = {"streams": ("s",), "stream_stale_after": Duration(stale_after)}
    collectors = (
        redis_collector(server.url, **settings),
        redis_collector(server.url.replace("//", "//bts@"), "secret", **settings),
    )

    for samples in map(testing.collect, collectors):
        assert samples["redis_stream_group_consumers_stale"] == {
            ("db0", "s", "few"): stale,
            ("db0", "s", "many"): stale,
            ("db0", "s", "none"): 0,
        }
        idle = samples["redis_stream_group_consumer_max_idle_seconds"]
        assert idle["db0", "s", "none"] == 0
        assert 0 <= idle["db0", "s", "few"] <= 30
        assert 0 <= idle["db0", "s", "many"] <= 30


def test_more_consumers_than_are_looked_at(client: redis.Redis, collector: RedisCollector) -> None:
    """A group with very many consumers lacks only the metrics that need every consumer."""
    fill(client)
    client.xgroup_create("s", "g", "0")
    with client.pipeline(transaction=False) as pipeline:
        for number in range(consumers.MOST + 1):
            pipeline.xgroup_createconsumer("s", "g", f"c{number}")
        pipeline.execute()
    read(client, 4)

    samples = testing.collect(collector)

    assert samples["redis_stream_group_consumers"] == {GROUP: consumers.MOST + 2}
    assert samples["redis_stream_group_lag"] == {GROUP: 6}
    assert "redis_stream_group_consumers_stale" not in samples


def test_names_of_any_bytes(client: redis.Redis, collector: RedisCollector) -> None:
    """Streams, groups and consumers may have any name: bytes that are not UTF-8 are escaped."""
    name = b"bts:new\nline\xff"
    client.xadd(name, {"a": 1})
    client.xgroup_create(name, b'"g\n\xfe', "0")

    samples = testing.collect(collector)

    assert samples["redis_stream_group_lag"] == {("db0", "bts:new\nline\\xff", '"g\n\\xfe'): 1}


def test_a_name_that_is_misspelled(client: redis.Redis, collector: RedisCollector) -> None:
    """redis_stream_exists is 0 for a stream in the settings until it is created."""
    assert testing.collect(collector)["redis_stream_exists"] == {("db0", "s"): 0}

    fill(client, 1)

    assert testing.collect(collector)["redis_stream_exists"] == {("db0", "s"): 1}
