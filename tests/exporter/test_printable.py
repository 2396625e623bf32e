from __future__ import annotations

import pytest

from bts_exporter.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode", "plain ünïcode"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("bell\x07 del\x7f nel\x85", r"bell\x07 del\x7f nel\x85"),
        ("right to left \u202e", r"right to left \u202e"),
        ("half \udcff", r"half \udcff"),
        ("a\nb\tc", r"a\nb\tc"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text: str, shown: str) -> None:
    """Control characters, and those that change the text direction, are escaped."""
    assert printable(text) == shown


def test_lines_can_be_kept() -> None:
    """Line breaks stay."""
    assert printable("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"
