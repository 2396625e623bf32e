from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hiredis import ReplyError

from bts_collectors.redis import streams
from bts_collectors.redis.discovery import Names
from bts_collectors.redis.streams import RETRY, Streams
from bts_collectors.redis.visit import Visit
from bts_exporter import backlog

Converse = Callable[..., None]

NEW_YEAR = 1_767_225_600_000
SCRIPT = ("EVAL_RO",)
NOPERM = ReplyError("NOPERM this user has no permissions")


def identity(age: int) -> bytes:
    """Return the id of an entry that is `age` milliseconds old at new year."""
    return f"{NEW_YEAR - age}-0".encode()


def stream(*, first: bytes | None = None, last: bytes | None = None, length: int = 0) -> list[Any]:
    """Return a reply of XINFO STREAM."""
    return [
        b"length", length, b"groups", 1, b"radix-tree-keys", 2, b"radix-tree-nodes", 3,
        b"entries-added", 9, b"last-generated-id", last or b"0-0", b"max-deleted-entry-id", b"0-0",
        b"first-entry", first and [first], b"last-entry", last and [last],
    ]  # fmt: skip


def group(last_delivered: bytes, *, pending: int = 0, lag: int | None = None) -> list[Any]:
    """Return a group in a reply of XINFO GROUPS."""
    return [
        b"name", b"g", b"consumers", 1, b"pending", pending,
        b"last-delivered-id", last_delivered, b"entries-read", 4, b"lag", lag,
    ]  # fmt: skip


def values(visit: Visit) -> dict[str, float]:
    """Return the samples of the one stream and group, by metric."""
    assert all(len(samples) == 1 for samples in visit.scrape.samples.values())
    return {
        metric.name: value
        for metric, samples in visit.scrape.samples.items()
        for value in samples.values()
    }


def test_a_group_that_the_server_knows(visit: Visit, converse: Converse) -> None:
    """A group amid the stream needs a look at the first entry ahead of it and at its pending."""
    state = stream(first=identity(9000), last=identity(1000), length=9)
    converse(
        Streams(Names(["s"])).read(visit),
        ([SCRIPT], [[[state, [group(identity(5000), pending=2, lag=5)]]]]),
        (
            [SCRIPT, ("XPENDING", b"s", b"g", "-", "+", 1)],
            [[[-1, identity(4000)]], [[identity(7000), b"c", 1, 1]]],
        ),
    )

    assert values(visit) == {
        "redis_stream_length": 9,
        "redis_stream_groups": 1,
        "redis_stream_radix_tree_keys": 2,
        "redis_stream_radix_tree_nodes": 3,
        "redis_stream_entries_added_total": 9,
        "redis_stream_last_generated_id": NEW_YEAR - 1000,
        "redis_stream_max_deleted_entry_id": 0,
        "redis_stream_first_entry_id": NEW_YEAR - 9000,
        "redis_stream_last_entry_id": NEW_YEAR - 1000,
        "redis_stream_group_consumers": 1,
        "redis_stream_group_messages_pending": 2,
        "redis_stream_group_last_delivered_id": NEW_YEAR - 5000,
        "redis_stream_group_entries_read": 4,
        "redis_stream_group_lag": 5,
        "redis_stream_group_lag_seconds": 4,
        "redis_stream_group_oldest_pending_age_seconds": 7,
        "messaging_published_messages_total": 9,
        "messaging_backlog_messages": 5,
        "messaging_in_flight_messages": 2,
        "messaging_consumers": 1,
        "messaging_lag_seconds": 4,
        "messaging_lag_method_info": 1,
    }


def test_a_group_that_is_up_to_date_costs_no_look(visit: Visit, converse: Converse) -> None:
    """Nothing waiting and nothing pending: one round, and zeros."""
    state = stream(first=identity(9000), last=identity(1000), length=9)
    converse(
        Streams(Names(["s"])).read(visit),
        ([SCRIPT], [[[state, [group(identity(1000))]]]]),
        ([], []),
    )

    found = values(visit)
    assert found["redis_stream_group_lag"] == 0
    assert found["redis_stream_group_lag_seconds"] == 0
    assert found["redis_stream_group_oldest_pending_age_seconds"] == 0


def test_an_uncounted_lag_is_absent_and_its_seconds_are_not(
    visit: Visit, converse: Converse
) -> None:
    """Where counting is too long the messages are unknown, the age of the oldest is not."""
    state = stream(first=identity(9000), last=identity(1000), length=9)
    converse(
        Streams(Names(["s"])).read(visit),
        ([SCRIPT], [[[state, [group(identity(5000))]]]]),
        ([SCRIPT], [[[-1, identity(4000)]]]),
    )

    found = values(visit)
    assert "redis_stream_group_lag" not in found
    assert "messaging_backlog_messages" not in found
    assert found["messaging_lag_seconds"] == 4


def test_entries_deleted_meanwhile_are_no_lag(visit: Visit, converse: Converse) -> None:
    """A group whose entries ahead are gone at the second look lags by nothing."""
    state = stream(first=identity(9000), last=identity(1000), length=9)
    converse(
        Streams(Names(["s"])).read(visit),
        ([SCRIPT], [[[state, [group(identity(5000), lag=5)]]]]),
        ([SCRIPT], [[[0, None]]]),
    )

    assert values(visit)["redis_stream_group_lag"] == 0
    assert values(visit)["messaging_lag_seconds"] == 0


def test_a_stream_that_is_not_there_has_no_samples(visit: Visit, converse: Converse) -> None:
    """A name without a key is no failure, and no zero."""
    converse(Streams(Names(["s"])).read(visit), ([SCRIPT], [[b"none"]]), ([], []))

    assert visit.scrape.samples == {}
    assert visit.losses == []


def test_a_key_of_another_type_is_reported_and_the_rest_served(
    visit: Visit, converse: Converse
) -> None:
    """A list under a stream's name is a loss that names it; other streams are served."""
    converse(
        Streams(Names(["l", "s"])).read(visit), ([SCRIPT], [[b"list", [stream(), []]]]), ([], [])
    )

    assert [str(loss) for loss in visit.losses] == [
        "Redis at redis://example.net:6379 has a list named 'l', which `streams` asks for"
    ]
    assert visit.losses[0].reason == "protocol"
    assert visit.scrape.samples[streams.LENGTH] == {("db0", "s"): 0}


def test_a_refused_part_is_lost_alone(visit: Visit, converse: Converse) -> None:
    """Groups that may not be read leave the stream's own numbers."""
    converse(Streams(Names(["s"])).read(visit), ([SCRIPT], [[[stream(), NOPERM]]]), ([], []))

    assert [loss.reason for loss in visit.losses] == ["noperm"]
    assert visit.scrape.samples[streams.LENGTH] == {("db0", "s"): 0}


def test_a_stream_that_may_not_be_read(visit: Visit, converse: Converse) -> None:
    """A refusal inside the script is a loss."""
    converse(Streams(Names(["s"])).read(visit), ([SCRIPT], [[[NOPERM, NOPERM]]]), ([], []))

    assert [loss.reason for loss in visit.losses] == ["noperm"]


def test_without_scripts_plain_commands_do(visit: Visit, converse: Converse) -> None:
    """A refused script is replaced by plain commands, and tried again only after a while."""
    now = 0.0
    reader = Streams(Names(["s"]), clock=lambda: now)
    state = stream(first=identity(9000), last=identity(1000), length=9)
    asking = [("TYPE", b"s"), ("XINFO", "STREAM", b"s"), ("XINFO", "GROUPS", b"s")]
    plain = (asking, [b"stream", state, [group(identity(5000), lag=5)]])

    converse(reader.read(visit), ([SCRIPT], [NOPERM]), plain, ([], []))

    assert values(visit)["redis_stream_group_lag"] == 5
    assert "messaging_lag_seconds" not in values(visit)
    assert visit.losses == []
    visit.scrape.samples.clear()
    converse(reader.read(visit), ([], []), plain, ([], []))
    now = RETRY
    visit.scrape.samples.clear()
    converse(reader.read(visit), ([SCRIPT], [[[state, []]]]), ([], []))


def test_a_name_that_is_no_utf8_is_shown_escaped(visit: Visit, converse: Converse) -> None:
    """Bytes that are no text are shown, not lost and not a failure."""
    names = Names(["*"], "stream")
    names.walk(lambda _: [[b"0", [b"caf\xe9"]]], lambda: False)

    converse(Streams(names).read(visit), ([SCRIPT], [[[stream(), []]]]), ([], []))

    assert visit.scrape.samples[backlog.PUBLISHED] == {("redis", "caf\\xe9", ""): 9}


def test_a_discovered_stream_that_is_gone_is_forgotten(visit: Visit, converse: Converse) -> None:
    """A name that a pattern matched is not asked for again once its key is gone."""
    names = Names(["*"], "stream")
    names.walk(lambda _: [[b"0", [b"s"]]], lambda: False)
    converse(Streams(names).read(visit), ([SCRIPT], [[b"none"]]), ([], []))

    assert names.all() == []
