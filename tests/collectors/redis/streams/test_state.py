from __future__ import annotations

import pytest
from hiredis import ReplyError

from bts_collectors.redis.streams.state import (
    Group,
    Stream,
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
    """What Redis 6.2 does not tell is nil, not 0."""
    stream = [b"length", 0, b"last-generated-id", b"0-0", b"first-entry", None, b"last-entry", None]
    group = [b"name", b"g", b"consumers", 0, b"pending", 0, b"last-delivered-id", b"0-0"]

    assert plain_state((b"stream", stream, [group])) == [
        [0, None, None, None, b"0-0", None, None, None, None],
        [[b"g", 0, 0, b"0-0", None, None, None, None]],
    ]


def test_stream() -> None:
    """Values become a stream; what there is not stays None."""
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
    """Values become groups, with what the script saw of their consumers."""
    found = [[b"g", 1, 2, b"5-0", 3, 4, 1, 700], [b"h", 0, 0, b"0-0", None, None, None, None]]

    expected = [
        Group(b"g", 1, 2, last_delivered=(5, 0), entries_read=3, lag=4, stale=1, idle=700),
        Group(b"h", consumers=0, pending=0, last_delivered=(0, 0)),
    ]

    assert expected == [parse_group(each) for each in found]


@pytest.mark.parametrize(
    "odd",
    [
        [b"g", None, 2, b"5-0", 3, 4, None, None],
        [b"g", 1, b"2", b"5-0", 3, 4, None, None],
        [b"g", 1, 2, b"-", 3, 4, None, None],
        [b"g", 1, 2, b"5-0", [], 4, None, None],
        [b"g"],
    ],
)
def test_a_group_that_looks_like_none(odd: list[object]) -> None:
    """A number that is missing is not 0: the group is refused."""
    with pytest.raises((TypeError, ValueError)):
        parse_group(odd)


def test_a_stream_without_a_length() -> None:
    """A stream whose length is missing is not empty: it is refused."""
    with pytest.raises(TypeError):
        parse_stream([None, 4, 1, 3, b"7-1", b"2-0", 5, b"3-0", b"7-1"])
