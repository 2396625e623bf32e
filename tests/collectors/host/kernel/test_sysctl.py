from __future__ import annotations

import pytest

from bts_collectors.host.kernel.sysctl import parse_sysctl


def test_number() -> None:
    """The number is the only line of the file."""
    assert parse_sysctl(b"4194304\n") == 4194304


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"41943", b"-1\n", b"1 2\n", b"1\n2\n", b"max\n", b"9" * 5000 + b"\n"]
)
def test_unreadable(content: bytes) -> None:
    """Content with several numbers, without a number, or possibly truncated raises ValueError."""
    with pytest.raises(ValueError, match=r"unexpected content|is empty|Exceeds the limit"):
        parse_sysctl(content)
