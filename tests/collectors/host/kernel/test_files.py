from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bts_collectors.host.kernel.files import (
    errors_in,
    lines,
    read,
    read_number,
    read_value,
    unexpected_content,
)
from bts_exporter import NotPresent, TargetError


def test_read_whole(tmp_path: Path) -> None:
    """A file that is longer than one read is read to its end."""
    path = tmp_path / "long"
    path.write_bytes(bytes(range(256)) * 1000)

    assert read(str(path)) == path.read_bytes()


def test_read_absent(tmp_path: Path) -> None:
    """A missing file, or a file below something that is not a directory, raises NotPresent."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file" / "below"):
        with pytest.raises(NotPresent, match=f"{path} is absent"):
            read(str(path))


def test_read_names_the_file(tmp_path: Path) -> None:
    """A read error has the path, which the system call does not give."""
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_read_forbidden(tmp_path: Path) -> None:
    """A file without read permission is an error, unlike an absent one."""
    path = tmp_path / "secret"
    path.touch(mode=0)

    with pytest.raises(PermissionError, match=str(path)):
        read(str(path))


def test_no_descriptor_leaks(tmp_path: Path, opened: Callable[[], int]) -> None:
    """The file is closed after success and after an error."""
    with pytest.raises(IsADirectoryError):
        read(str(tmp_path))
    assert read_value(str(tmp_path)) is None

    assert opened() == 0


@pytest.mark.parametrize(
    ("content", "expected"), [("12\n", 12), ("0", 0), ("", None), ("-1\n", None), ("x\n", None)]
)
def test_read_number(tmp_path: Path, content: str, expected: int | None) -> None:
    """A file with one number gives the number; anything else gives None."""
    path = tmp_path / "value"
    path.write_text(content)

    assert read_number(str(path)) == expected
    assert read_number(str(tmp_path / "none")) is None


def test_lines_are_whole() -> None:
    """A last line without its end is left out: its last number may be truncated."""
    assert [lines(b"a 1\nb 23"), lines(b"a 1\nb 23\n"), lines(b"")] == [
        [b"a 1"],
        [b"a 1", b"b 23"],
        [],
    ]


def test_unreadable_is_short() -> None:
    """An error shows the beginning of a long line, in characters that can be logged."""
    message = str(unexpected_content(b"\xff\n" * 1000))

    assert message == "unexpected content: '" + r"\udcff\n" * 30 + "'..."


def test_naming() -> None:
    """A ValueError becomes an error with the path; other errors propagate."""
    with pytest.raises(TargetError, match=r"^/proc/x: odd$") as caught, errors_in("/proc/x"):
        raise ValueError("odd")  # noqa: EM101
    assert caught.value.reason == "protocol"

    with pytest.raises(KeyError), errors_in("/proc/x"):
        raise KeyError
