from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_exporter.web.incoming import MAX_HEAD_BYTES, Incoming

HEAD = b"GET / HTTP/1.1\r\nHost: test\r\n"


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("blank", [b"", b"\r\n", b"\n\r\n\n"])
def test_head_is_found_however_it_comes(end: bytes, blank: bytes) -> None:
    """A head that comes byte by byte is complete with its blank line, and not before."""
    incoming = Incoming()
    sent = blank + HEAD + end
    complete = []
    for i in range(len(sent)):
        incoming.add(sent[i : i + 1])
        complete.append(incoming.has_head())

    assert complete == [False] * (len(sent) - 1) + [True]
    assert incoming.take_head() == HEAD


def test_what_follows_the_head_stays() -> None:
    """After the head is taken, the body and further requests remain."""
    incoming = Incoming()
    incoming.add(HEAD + b"\r\nbody" + HEAD + b"\r\n")

    assert [incoming.has_head(), incoming.has_head()] == [True, True]
    assert incoming.take_head() == HEAD
    assert incoming.skip(4) == 4
    assert incoming.has_head()
    assert incoming.take_head() == HEAD
    assert incoming.skip(9) == 0


@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (b"x" * (MAX_HEAD_BYTES + 1), False),
        (b"\n" * (MAX_HEAD_BYTES + 1), False),
        (b"GET / HTTP/1.1\n" + b"x" * MAX_HEAD_BYTES, True),
        (b"x" * MAX_HEAD_BYTES + b"\n\n", False),
    ],
)
def test_head_that_is_too_long_is_not_waited_for(sent: bytes, line: bool) -> None:
    """A head that is too long is refused without waiting for its end."""
    incoming = Incoming()
    incoming.add(sent)

    assert incoming.has_head()
    assert incoming.take_head() is None
    assert incoming.has_line() is line


@given(st.lists(st.sampled_from([b"\r", b"\n", b"a", b"\r\n", b"\n\n"])))
def test_chunks_make_no_difference(parts: list[bytes]) -> None:
    """The same bytes give the same head, whatever chunks they come in."""
    whole, pieces = Incoming(), Incoming()
    for part in parts:
        pieces.add(part)
        if pieces.has_head():
            break
    whole.add(b"".join(parts))

    assert whole.has_head() == pieces.has_head()
    assert whole.take_head() == pieces.take_head()
