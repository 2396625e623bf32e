from __future__ import annotations

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.errors import ReplyShapeError
from bts_collectors.redis.client.scripts import runs_scripts
from bts_collectors.redis.streams.state import (
    Group,
    Stream,
    is_scripts_reply,
    parse_group,
    parse_id,
    parse_stream,
    plain_state,
    spell_id,
)

REFUSED = ReplyError("NOPERM")


def test_ids_compare_as_the_server_compares_them() -> None:
    """Ids are numbers, so that 9-0 comes before 10-0 and 5-9 before 5-10."""
    assert parse_id(b"1767225600000-12") == (1767225600000, 12)
    assert spell_id((1767225600000, 12)) == "1767225600000-12"
    assert parse_id(b"9-0") < parse_id(b"10-0")
    assert parse_id(b"5-9") < parse_id(b"5-10")
    assert parse_id(b"18446744073709551615-18446744073709551615") == (
        18446744073709551615,
        18446744073709551615,
    )


#: A stream and a group as a server of today tells them; a group may be called like a field.
STREAM = [
    b"length", 2, b"radix-tree-keys", 1, b"radix-tree-nodes", 3,
    b"last-generated-id", b"7-1", b"max-deleted-entry-id", b"2-0", b"entries-added", 5,
    b"recorded-first-entry-id", b"3-0", b"groups", 4,
    b"first-entry", [b"3-0", [b"field", b"payload"]], b"last-entry", [b"7-1", [b"a", b"b"]],
]  # fmt: skip
GROUP = [
    b"name", b"lag", b"consumers", 1, b"pending", 2, b"last-delivered-id", b"5-0",
    b"entries-read", 3, b"lag", 4,
]  # fmt: skip


def test_plain_replies_have_the_shape_of_the_scripts() -> None:
    """Three separate replies join as the script's: values in a fixed order, payloads left out."""
    assert plain_state((b"stream", STREAM, [GROUP])) == [
        [2, 4, 1, 3, b"7-1", b"2-0", 5, b"3-0", b"7-1"],
        [[b"lag", 1, 2, b"5-0", 3, 4, None, None]],
    ]
    assert plain_state((b"list", REFUSED, REFUSED)) == b"list"
    assert plain_state((b"stream", REFUSED, REFUSED)) == [REFUSED, REFUSED]


def test_plain_replies_of_an_old_server() -> None:
    """Fields that Redis 6.2 lacks are None, not 0."""
    stream = [b"length", 0, b"last-generated-id", b"0-0", b"first-entry", None, b"last-entry", None]
    group = [b"name", b"g", b"consumers", 0, b"pending", 0, b"last-delivered-id", b"0-0"]

    assert plain_state((b"stream", stream, [group])) == [
        [0, None, None, None, b"0-0", None, None, None, None],
        [[b"g", 0, 0, b"0-0", None, None, None, None]],
    ]


def test_stream() -> None:
    """Values become a stream; missing ones stay None."""
    expected = Stream(
        length=2,
        groups=4,
        radix_tree_keys=1,
        radix_tree_nodes=3,
        last_generated=(7, 1),
        max_deleted=(2, 0),
        entries_added=5,
        first=(3, 0),
        last=(7, 1),
    )

    assert expected == parse_stream([2, 4, 1, 3, b"7-1", b"2-0", 5, b"3-0", b"7-1"])
    assert Stream(length=0, last_generated=(0, 0)) == parse_stream(
        [0, None, None, None, b"0-0", None, None, None, None]
    )


def test_groups() -> None:
    """Values become groups, with the script's numbers of their consumers."""
    groups = [[b"g", 1, 2, b"5-0", 3, 4, 1, 700], [b"h", 0, 0, b"0-0", None, None, None, None]]

    expected = [
        Group(b"g", 1, 2, last_delivered=(5, 0), entries_read=3, lag=4, stale=1, idle=700),
        Group(b"h", consumers=0, pending=0, last_delivered=(0, 0)),
    ]

    assert expected == [parse_group(each) for each in groups]


@pytest.mark.parametrize(
    "odd",
    [
        [None, 1, 2, b"5-0", 3, 4, None, None],
        [b"g", None, 2, b"5-0", 3, 4, None, None],
        [b"g", 1, b"2", b"5-0", 3, 4, None, None],
        [b"g", 1, 2, b"-", 3, 4, None, None],
        [b"g", 1, 2, 5, 3, 4, None, None],
        [b"g", 1, 2, b"5-0", [], 4, None, None],
        [b"g", 1, 2, b"5-0", 3, b"4", None, None],
        [b"g", 1, 2, b"5-0", 3, 4, b"0", None],
        [b"g", 1, 2, b"5-0", 3, 4, None, []],
        [b"g"],
        b"g",
        7,
        None,
    ],
)
def test_an_odd_group_is_an_error(odd: object) -> None:
    """A group of another shape is reported: a missing number is not 0."""
    with pytest.raises(ReplyShapeError):
        parse_group(odd)


@pytest.mark.parametrize("position", range(9))
@pytest.mark.parametrize("odd", [b"odd", [], 1.5])
def test_an_odd_stream_is_an_error(position: int, odd: object) -> None:
    """A stream with a value of another type is reported, whichever value it is."""
    values: list[object] = [2, 4, 1, 3, b"7-1", b"2-0", 5, b"3-0", b"7-1"]
    values[position] = odd

    with pytest.raises(ReplyShapeError):
        parse_stream(values)


def test_a_stream_without_a_length_is_an_error() -> None:
    """A stream without a length is not empty."""
    with pytest.raises(ReplyShapeError):
        parse_stream([None, 4, 1, 3, b"7-1", b"2-0", 5, b"3-0", b"7-1"])


@pytest.mark.parametrize("odd", [b"", b"-", b"x-1", b"1-x", b"1" * 42, 5, None, [b"1-0"]])
def test_an_odd_id_is_an_error(odd: object) -> None:
    """An id is two numbers of at most 64 bits, written as a text."""
    with pytest.raises(ReplyShapeError):
        parse_id(odd)


@pytest.mark.parametrize(
    "replies",
    [
        (7, STREAM, [GROUP]),
        ([], STREAM, [GROUP]),
        (b"stream", b"x", [GROUP]),
        (b"stream", None, [GROUP]),
        (b"stream", [[], 1], [GROUP]),
        (b"stream", [b"length", 1, b"first-entry", 7], [GROUP]),
        (b"stream", [b"length", 1, b"first-entry", []], [GROUP]),
        (b"stream", STREAM, None),
        (b"stream", STREAM, [7]),
        (b"stream", STREAM, [[[]]]),
    ],
)
def test_odd_plain_replies_are_an_error(replies: tuple[object, object, object]) -> None:
    """Replies to plain commands of another shape are reported, and do not stop the scrape."""
    with pytest.raises(ReplyShapeError):
        plain_state(replies)


@pytest.mark.parametrize(
    ("state", "is_sound"),
    [
        (b"list", True),
        ([REFUSED, None], True),
        ([[0] * 9, []], True),
        ([[0] * 9, 300], True),
        ([[0] * 9, REFUSED], True),
        ([[0] * 9, None], False),
        ([[0] * 9, b"x"], False),
        ([[0] * 8, []], False),
        ([None, []], False),
        ([[0] * 9], False),
        (7, False),
        (None, False),
    ],
)
def test_the_shape_of_the_scripts_reply(state: object, is_sound: bool) -> None:
    """A reply that the script cannot have made is not used: plain commands are sent instead."""
    assert is_scripts_reply([state], 1) is is_sound
    assert not is_scripts_reply([state], 2)
    assert not is_scripts_reply(state, 1)


@pytest.mark.parametrize(
    ("version", "runs"), [((6, 2, 14), False), ((7,), True), ((7, 0, 0), True), ((), True)]
)
def test_read_only_scripts_came_with_redis_7(version: tuple[int, ...], runs: bool) -> None:
    """An unknown version is tried."""
    assert runs_scripts(version) is runs
