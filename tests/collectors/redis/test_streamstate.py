from __future__ import annotations

from bts_collectors.redis.streamstate import (
    Group,
    Stream,
    parse_groups,
    parse_id,
    parse_stream,
    plain_state,
    spell_id,
)


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


def test_stream() -> None:
    """XINFO STREAM's list of names and values becomes a stream, payloads left out."""
    reply = [
        b"length", 2, b"radix-tree-keys", 1, b"radix-tree-nodes", 3,
        b"last-generated-id", b"7-1", b"max-deleted-entry-id", b"2-0", b"entries-added", 5,
        b"recorded-first-entry-id", b"3-0", b"groups", 4,
        b"first-entry", [b"3-0", [b"field", b"payload"]], b"last-entry", [b"7-1"],
    ]  # fmt: skip

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

    assert expected == parse_stream(reply)


def test_stream_of_an_old_server() -> None:
    """What Redis 6.2 does not tell is None, not 0."""
    reply = [b"length", 0, b"last-generated-id", b"0-0", b"first-entry", None, b"last-entry", None]

    assert Stream(length=0, last_generated=(0, 0)) == parse_stream(reply)


def test_groups() -> None:
    """XINFO GROUPS becomes groups; nil stays None."""
    reply = [
        [
            b"name", b"g", b"consumers", 1, b"pending", 2, b"last-delivered-id", b"5-0",
            b"entries-read", 3, b"lag", 4,
        ],
        [
            b"name", b"h", b"consumers", 0, b"pending", 0, b"last-delivered-id", b"0-0",
            b"entries-read", None, b"lag", None,
        ],
    ]  # fmt: skip

    expected = [
        Group(b"g", consumers=1, pending=2, last_delivered=(5, 0), entries_read=3, lag=4),
        Group(b"h", consumers=0, pending=0, last_delivered=(0, 0)),
    ]

    assert expected == parse_groups(reply)


def test_plain_replies_have_the_shape_of_the_scripts() -> None:
    """Three separate replies join as the script's; a key of another type is its type's name."""
    assert plain_state((b"stream", [b"length", 1], [])) == [[b"length", 1], []]
    assert plain_state((b"list", ValueError("WRONGTYPE"), ValueError("WRONGTYPE"))) == b"list"
