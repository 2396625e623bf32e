from __future__ import annotations

import pytest

from bts_collectors.redis.keyspace import globs


@pytest.mark.parametrize("name", ["a*", "a?", "a[bc]", "a\\*"])
def test_what_is_a_pattern(name: str) -> None:
    """A name with any special character of Redis is a pattern."""
    assert globs.is_glob(name)
    assert not globs.is_glob("a-b:{c}^d]")


@pytest.mark.parametrize(
    ("glob", "matched", "others"),
    [
        (b"bts:*", [b"bts:", b"bts:a\n\xff"], [b"bts", b"abts:"]),
        (b"a?c", [b"abc", b"a\xffc", b"a\nc"], [b"ac", b"abbc"]),
        (b"a[bc]", [b"ab", b"ac"], [b"ad", b"a"]),
        (b"a[^bc]", [b"ad", b"a^"], [b"ab"]),
        (b"a[a-c]", [b"ab"], [b"a-", b"ad"]),
        (b"a[c-a]", [b"ab"], [b"a-"]),
        (b"a[\\]x]", [b"a]", b"ax"], [b"a\\"]),
        (b"a[b", [b"ab"], [b"a[b"]),
        (b"a[]", [], [b"a", b"a]"]),
        (b"a[^]", [b"ab", b"a]"], [b"a"]),
        (b"a\\*", [b"a*"], [b"ab", b"a\\*"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"a.+(b|c)$", [b"a.+(b|c)$"], [b"axb"]),
    ],
)
def test_patterns_are_read_as_redis_reads_them(
    glob: bytes, matched: list[bytes], others: list[bytes]
) -> None:
    """Classes, ranges, escapes and unclosed brackets mean the same as to the server."""
    match = globs.compiled([glob]).fullmatch

    assert [name for name in matched if not match(name)] == []
    assert [name for name in others if match(name)] == []


def test_several_patterns_at_once() -> None:
    """A name is matched if any of the patterns matches; without patterns no name is."""
    match = globs.compiled([b"a*", b"*b"]).fullmatch

    assert match(b"ax")
    assert match(b"xb")
    assert not match(b"x")
    assert not globs.compiled([]).fullmatch(b"x")


def test_a_name_can_be_spelled_as_a_pattern() -> None:
    """An escaped name matches itself and nothing else."""
    name = "a*b?[c]\\d"
    match = globs.compiled([globs.escaped(name).encode()]).fullmatch

    assert match(name.encode())
    assert not match(b"axbxcxd")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([b"bts:*"], b"bts:*"),
        ([b"bts:*", b"bull:*:meta"], b"[\\b][\\t\\u][\\l\\s][\\:\\l]*"),
        ([b"a-*", b"a]*"], b"[\\a][\\-\\]]*"),
        ([b"bts:*", b"*:low"], b"*"),
        ([], b"*"),
    ],
)
def test_one_pattern_for_several(patterns: list[bytes], expected: bytes) -> None:
    """The server filters by the first characters that the patterns can match."""
    assert globs.covering(patterns) == expected
