from __future__ import annotations

from collections.abc import Iterator

import pytest
from hiredis import Reader
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.redis.client import reply_guard
from bts_collectors.redis.client.reply_guard import OversizedReply, ReceiveBudget, ReplyGuard

HUGE = b"2147483647"


def bulk(content: bytes) -> bytes:
    """Return a string as a server sends it."""
    return b"$%d\r\n%b\r\n" % (len(content), content)


def feed(reply: bytes, size: int = 65536) -> Reader:
    """Give a reply to guard and parser in parts of `size` bytes; return the parser."""
    guard, reader = ReplyGuard(ReceiveBudget()), Reader()
    for start in range(0, len(reply), size):
        part = reply[start : start + size]
        guard.check(part)
        reader.feed(part)
    return reader


@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize(
    "reply",
    [
        b"*" + HUGE + b"\r\n",
        b"%" + HUGE + b"\r\n",
        b"~" + HUGE + b"\r\n",
        b">" + HUGE + b"\r\n",
        b"|" + HUGE + b"\r\n",
        b"$" + HUGE + b"\r\n",
        b"=" + HUGE + b"\r\n",
        b"!" + HUGE + b"\r\n",
        b"*2\r\n:1\r\n*2\r\n+a\r\n%" + HUGE + b"\r\n",
        bulk(b"ok") + b":1\r\n*" + HUGE + b"\r\n",
        b"*1000000\r\n*1000\r\n",
        b"%600000\r\n",
        b"*10\r\n" + 9 * b"*200000\r\n",
        b"*1000000\r\n" + bulk(b"x") + b"*1000\r\n",
        100 * b"*1\r\n" + b"*1000000\r\n",
        70 * b"*2\r\n:1\r\n" + b"$?\r\n",
        b"*?\r\n",
        b"$?\r\n",
    ],
    ids=lambda reply: repr(reply[:30]) if isinstance(reply, bytes) else None,
)
def test_what_is_announced_too_large_is_refused(reply: bytes, size: int) -> None:
    """Sizes that no valid reply has do not reach the parser, in whatever parts they arrive."""
    with pytest.raises(OversizedReply):
        feed(reply, size)


@pytest.mark.parametrize("line", [b"+" + 70_000 * b"x", b"-" + 70_000 * b"x" + b"\r\n"])
def test_a_long_line_is_refused(line: bytes) -> None:
    """A line without an end is not collected: the parser reads all of it again with each part."""
    with pytest.raises(OversizedReply, match="line"):
        feed(line, 1000)


@pytest.mark.parametrize("size", [1, 3, 100, 65536])
@pytest.mark.parametrize(
    "content",
    [
        b"*" + HUGE + b"\r\n",
        b"a\n*" + HUGE + b"\r\n",
        b"\r\n*" + HUGE + b"\r\n$" + HUGE + b"\r\n",
        b"\r\n*999999\r\n*999999\r\n",
        70_000 * b"x",
        b"\n*" + 5000 * b"9" + b"\r\n",
    ],
    ids=lambda content: repr(content[:30]) if isinstance(content, bytes) else None,
)
def test_what_only_looks_like_a_header_is_content(content: bytes, size: int) -> None:
    """The content of a string is not interpreted as headers."""
    reader = feed(b"*3\r\n" + bulk(content) + b":5\r\n" + bulk(content), size)

    assert reader.gets() == [content, 5, content]


_TEXT = st.binary(max_size=30) | st.sampled_from([b"\r\n*9\r\n", b"\n*99999999999\r\n", b"$5\r\n"])
_REPLIES = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | _TEXT,
    lambda part: st.lists(part, max_size=5),
    max_leaves=30,
)


def spelled(reply: object) -> Iterator[bytes]:
    """Yield a reply as a server sends it."""
    match reply:
        case None:
            yield b"$-1\r\n"
        case int():
            yield b":%d\r\n" % reply
        case bytes():
            yield bulk(reply)
        case list():
            yield b"*%d\r\n" % len(reply)
            for part in reply:
                yield from spelled(part)


@given(replies=st.lists(_REPLIES, min_size=1, max_size=5), size=st.integers(1, 40))
def test_sound_replies_pass(replies: list[object], size: int) -> None:
    """Replies of any shape and content reach the parser as they are, in parts of any size."""
    reader = feed(b"".join(part for reply in replies for part in spelled(reply)), size)

    assert [reader.gets() for _ in replies] == replies


def test_replies_in_front_of_a_bad_one_are_sound() -> None:
    """The error has the number of received bytes that can still be parsed."""
    guard = ReplyGuard(ReceiveBudget())
    guard.check(b"*2\r\n:1\r\n:")
    with pytest.raises(OversizedReply) as caught:
        guard.check(b"2\r\n+OK\r\n*" + HUGE + b"\r\n:1\r\n")

    assert caught.value.sound == len(b"2\r\n+OK\r\n")


def test_many_small_arrays_pass() -> None:
    """Announced elements count until they are received: ten thousand streams have 100,000 arrays."""
    guard, part = ReplyGuard(ReceiveBudget()), b"*100\r\n" + 100 * b":1\r\n"
    for _ in range(6_000):
        guard.check(part)


def test_the_budget_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several connections share one limit, which is reset by a new collection."""
    monkeypatch.setattr(reply_guard, "MOST_RECEIVED", 1000)
    budget = ReceiveBudget()
    first, second = ReplyGuard(budget), ReplyGuard(budget)
    first.check(bulk(600 * b"x"))
    with pytest.raises(OversizedReply, match="in one collection"):
        second.check(bulk(600 * b"x"))

    budget.begin_collection()
    second.at_boundary()
    second.check(bulk(600 * b"x"))


def test_many_small_parts_take_more_memory_than_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round trip's budget counts objects, too: a reply of empty arrays takes 16 times its bytes."""
    monkeypatch.setattr(reply_guard, "MOST_MEMORY", 10_000)
    budget = ReceiveBudget()
    guard = ReplyGuard(budget)
    guard.check(b"*100\r\n" + 100 * b"*0\r\n")
    with pytest.raises(OversizedReply, match="memory"):
        guard.check(b"*100\r\n" + 100 * b"*0\r\n")
