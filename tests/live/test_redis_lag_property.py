"""Random histories of a stream on servers of every version, held against what really happened.

Each version lives through the number of histories that BTS_HISTORIES names, 40 if it is not set. The
clients of a history do all that distorts a server's counters, and the collector looks three times.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any
from unittest.mock import patch

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bts_collectors.redis.collector import RedisCollector
from bts_collectors.redis.streams import head_entries, history
from bts_collectors.redis.streams.state import Id, parse_id
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
#: Minutes by which ids are behind the clock, and by which they jump when the clock is set.
BEHIND = 5000
JUMP = 6000
#: Looks at one history.
LOOKS = 3

#: Something that happens: its name, a group, two numbers that say what exactly.
Event = tuple[str, bytes, int, int]

#: What is needed for anything else to happen comes more often.
_KINDS = (
    "add add add read read read read ack ack delete delete-and-ack trim trim-nearly trim-by-id create"
    " create-read set set-read set-stream destroy claim"
)
#: What seldom happens.
_SELDOM = "jump drop"
EVENTS: st.SearchStrategy[list[Event]] = st.lists(
    st.tuples(
        st.sampled_from(_KINDS.split() * 3 + _SELDOM.split()),
        st.sampled_from([b"g", b"g", b"h", b"i"]),
        st.integers(0, 60),
        st.integers(1, 6),
    ),
    min_size=20,
    max_size=60,
)


class Member:
    """The true history of a group."""

    def __init__(self) -> None:
        """Begin with nothing delivered."""
        self.delivered = 0
        #: Whether it was looked at before.
        self.is_known = False
        #: Whether it was made, or put elsewhere, since the last look.
        self.was_put = True
        #: What was delivered when it was looked at last, and what was exported then.
        self.then = 0
        self.consumed: float | None = None
        #: When it was seen without a lag, and the last id at that time.
        self.empty: tuple[float, Id] | None = None
        #: Entries that were trimmed undelivered, and how many of them before the first look.
        self.lost = 0
        self.lost_before: int | None = None


class History:
    """A stream with its true history, and all entries that it ever had."""

    def __init__(self, client: redis.Redis) -> None:
        """Begin with an empty stream and two groups."""
        self._client = client
        self._next: int = client.time()[0] * 1000 - BEHIND * MINUTE
        self.ever: list[Id] = []
        #: When each entry was added, by the clock of `monotonic`.
        self.added: dict[Id, float] = {}
        self.members: dict[bytes, Member] = {}
        #: Whether a client has said how many entries were ever added.
        self.was_set = False
        self._happen([("drop", b"g", 0, 1)])

    def live(self, events: list[Event]) -> None:
        """Run `events`; those that the server refuses have no effect."""
        self._happen(events)

    def _happen(self, events: list[Event]) -> None:
        for event, group, where, count in events:
            if event == "jump":
                self._next += JUMP * MINUTE
            elif event == "drop":
                self._drop()
            elif event == "add":
                self._note_losses(lambda: self._add(where, count))  # noqa: B023  # run at once
            elif event.startswith("trim"):
                self._note_losses(lambda: self._do(event, group, where, count))  # noqa: B023
            else:
                self._do(event, group, where, count)

    def _note_losses(self, trim: Callable[[], object]) -> None:
        """Run `trim`, and count what it removed before its delivery to each group."""
        last = {
            group["name"]: parse_id(group["last-delivered-id"])
            for group in (self._client.xinfo_groups(STREAM) if self._client.exists(STREAM) else ())
        }
        before, known = self._entries(), len(self.ever)
        trim()
        gone = (before | {*self.ever[known:]}) - self._entries()
        for name, delivered in last.items():
            self.members[name].lost += sum(entry > delivered for entry in gone)

    def _entries(self) -> set[Id]:
        return {parse_id(entry) for entry, _ in self._client.xrange(STREAM)}

    def _drop(self) -> None:
        self._client.delete(STREAM)
        self.ever = []
        for group in (b"g", b"h", b"i"):
            self._put(group)
        for group in (b"g", b"h"):
            self._client.xgroup_create(STREAM, group, "0", mkstream=True)

    def _put(self, group: bytes) -> None:
        member = self.members.setdefault(group, Member())
        member.was_put = True

    def _add(self, where: int, count: int) -> None:
        limit = {1: ["MAXLEN", "=", where // 4], 2: ["MAXLEN", "~", where // 4]}.get(where % 6, [])
        for sequence in range(count):
            entry = (self._next, sequence)
            words = ["XADD", STREAM, *limit, f"{entry[0]}-{entry[1]}", "number", sequence]
            if self._try(words) is not None:
                self.ever.append(entry)
                self.added[entry] = monotonic()
        self._next += MINUTE

    def _do(self, event: str, group: bytes, where: int, count: int) -> None:
        reply = self._try(self._command(event, group, where, count))
        if reply is None:
            return
        if event == "read":
            self.members[group].delivered += len(reply[0][1]) if reply else 0
        elif event in {"create", "create-read", "set", "set-read", "destroy"}:
            self._put(group)
        elif event == "set-stream":
            self.was_set = True

    def _try(self, words: list[Any]) -> Any:
        try:
            return self._client.execute_command(*words)
        except redis.ResponseError:
            return None

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
                how = ([], ["KEEPREF"], ["DELREF"], ["ACKED"])[count % 4]
                return (
                    ["XDELEX", STREAM, *how, "IDS", len(ids), *ids]
                    if how
                    else ["XDEL", STREAM, *ids]
                )
            case "delete-and-ack":
                how = ("KEEPREF", "DELREF", "ACKED")[count % 3]
                return ["XACKDEL", STREAM, group, how, "IDS", len(ids), *ids]
            case "trim":
                return ["XTRIM", STREAM, "MAXLEN", where // 2]
            case "trim-nearly":
                return ["XTRIM", STREAM, "MAXLEN", "~", where // 2]
            case "trim-by-id":
                return ["XTRIM", STREAM, "MINID", place if ids else 0]
            case "claim":
                return ["XCLAIM", STREAM, group, b"c9", 0, *ids]
            case _:
                return self._setting(event, group, where, count)

    def _setting(self, event: str, group: bytes, where: int, count: int) -> list[Any]:
        """Return a command that moves a group, or sets the server's counters."""
        ids = [b"%d-%d" % entry for entry in self.ever[where : where + 1]]
        place = ids[0] if ids else (b"0", b"$")[count % 2]
        match event:
            case "create":
                return ["XGROUP", "CREATE", STREAM, group, place]
            case "create-read":
                return ["XGROUP", "CREATE", STREAM, group, place, "ENTRIESREAD", where // count]
            case "set":
                return ["XGROUP", "SETID", STREAM, group, place]
            case "set-read":
                return ["XGROUP", "SETID", STREAM, group, place, "ENTRIESREAD", where // count]
            case "set-stream":
                last = self.ever[-1] if self.ever else (0, 0)
                added = ["ENTRIESADDED", len(self.ever) + where - count]
                deleted = ["MAXDELETEDID", place if ids else "0-0"]
                return ["XSETID", STREAM, b"%d-%d" % last, *added, *deleted]
            case _:
                return ["XGROUP", "DESTROY", STREAM, group]


@pytest.fixture(params=[True, False], ids=["scripts", "no-scripts"])
def make_collector(
    request: pytest.FixtureRequest, any_redis: RedisServer, redis_collector: MakeCollector
) -> Iterator[Callable[[], RedisCollector]]:
    """Give a function that creates a collector of the stream, for users with and without scripts."""
    allowed = "+@all" if request.param else "-@scripting"
    any_redis.client.execute_command(
        "ACL", "SETUSER", "bts", "on", ">secret", "~*", "+@all", allowed
    )
    url = any_redis.url.replace("//", "//bts@")
    yield lambda: redis_collector(url, "secret", streams=(STREAM.decode(),))
    any_redis.client.execute_command("ACL", "DELUSER", "bts")


@given(events=EVENTS, most=st.sampled_from([2, 1000]), untouched=st.booleans())
@histories
def test_every_lag_and_age_is_what_the_entries_say(
    any_redis: RedisServer,
    make_collector: Callable[[], RedisCollector],
    events: list[Event],
    most: int,
    untouched: bool,
) -> None:
    """After any history each lag, age and count is true, or it is unknown."""
    any_redis.client.config_resetstat()
    collector = make_collector()
    if untouched:  # by clients that set counters
        events = [event for event in events if event[0] not in {"set-stream", "set-read"}]
    happening = History(any_redis.client)
    try:
        with (
            patch.object(history, "RECOUNT_SECONDS", 0),
            patch.object(head_entries, "MOST_COUNTED", most),
            patch.object(head_entries, "FEW", min(most, head_entries.FEW)),
            patch.object(head_entries, "PAGE", min(most + 1, head_entries.PAGE)),
        ):
            for look in range(LOOKS):
                happening.live(_part(events, look))
                before = monotonic()
                truth = Truth(any_redis.client, happening, testing.collect(collector), before)
                truth.check(most)
    finally:
        collector.stop()


def _part(events: list[Event], look: int) -> list[Event]:
    size = len(events) // LOOKS + 1
    return events[look * size : (look + 1) * size]


class Truth:
    """The values from the entries themselves, for comparison with the exported ones."""

    def __init__(
        self, client: redis.Redis, history: History, samples: testing.Samples, before: float
    ) -> None:
        """Read the stream; `before` is the start of the collection."""
        self._history = history
        self._ever = history.ever
        self._samples = samples
        self._before = before
        self._now: int = client.time()[0] * 1000
        self._there = bool(client.exists(STREAM))
        self._entries = [parse_id(entry) for entry, _ in client.xrange(STREAM)]
        self._client = client
        self.stream: dict[str, Any] = client.xinfo_stream(STREAM) if self._there else {}
        self.groups: list[dict[str, Any]] = client.xinfo_groups(STREAM) if self._there else []

    def check(self, most: int) -> None:
        """Compare everything."""
        self.check_stream()
        there = {group["name"] for group in self.groups}
        for name in self._history.members.keys() - there:
            self._history.members[name] = Member()  # what is gone is forgotten
        for group in self.groups:
            self.check_lag(group, most)
            self.check_age(group)
            self.check_lost(group)
            self.check_consumed(group)
            self.check_pending(group)

    def value(self, metric: str, group: dict[str, Any]) -> float | None:
        """Return what was exported of a group."""
        name = group["name"].decode()
        system = "redis" if metric.startswith("messaging") else "db0"
        return self._samples.get(metric, {}).get((system, "s", name))

    def is_age(self, value: float | None, entry: Id) -> bool:
        """Return whether `value` is the age of `entry` by its id, give or take how long the test took."""
        if entry[0] > self._now + MINUTE / 2:
            return value is None
        return value is not None and abs(self._now - entry[0] - 1000 * value) < MINUTE / 2

    def ahead(self, group: dict[str, Any]) -> list[Id]:
        """Return the entries that wait for a group."""
        last = parse_id(group["last-delivered-id"])
        return [entry for entry in self._entries if entry > last]

    def check_stream(self) -> None:
        """Compare what was exported of the stream itself."""
        assert self._samples["redis_stream_exists"] == {("db0", "s"): self._there}
        assert len(self._samples.get("redis_stream_group_lag_exact", {})) == len(self.groups)
        if self._there:
            assert self._samples["redis_stream_length"] == {("db0", "s"): len(self._entries)}
        age = self._samples.get("redis_stream_last_entry_age_seconds", {}).get(("db0", "s"))
        last = parse_id(self.stream["last-generated-id"]) if self._there else (0, 0)
        assert self.is_age(age, last) if last != (0, 0) else age is None

    def check_lag(self, group: dict[str, Any], most: int) -> None:
        """Compare the messages ahead of a group; no more than `most` need be counted."""
        ahead = self.ahead(group)
        value = self.value("redis_stream_group_lag", group)
        if self.value("redis_stream_group_lag_exact", group):
            assert value == len(ahead)
        else:
            assert len(ahead) > most
            assert value is None or value == group["lag"]
        assert value == self.value("messaging_backlog_messages", group)
        drain = self.value("messaging_drain_seconds", group)
        assert drain is None if ahead else drain == 0

    def check_age(self, group: dict[str, Any]) -> None:
        """Compare the age of the first entry that waits for a group."""
        ahead, member = self.ahead(group), self._history.members[group["name"]]
        seconds = self.value("redis_stream_group_lag_seconds", group)
        assert seconds == self.value("messaging_lag_seconds", group)
        if not ahead:
            assert seconds == 0
            last = max(
                parse_id(self.stream["last-generated-id"]), parse_id(group["last-delivered-id"])
            )
            member.empty = (self._before, last)
            return
        assert seconds != 0
        labels = ("redis", "s", group["name"].decode(), "lower_bound")
        if labels in self._samples.get("messaging_lag_method_info", {}):
            assert seconds is not None
            assert seconds <= monotonic() - self._history.added[ahead[0]]
        elif member.empty is not None and ahead[0] > member.empty[1]:
            assert seconds is None or seconds <= monotonic() - member.empty[0]
        else:
            assert self.is_age(seconds, ahead[0])

    def check_lost(self, group: dict[str, Any]) -> None:
        """Compare the entries lost before their delivery to a group."""
        last = parse_id(group["last-delivered-id"])
        first = self._entries[0] if self._entries else (1 << 64, 0)
        lost = self.value("redis_stream_group_entries_lost", group)
        assert lost in {None, sum(last < entry < first for entry in self._ever)}
        member = self._history.members[group["name"]]
        if member.lost_before is None:
            member.lost_before = member.lost
        in_total = self.value("messaging_entries_lost_total", group)
        if in_total is not None and not self._history.was_set:
            assert in_total <= member.lost - member.lost_before

    def check_consumed(self, group: dict[str, Any]) -> None:
        """Compare the entries delivered to a group."""
        member = self._history.members[group["name"]]
        consumed = self.value("messaging_consumed_messages_total", group)
        since = member.delivered - member.then
        if consumed is not None and not member.was_put:
            known = member.consumed
            assert consumed == since or (known is not None and consumed == known + since)
        elif consumed is not None and not member.is_known and not self._history.was_set:
            last = parse_id(group["last-delivered-id"])
            assert consumed in {member.delivered, sum(entry <= last for entry in self._ever)}
        # Of a group that a client has put elsewhere in between counts how far it got.
        member.then, member.consumed = member.delivered, consumed
        member.is_known, member.was_put = True, False

    def check_pending(self, group: dict[str, Any]) -> None:
        """Compare the oldest entry that was delivered to a group and not acknowledged."""
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
        self._check_held(group)
        assert group["pending"] == self.value("redis_stream_group_messages_pending", group)
        assert self.value("redis_stream_group_consumers_stale", group) == 0

    def _check_held(self, group: dict[str, Any]) -> None:
        """Compare the time for which a consumer has held an entry."""
        pending = self._client.xpending_range(STREAM, group["name"], "-", "+", 1000)
        held = self.value("messaging_in_flight_oldest_seconds", group)
        assert held is not None
        assert (held > 0) is bool(pending)
        if pending:
            longest = max(entry["time_since_delivered"] for entry in pending) / 1000
            assert held <= longest + 0.002
            labels = ("redis", "s", group["name"].decode(), "delivery_time")
            # Before Redis 7 it is not seen that a client moved the group.
            is_seen = "entries-added" in self.stream
            if is_seen and labels in self._samples["messaging_in_flight_method_info"]:
                assert held >= longest - (monotonic() - self._before) - 0.002
