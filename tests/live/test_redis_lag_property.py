"""Random histories of a stream on servers of every version, held against a count of the entries.

Each version lives through the number of histories that BTS_HISTORIES names, 40 if it is not set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bts_collectors.redis import groups, lag, lookahead
from bts_collectors.redis.collector import RedisCollector
from bts_collectors.redis.streamstate import Id, parse_id
from bts_exporter import testing
from servers.redis import MakeCollector, RedisServer

pytestmark = pytest.mark.live

HISTORIES = os.environ.get("BTS_HISTORIES")
#: The same histories at each run of the tests; who asks for a number of them gets new ones, and has
#: the time to wait for the shortest of those that fail.
histories = settings(
    max_examples=int(HISTORIES or 40),
    derandomize=HISTORIES is None,
    phases=set(Phase) if HISTORIES else {Phase.generate},
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

STREAM = b"s"
#: Milliseconds between two entries, so that their ages tell them apart.
MINUTE = 60_000

#: Something that happens: its name, a group, two numbers that say what exactly.
Event = tuple[str, bytes, int, int]

#: What is needed for anything else to happen comes more often.
_KINDS = "add add read read read ack ack delete trim create set destroy claim"
EVENTS: st.SearchStrategy[list[Event]] = st.lists(
    st.tuples(
        st.sampled_from(_KINDS.split()),
        st.sampled_from([b"g", b"g", b"h", b"i"]),
        st.integers(0, 60),
        st.integers(1, 6),
    ),
    min_size=20,
    max_size=60,
)


class History:
    """A stream to which things happen, and all that it ever held."""

    def __init__(self, client: redis.Redis) -> None:
        """Begin with an empty stream and two groups."""
        self._client = client
        self._begin: int = client.time()[0] * 1000 - 500 * MINUTE
        self.ever: list[Id] = []

    def live(self, events: list[Event]) -> None:
        """Let `events` happen; what the server refuses does not."""
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.delete(STREAM)
            for group in (b"g", b"h"):
                pipeline.xgroup_create(STREAM, group, "0", mkstream=True)
            for event, group, where, count in events:
                if event == "add":
                    self._add(pipeline, count)
                else:
                    pipeline.execute_command(*self._command(event, group, where, count))
            # Refused: no such group, no ids, a group that there is already.
            pipeline.execute(raise_on_error=False)

    def _add(self, pipeline: redis.client.Pipeline, count: int) -> None:
        for sequence in range(count):
            entry = (self._begin + MINUTE * len(self.ever), sequence)
            self.ever.append(entry)
            pipeline.xadd(STREAM, {"number": len(self.ever)}, id=f"{entry[0]}-{entry[1]}")

    def _command(self, event: str, group: bytes, where: int, count: int) -> list[Any]:
        where %= len(self.ever) + 1
        ids = [b"%d-%d" % entry for entry in self.ever[where : where + count]]
        place = ids[0] if ids else (b"0", b"$")[count % 2]
        match event:
            case "read":
                how = [b"NOACK"] if where % 8 == 7 else []
                reader = [b"GROUP", group, b"c%d" % (where % 3), b"COUNT", count, *how]
                return ["XREADGROUP", *reader, b"STREAMS", STREAM, b">"]
            case "ack":
                return ["XACK", STREAM, group, *ids]
            case "delete":
                return ["XDEL", STREAM, *ids]
            case "trim":
                return ["XTRIM", STREAM, "MAXLEN", where // 2]
            case "create":
                return ["XGROUP CREATE", STREAM, group, place]
            case "set":
                return ["XGROUP SETID", STREAM, group, place]
            case "destroy":
                return ["XGROUP DESTROY", STREAM, group]
            case _:
                return ["XCLAIM", STREAM, group, b"c9", 0, *ids]


@pytest.fixture(params=[True, False], ids=["scripts", "no-scripts"])
def collector(
    request: pytest.FixtureRequest, any_redis: RedisServer, redis_collector: MakeCollector
) -> Iterator[RedisCollector]:
    """Give a collector of the stream, whose user may run scripts or may not."""
    allowed = "+@all" if request.param else "-@scripting"
    any_redis.client.execute_command(
        "ACL", "SETUSER", "bts", "on", ">secret", "~*", "+@all", allowed
    )
    yield redis_collector(
        any_redis.url.replace("//", "//bts@"), "secret", streams=(STREAM.decode(),)
    )
    any_redis.client.execute_command("ACL", "DELUSER", "bts")


@given(events=EVENTS, most=st.sampled_from([2, 1000]))
@histories
def test_every_lag_and_age_is_what_the_entries_say(
    any_redis: RedisServer, collector: RedisCollector, events: list[Event], most: int
) -> None:
    """After any history each lag and age is that of the entries, and only a long count is unknown."""
    history = History(any_redis.client)
    history.live(events)

    with (
        patch.object(lookahead, "MOST_COUNTED", most),
        patch.object(groups, "MOST_COUNTED", most),
        patch.object(lookahead, "FEW", min(most, lookahead.FEW)),
        patch.object(lookahead, "PAGE", min(most + 1, lookahead.PAGE)),
    ):
        truth = Truth(any_redis.client, history, testing.collect(collector))

    truth.check_stream()
    for group in truth.groups:
        truth.check_lag(group, most)
        truth.check_flow(group)
        truth.check_pending(group)


class Truth:
    """What the entries themselves say, for comparison with what was exported a moment before."""

    def __init__(self, client: redis.Redis, history: History, samples: testing.Samples) -> None:
        """Look at the stream."""
        self._client = client
        self._ever = history.ever
        self._samples = samples
        self._now: int = client.time()[0] * 1000
        self._there = bool(client.exists(STREAM))
        self._entries = [parse_id(entry) for entry, _ in client.xrange(STREAM)]
        self.groups: list[dict[str, Any]] = client.xinfo_groups(STREAM) if self._there else []

    def value(self, metric: str, group: dict[str, Any]) -> float | None:
        """Return what was exported of a group."""
        name = group["name"].decode()
        system = "redis" if metric.startswith("messaging") else "db0"
        return self._samples.get(metric, {}).get((system, "s", name))

    def is_age(self, value: float | None, entry: Id) -> bool:
        """Return whether `value` is the age of `entry`, give or take how long the test took."""
        return value is not None and abs(self._now - entry[0] - 1000 * value) < MINUTE / 2

    def check_stream(self) -> None:
        """Compare what was exported of the stream itself."""
        assert self._samples["redis_stream_exists"] == {("db0", "s"): self._there}
        assert len(self._samples.get("redis_stream_group_lag_exact", {})) == len(self.groups)
        if self._there:
            assert self._samples["redis_stream_length"] == {("db0", "s"): len(self._entries)}
        age = self._samples.get("redis_stream_last_entry_age_seconds", {}).get(("db0", "s"))
        assert self.is_age(age, self._ever[-1]) if self._ever else age is None

    def check_lag(self, group: dict[str, Any], most: int) -> None:
        """Compare messages and seconds ahead of a group; no more than `most` need be counted."""
        last = parse_id(group["last-delivered-id"])
        ahead = [entry for entry in self._entries if entry > last]
        value, seconds = (
            self.value(f"redis_stream_group_lag{end}", group) for end in ("", "_seconds")
        )
        if self.value("redis_stream_group_lag_exact", group):
            assert value == len(ahead)
        else:
            assert len(ahead) > most
            assert value is None or value == group["lag"]
        assert self.is_age(seconds, ahead[0]) if ahead else seconds == 0
        assert value == self.value("messaging_backlog_messages", group)
        assert seconds == self.value("messaging_lag_seconds", group)

    def check_flow(self, group: dict[str, Any]) -> None:
        """Compare what a group was delivered, and what went before it was."""
        last = parse_id(group["last-delivered-id"])
        consumed = self.value("messaging_consumed_messages_total", group)
        assert consumed in {None, sum(entry <= last for entry in self._ever)}
        first = self._entries[0] if self._entries else (1 << 64, 0)
        missed = sum(last < entry < first for entry in self._ever)
        lost = self.value("redis_stream_group_entries_lost", group)
        version = tuple(map(int, self._client.info("server")["redis_version"].split(".")))
        if lost is not None and lag.counts_right(version):
            assert lost == missed
        else:
            # It may include what was missed before the group was delivered anything else.
            assert lost is None or lost >= missed

    def check_pending(self, group: dict[str, Any]) -> None:
        """Compare the oldest entry that a group was delivered and did not acknowledge."""
        age, deliveries = (
            self.value(f"redis_stream_group_oldest_pending_{end}", group)
            for end in ("age_seconds", "deliveries")
        )
        pending = self._client.xpending_range(STREAM, group["name"], "-", "+", 1)
        if pending:
            assert self.is_age(age, parse_id(pending[0]["message_id"]))
            assert deliveries == pending[0]["times_delivered"]
        else:
            assert (age, deliveries) == (0, 0)
        assert group["pending"] == self.value("redis_stream_group_messages_pending", group)
        assert self.value("redis_stream_group_consumers_stale", group) == 0
