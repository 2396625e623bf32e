from __future__ import annotations

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.connection import Reply
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.lists.look import DIGEST, Look, Request, digest
from bts_collectors.redis.lists.reader import ListReader, parse_look

REQUEST = Request(b"jobs", "left", ranks=(40,))
A, B, C = (digest(letter) for letter in (b"a", b"b", b"c"))


def test_the_reply_of_the_script() -> None:
    """Digests of a fixed length are joined; elements that were not read have dashes."""
    reply: Reply = [3, A + B, b"-" * DIGEST + C, -1]

    assert parse_look(REQUEST, reply) == Look(3, [A, B], {2: C})


@pytest.mark.parametrize(
    "reply", [None, 1, [], [3, A, C, -1], [3, None, A + C, -1], ReplyError("WRONGTYPE")]
)
def test_an_odd_reply_of_the_script(reply: Reply) -> None:
    """A reply of another shape is no look."""
    assert parse_look(REQUEST, reply) is None


def test_a_large_element_counts_by_length_beginning_and_end() -> None:
    """What differs only in the middle has the same digest, if the length is the same."""
    one, other = (b"a" * 2000 + middle + b"b" * 2000 for middle in (b"1", b"2"))

    assert digest(one) == digest(other)
    assert digest(one) != digest(one + b"b")


@pytest.mark.parametrize("end", ["left", "right"])
def test_plain_commands_where_scripts_are_denied(scrape_context: ScrapeContext, end: str) -> None:
    """After a refusal the same scrape reads as many elements as the limit of bytes allows."""
    reading = ListReader(lambda: 0.0).read(scrape_context, [Request(b"jobs", end)])  # type: ignore[arg-type]

    assert next(reading)[0][0] == "EVAL_RO"
    assert reading.send([ReplyError("NOPERM no permission")]) == [
        ("LLEN", b"jobs"),
        ("MEMORY", "USAGE", b"jobs", "SAMPLES", 5),
    ]
    first, last = ((0, 1), (-1, -1)) if end == "left" else ((-2, -1), (0, 0))
    assert reading.send([3, 24_000]) == [
        ("LLEN", b"jobs"),
        ("LRANGE", b"jobs", *first),
        ("LRANGE", b"jobs", *last),
    ]
    window = [b"a", b"b"] if end == "left" else [b"b", b"a"]
    with pytest.raises(StopIteration) as ended:
        reading.send([3, window, [b"c"]])

    assert ended.value.value == [Look(3, [A, B], {2: C})]


def test_large_elements_are_not_transferred(scrape_context: ScrapeContext) -> None:
    """Plain commands do not read a list whose elements are larger than the limit."""
    scrape_context.version = (6, 2, 0)
    reading = ListReader(lambda: 0.0).read(scrape_context, [REQUEST])

    next(reading)
    assert reading.send([3, 90_000]) == []
    with pytest.raises(StopIteration) as ended:
        reading.send([])

    assert ended.value.value == [None]
