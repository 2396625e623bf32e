from __future__ import annotations

from bts_collectors.redis.client.labels import LONGEST_NAME, label, text


def test_labels_from_bytes() -> None:
    """Names are UTF-8; other bytes are escaped."""
    assert text("größe".encode()) == "größe"
    assert text(b"\xff\x00a") == "\\xff\x00a"


def test_long_names_are_short_labels_that_differ() -> None:
    """A name of a megabyte is cut, and two names with the same beginning stay different."""
    usual, long = b"x" * LONGEST_NAME, b"x" * 1_000_000

    assert label(usual) == text(usual)
    assert label(long).startswith(text(usual))
    assert len(label(long)) < LONGEST_NAME + 10
    assert label(long) != label(long + b"y")
