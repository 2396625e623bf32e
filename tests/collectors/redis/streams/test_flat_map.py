from __future__ import annotations

import pytest

from bts_collectors.redis.client.errors import ReplyShapeError
from bts_collectors.redis.streams.flat_map import FlatMap


def test_values_are_found_by_their_names() -> None:
    """Neither the order of a reply matters, nor a value that is equal to a name."""
    fields = FlatMap(b"name", b"pending")

    assert fields.of([b"name", b"pending", b"new", 1, b"pending", 4]) == (b"pending", 4)
    assert fields.of([b"pending", 5, b"name", b"x"]) == (b"x", 5)


def test_missing_names_are_none() -> None:
    """Missing names are None; replies with other names are handled."""
    fields = FlatMap(b"length", b"groups")

    assert [fields.of(reply) for reply in ([b"length", 0], [], [b"groups", 2, b"length", 1])] == [
        (0, None),
        (None, None),
        (1, 2),
    ]


@pytest.mark.parametrize("odd", [None, 7, b"x", [[], 1], [None, 1]])
def test_an_odd_reply_is_an_error(odd: object) -> None:
    """A reply that is not a list of names and values is reported."""
    with pytest.raises(ReplyShapeError):
        FlatMap(b"a", b"b").of(odd)
