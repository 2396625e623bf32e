from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.filefd import Filefd, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]


def test_files(machine: Machine) -> None:
    """The first number is that of open files, the third is the limit, often beyond 53 bits."""
    paths = machine({"proc/sys/fs/file-nr": "1024\t0\t9223372036854775807\n"})

    assert collect(Filefd(Filefd.Config(**paths))) == {
        "node_filefd_allocated": {(): 1024},
        "node_filefd_maximum": {(): 9223372036854775807},
    }


@pytest.mark.parametrize(
    "content", [b"", b"1\t0\n", b"1\t0\t2\t3\n", b"1\t0\t-2\n", b"a\tb\tc\n", b"1024\t0\t92"]
)
def test_unreadable(content: bytes) -> None:
    """Anything but a complete line of three numbers raises ValueError."""
    with pytest.raises(ValueError, match=r"unexpected content|is empty"):
        parse(content)


def test_error_names_the_file(machine: Machine) -> None:
    """The error for unreadable content has the path."""
    with pytest.raises(TargetError, match="/proc/sys/fs/file-nr: unexpected content: 'garbage"):
        collect(Filefd(Filefd.Config(**machine({"proc/sys/fs/file-nr": "garbage\n"}))))


def test_absent(machine: Machine) -> None:
    """Without the file there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc/sys/fs/file-nr is absent"):
        collect(Filefd(Filefd.Config(**machine({}))))
