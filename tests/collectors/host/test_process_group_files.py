"""The settings of process_group, and the parsers of its files other than stat."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from bts_collectors.host.subsystems.process_group import (
    Group,
    ProcessGroupSettings,
    parse_boot_time,
    parse_io,
    parse_user,
    parse_users,
)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: Group(name="a"), "group a: set comm, cmdline or user"),
        (lambda: Group(name="", comm=re.compile("a")), "a group has no name"),
        (
            lambda: ProcessGroupSettings(groups=(Group(name="a", comm=re.compile("b")),) * 2),
            "duplicate group names: a",
        ),
    ],
)
def test_wrong_settings(settings: Callable[[], object], message: str) -> None:
    """A group without an expression, without a name, or with a duplicate name is an error."""
    with pytest.raises(ValueError, match=message):
        settings()


def test_parsers() -> None:
    """The values are found among the other lines of the kernel's files."""
    assert parse_boot_time(b"cpu 1\nbtime 17\nprocesses 3\n") == 17
    assert parse_io(b"rchar: 1\nread_bytes: 2\nwrite_bytes: 3\n") == (2, 3)
    assert parse_user(b"Name:\tx\nUid:\t1\t2\t3\t4\n") == b"2"
    assert parse_users(b"root:x:0:0:r:/:/bin/sh\n+::::::\n") == {b"0": "root", b"": "+"}


@pytest.mark.parametrize(
    ("parse", "content"),
    [
        (parse_boot_time, b"btime 17"),
        (parse_boot_time, b"btime x\n"),
        (parse_io, b"read_bytes: 1\nwrite_bytes: 2"),
        (parse_io, b"read_bytes: 1\nwrite_bytes: x\n"),
        (parse_user, b""),
        (parse_user, b"Uid:\t1\n"),
        (parse_user, b"Uid:\t1\t2\t3\t4"),
    ],
)
def test_parsers_refuse(parse: Callable[[bytes], object], content: bytes) -> None:
    """Truncated content, and content without the numbers, raises ValueError."""
    with pytest.raises(
        ValueError, match=r"unexpected content|is empty|no btime|no line `Uid|invalid literal"
    ):
        parse(content)
