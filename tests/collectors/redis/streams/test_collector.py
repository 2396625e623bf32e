from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.batching import RequestBatches, together
from bts_collectors.redis.client.command_support import RETRY_SECONDS
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.keyspace.scanner import Names
from bts_collectors.redis.streams import collector as streams
from bts_collectors.redis.streams import groups
from bts_collectors.redis.streams.collector import Streams
from bts_collectors.redis.streams.state import MOST_CONSUMERS, MOST_GROUPS
from bts_exporter import backlog

Converse = Callable[..., None]

NEW_YEAR = 1_767_225_600_000
SCRIPT = ("EVAL_RO",)
NOPERM = ReplyError("NOPERM this user has no permissions")


def identity(age: int) -> bytes:
    """Return the id of an entry that is `age` milliseconds old at new year."""
    return f"{NEW_YEAR - age}-0".encode()


def stream(*, first: bytes | None = None, last: bytes | None = None, length: int = 0) -> list[Any]:
    """Return a stream as the script finds it."""
    return [length, 1, 2, 3, last or b"0-0", b"0-0", 9, first, last]


def group(  # each has a name
    last_delivered: bytes,
    *,
    consumers: int = 0,
    pending: int = 0,
    lag: int | None = None,
    stale: int | None = None,
    idle: int | None = None,
) -> list[Any]:
    """Return a group as the script finds it."""
    return [b"g", consumers, pending, last_delivered, 4, lag, stale, idle]


def read(streams: Streams, scrape_context: ScrapeContext) -> RequestBatches:
    """Read all streams as in a collection."""
    yield from together(streams.read(scrape_context))
    streams.emit_command_support(scrape_context.scrape)


def values(scrape_context: ScrapeContext) -> dict[str, float]:
    """Return the samples of the one stream and group, by metric."""
    assert all(len(samples) == 1 for samples in scrape_context.scrape.samples.values())
    return {
        metric.name: value
        for metric, samples in scrape_context.scrape.samples.items()
        for value in samples.values()
    }


def test_a_group_that_the_server_knows(scrape_context: ScrapeContext, converse: Converse) -> None:
    """A group inside the stream needs its first undelivered entry, its pending entries and its consumers."""
    scrape_context.counters_set = (0, 0, 0)
    state = stream(first=identity(9000), last=identity(1000), length=9)
    standing = group(identity(5000), consumers=1, pending=2, lag=5)
    converse(
        read(Streams(Names(["s"]), clock=lambda: 0), scrape_context),
        ([SCRIPT], [[[state, [standing]]]]),
        (
            [SCRIPT, ("XPENDING", b"s", b"g", "-", "+", 1), ("XINFO", "CONSUMERS", b"s", b"g")],
            [
                [[5, identity(4000), 5]],
                [[identity(7000), b"c", 1, 3]],
                [[b"name", b"c", b"pending", 2, b"idle", 2500, b"inactive", 2500]],
            ],
        ),
    )

    assert values(scrape_context) == {
        "redis_stream_exists": 1,
        "redis_stream_length": 9,
        "redis_stream_groups": 1,
        "redis_stream_radix_tree_keys": 2,
        "redis_stream_radix_tree_nodes": 3,
        "redis_stream_entries_added_total": 9,
        "redis_stream_last_generated_id": NEW_YEAR - 1000,
        "redis_stream_max_deleted_entry_id": 0,
        "redis_stream_first_entry_id": NEW_YEAR - 9000,
        "redis_stream_last_entry_id": NEW_YEAR - 1000,
        "redis_stream_last_entry_age_seconds": 1,
        "redis_stream_group_consumers": 1,
        "redis_stream_group_messages_pending": 2,
        "redis_stream_group_last_delivered_id": NEW_YEAR - 5000,
        "redis_stream_group_entries_read": 4,
        "redis_stream_group_entries_lost": 0,
        "redis_stream_group_lag": 5,
        "redis_stream_group_lag_exact": 1,
        "redis_stream_group_lag_seconds": 4,
        "redis_stream_group_oldest_pending_age_seconds": 7,
        "redis_stream_group_oldest_pending_deliveries": 3,
        "redis_stream_group_consumers_stale": 0,
        "redis_stream_group_consumer_max_idle_seconds": 2.5,
        "redis_exporter_command_supported": 1,
        "messaging_published_messages_total": 9,
        "messaging_consumed_messages_total": 4,
        "messaging_backlog_messages": 5,
        "messaging_in_flight_messages": 2,
        "messaging_consumers": 1,
        "messaging_lag_seconds": 4,
        "messaging_lag_method_info": 1,
        "messaging_in_flight_oldest_seconds": 0.001,
        "messaging_in_flight_method_info": 1,
        "messaging_entries_lost_total": 0,
    }


def test_consumers_that_the_script_looked_at(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """Consumers that the script has read are not read again."""
    state = stream(first=identity(9000), last=identity(1000), length=9)
    standing = group(identity(1000), consumers=3, pending=2, stale=1, idle=400_000)
    converse(
        read(Streams(Names(["s"])), scrape_context),
        ([SCRIPT], [[[state, [standing]]]]),
        ([("XPENDING", b"s", b"g", "-", "+", 1)], [[[identity(7000), b"c", 1, 3]]]),
    )

    assert values(scrape_context)["redis_stream_group_consumers_stale"] == 1
    assert values(scrape_context)["redis_stream_group_consumer_max_idle_seconds"] == 400


@pytest.mark.parametrize(("each", "room"), [(False, MOST_CONSUMERS), (True, -1)])
def test_whose_consumers_the_script_looks_at(
    scrape_context: ScrapeContext, *, each: bool, room: int
) -> None:
    """The script reads some consumers, but none if each consumer is wanted, because it returns no names."""
    part, _ = Streams(Names(["s"]), stale_after=12.5, each_consumer=each).read(scrape_context)

    [(_, _, *arguments)] = next(part)

    assert arguments == [1, b"s", "12500", room, MOST_GROUPS]


def test_a_group_without_lag_reads_no_entries(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A group without lag, pending entries and consumers takes one round trip, and its values are 0."""
    state = stream(first=identity(9000), last=identity(1000), length=9)
    converse(
        read(Streams(Names(["s"])), scrape_context),
        ([SCRIPT], [[[state, [group(identity(1000))]]]]),
    )

    samples = values(scrape_context)
    assert samples["redis_stream_group_lag"] == 0
    assert samples["redis_stream_group_lag_seconds"] == 0
    assert samples["redis_stream_group_oldest_pending_age_seconds"] == 0
    assert samples["redis_stream_group_oldest_pending_deliveries"] == 0
    assert samples["redis_stream_group_consumers_stale"] == 0


def test_many_streams_are_read_window_by_window(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A script reads ten streams, and a round trip has twenty scripts: memory does not grow with the number of streams.

    Two parts share the windows: what the one has taken is not left to the other.
    """
    names = [f"s{number}" for number in range(streams.WINDOW + 1)]
    scripts = streams.WINDOW // streams.BATCH
    part, other = Streams(Names(names)).read(scrape_context)
    converse(
        part,
        ([SCRIPT] * scripts, [[[stream(), []]] * streams.BATCH] * scripts),
        ([SCRIPT], [[[stream(), []]]]),
    )

    assert list(other) == []
    assert len(scrape_context.scrape.samples[streams.LENGTH]) == len(names)


def test_a_stream_that_is_not_there(scrape_context: ScrapeContext, converse: Converse) -> None:
    """A missing key is not an error; it has no length, and redis_stream_exists is 0."""
    converse(read(Streams(Names(["s"])), scrape_context), ([SCRIPT], [[b"none"]]))

    assert scrape_context.scrape.samples[streams.EXISTS] == {("db0", "s"): 0}
    assert streams.LENGTH not in scrape_context.scrape.samples
    assert scrape_context.scrape.losses == []


def test_a_key_of_another_type_is_reported_and_the_rest_served(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A key of another type is an error that names it; other streams are served."""
    converse(
        read(Streams(Names(["l", "s"])), scrape_context), ([SCRIPT], [[b"list", [stream(), []]]])
    )

    message = "Redis at redis://example.net:6379 has a list named 'l', but `streams` needs a stream"
    assert scrape_context.scrape.losses == [("protocol", message)]
    assert scrape_context.scrape.samples[streams.EXISTS] == {("db0", "l"): 0, ("db0", "s"): 1}
    assert scrape_context.scrape.samples[streams.LENGTH] == {("db0", "s"): 0}


def test_a_refused_part_costs_only_itself(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """Without permission for the groups, the stream's own metrics are served."""
    converse(read(Streams(Names(["s"])), scrape_context), ([SCRIPT], [[[stream(), NOPERM]]]))

    assert [reason for reason, _ in scrape_context.scrape.losses] == ["noperm"]
    assert scrape_context.scrape.samples[streams.LENGTH] == {("db0", "s"): 0}


def test_a_stream_that_may_not_be_read(scrape_context: ScrapeContext, converse: Converse) -> None:
    """A refusal inside the script is a loss."""
    converse(read(Streams(Names(["s"])), scrape_context), ([SCRIPT], [[[NOPERM, NOPERM]]]))

    assert [reason for reason, _ in scrape_context.scrape.losses] == ["noperm"]


ASKING = [("TYPE", b"s"), ("XINFO", "STREAM", b"s"), ("XINFO", "GROUPS", b"s")]


def test_without_scripts_plain_commands_do(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A refused script is replaced by plain commands, and tried again only after a while."""
    now = 0.0
    reader = Streams(Names(["s"]), clock=lambda: now)
    fields = [
        b"length", 9, b"groups", 1, b"radix-tree-keys", 2, b"radix-tree-nodes", 3, b"entries-added", 9,
        b"last-generated-id", identity(1000), b"max-deleted-entry-id", b"0-0",
        b"first-entry", [identity(9000), [b"k", b"v"]], b"last-entry", [identity(1000), []],
    ]  # fmt: skip
    its_group = [
        b"name", b"g", b"consumers", 0, b"pending", 0, b"last-delivered-id", identity(5000),
        b"entries-read", 4, b"lag", 5,
    ]  # fmt: skip
    plain = (ASKING, [b"stream", fields, [its_group]])
    place = identity(5000).decode().removesuffix("-0") + "-1"
    head = (
        [("XRANGE", b"s", place, identity(1000).decode(), "COUNT", 1)],
        [[[identity(4000), [b"k", b"v"]]]],
    )
    page = (
        [("XRANGE", b"s", place, identity(1000).decode(), "COUNT", 1001)],
        [[[identity(age), [b"k", b"v"]] for age in (4000, 3000, 2500, 2000, 1000)]],
    )

    converse(read(reader, scrape_context), ([SCRIPT], [NOPERM]), plain, head, page)

    assert values(scrape_context)["redis_stream_group_lag"] == 5
    assert values(scrape_context)["messaging_lag_seconds"] == 4
    assert values(scrape_context)["redis_exporter_command_supported"] == 0
    assert scrape_context.scrape.losses == []
    scrape_context.scrape.samples.clear()
    converse(read(reader, scrape_context), plain)
    assert values(scrape_context)["redis_stream_group_lag"] == 5  # nothing has happened since
    now = RETRY_SECONDS
    scrape_context.scrape.samples.clear()
    converse(read(reader, scrape_context), ([SCRIPT], [[[stream(), []]]]))
    assert values(scrape_context)["redis_exporter_command_supported"] == 1


def test_streams_that_a_script_may_not_read(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A denied key makes its batch use plain commands for a while; other batches use scripts."""
    now = 0.0
    reader = Streams(Names(["s"]), clock=lambda: now)
    forbidden = ReplyError("NOPERM No permissions to access a key")
    plain = (ASKING, [forbidden, forbidden, forbidden])

    converse(read(reader, scrape_context), ([SCRIPT], [forbidden]), plain)
    assert [reason for reason, _ in scrape_context.scrape.losses] == ["noperm"]
    converse(read(reader, scrape_context), plain)
    now = RETRY_SECONDS
    converse(read(reader, scrape_context), ([SCRIPT], [[[stream(), []]]]))


def test_a_busy_server_gets_scripts_again(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A server that is blocked by another client's script is an error, and scripts are tried again."""
    reader = Streams(Names(["s"]))
    busy = ReplyError("BUSY Redis is busy running a script.")

    converse(read(reader, scrape_context), ([SCRIPT], [busy]))
    assert [reason for reason, _ in scrape_context.scrape.losses] == ["loading"]
    converse(read(reader, scrape_context), ([SCRIPT], [[[stream(), []]]]))


def test_a_name_that_is_not_utf8_is_escaped(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """Bytes that are not UTF-8 are escaped, and are not an error."""
    names = Names(["*"], "stream")
    names.add([b"caf\xe9"])

    converse(read(Streams(names), scrape_context), ([SCRIPT], [[[stream(), []]]]))

    assert scrape_context.scrape.samples[backlog.PUBLISHED] == {("redis", "caf\\xe9", ""): 9}


def test_a_discovered_stream_that_is_gone_is_forgotten(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A name that a pattern matched is dropped when its key was deleted."""
    names = Names(["*"], "stream")
    names.add([b"s"])
    converse(read(Streams(names), scrape_context), ([SCRIPT], [[b"none"]]))

    assert names.all() == []
    assert streams.EXISTS not in scrape_context.scrape.samples


def test_a_stream_deleted_during_the_scrape_is_not_an_error(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """A stream that is deleted between two round trips loses only its groups' samples."""
    gone = ReplyError("NOGROUP No such key 's' or consumer group 'g'")
    state = stream(first=identity(9000), last=identity(1000), length=9)
    converse(
        read(Streams(Names(["s"])), scrape_context),
        ([SCRIPT], [[[state, [group(identity(1000), consumers=1, pending=1)]]]]),
        (
            [("XPENDING", b"s", b"g", "-", "+", 1), ("XINFO", "CONSUMERS", b"s", b"g")],
            [gone, gone],
        ),
    )

    assert scrape_context.scrape.losses == []


def test_labels_are_kept_as_long_as_their_stream(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """The next scrape uses the same label values; those of deleted streams and groups are dropped."""
    reader = Streams(Names(["s"]))
    state = stream(first=identity(9000), last=identity(1000), length=9)
    there = ([SCRIPT], [[[state, [group(identity(1000))]]]])

    converse(read(reader, scrape_context), there)
    (before,) = scrape_context.scrape.samples[groups.LAG]
    scrape_context.scrape.samples.clear()
    converse(read(reader, scrape_context), there)
    (after,) = scrape_context.scrape.samples[groups.LAG]
    assert before is after

    converse(read(reader, scrape_context), ([SCRIPT], [[[state, []]]]))
    assert reader._labels[b"s"].groups == {}
    converse(read(reader, scrape_context), ([SCRIPT], [[b"none"]]))
    assert reader._labels == {}


def test_an_odd_stream_costs_only_itself(scrape_context: ScrapeContext, converse: Converse) -> None:
    """A stream without a length, or a group without a number, has no samples, not the value 0."""
    odd = [None, *stream()[1:]]
    whole = stream(first=identity(9000), last=identity(1000), length=9)
    odd_group = group(identity(1000))
    odd_group[2] = None
    named = [b"h", *group(identity(1000))[1:]]
    converse(
        read(Streams(Names(["odd", "s"])), scrape_context),
        ([SCRIPT], [[[odd, []], [whole, [odd_group, named]]]]),
    )

    assert [reason for reason, _ in scrape_context.scrape.losses] == ["protocol", "protocol"]
    assert scrape_context.scrape.samples[streams.LENGTH] == {("db0", "s"): 9}
    assert scrape_context.scrape.samples[groups.LAG] == {("db0", "s", "h"): 0}
    assert scrape_context.scrape.samples[groups.PENDING] == {("db0", "s", "h"): 0}


def test_a_defect_of_ours_is_not_the_servers_fault(
    scrape_context: ScrapeContext, converse: Converse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that no parser raised is not caught, so that the engine reports it as internal."""
    monkeypatch.setattr(groups, "judge", lambda *_: None)  # None cannot be unpacked
    state = stream(first=identity(9000), last=identity(1000), length=9)

    with pytest.raises(TypeError):
        converse(
            read(Streams(Names(["s"])), scrape_context),
            ([SCRIPT], [[[state, [group(identity(1000))]]]]),
        )

    assert scrape_context.scrape.losses == []


def test_a_stream_that_could_not_be_read_is_not_new(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """The history of a group stays while its stream is refused, so that its counters continue."""
    reader = Streams(Names(["s"]))
    scrape_context.counters_set = (0, 0, 0)
    state = [10, 1, 2, 3, identity(1000), b"0-0", 10, identity(9000), identity(1000)]
    at_the_end = [b"g", 0, 0, identity(1000), 10, 0, None, None]
    converse(read(reader, scrape_context), ([SCRIPT], [[[state, [at_the_end]]]]))
    scrape_context.scrape.samples.clear()
    busy = ReplyError("BUSY Redis is busy running a script.")
    converse(read(reader, scrape_context), ([SCRIPT], [busy]))
    assert groups.LAG not in scrape_context.scrape.samples
    scrape_context.scrape.samples.clear()

    trimmed = [5, 1, 2, 3, identity(500), b"0-0", 11, identity(5000), identity(500)]
    further = [b"g", 0, 0, identity(500), 11, 0, None, None]
    converse(read(reader, scrape_context), ([SCRIPT], [[[trimmed, [further]]]]))

    assert values(scrape_context)["messaging_consumed_messages_total"] == 11
    assert values(scrape_context)["redis_stream_group_entries_lost"] == 0


def test_a_stream_with_more_groups_than_a_script_looks_at(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """The script returns the number of groups, and XINFO GROUPS reads them in a round trip of its own."""
    fields = [
        b"name", b"g", b"consumers", 0, b"pending", 0, b"last-delivered-id", identity(1000),
        b"entries-read", 9, b"lag", 0,
    ]  # fmt: skip
    state = stream(first=identity(9000), last=identity(1000), length=9)
    large_stream = ([SCRIPT, ("XINFO", "GROUPS", b"s")], [[[state, 1000]], [fields] * 1])
    converse(
        read(Streams(Names(["s"])), scrape_context),
        ([SCRIPT], [[[state, 1000]]]),
        large_stream,
    )

    assert scrape_context.scrape.samples[groups.LAG] == {("db0", "s", "g"): 0}


def test_streams_with_too_many_groups_together_are_read_by_several_scripts(
    scrape_context: ScrapeContext, converse: Converse
) -> None:
    """No script looks at more groups than it may, as far as their number is known."""
    state = stream(first=identity(9000), last=identity(1000), length=9)
    some = [[b"%d" % number, *group(identity(1000))[1:]] for number in range(150)]
    reader = Streams(Names(["s", "t"]))
    converse(
        read(reader, scrape_context),
        ([SCRIPT], [[[state, some], [state, 150]]]),
        ([SCRIPT], [[[state, some]]]),
    )
    assert len(scrape_context.scrape.samples[groups.LAG]) == 300
    scrape_context.scrape.samples.clear()

    converse(read(reader, scrape_context), ([SCRIPT] * 2, [[[state, some]], [[state, some]]]))
    assert len(scrape_context.scrape.samples[groups.LAG]) == 300
