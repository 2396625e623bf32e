from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.host.kernel.processes import Stat, parse_stat, pids, read_content, read_stat
from bts_exporter import NotPresent, TargetError

Machine = Callable[[dict[str, str]], dict[str, Any]]

LINE = (
    "26231 (redis server) S 5392 7446 5392 34835 7446 4218880 32533 309516 26 82 1677 44 158 99"
    " 20 0 3 0 82375 56274944 1981 18446744073709551615 4194304 0 0\n"
)


def test_stat() -> None:
    """The fields are those with the numbers 2, 3, 14, 15, 20, 22 and 24 in proc(5)."""
    assert parse_stat(LINE.encode()) == Stat(
        name="redis server",
        state="S",
        user_ticks=1677,
        system_ticks=44,
        threads=3,
        started=82375,
        resident_pages=1981,
    )


@pytest.mark.parametrize(
    "name", ["", " ", ")", "(", "a) R 1 (b", ") S 1 1 1 1", "((sd-pam))", "\udcff"]
)
def test_names(name: str) -> None:
    """A name with parentheses and spaces does not shift the fields after it."""
    content = LINE.replace("redis server", name).encode("utf-8", "surrogateescape")

    assert (parse_stat(content).name, parse_stat(content).state) == (name, "S")


def test_cut_off() -> None:
    """A truncated file raises ValueError: a number may be incomplete."""
    content = LINE.encode()

    for end in range(len(content)):
        with pytest.raises(ValueError, match=r"unexpected content|is empty"):
            parse_stat(content[:end])


@given(content=st.binary(max_size=300))
def test_noise(content: bytes) -> None:
    """Arbitrary bytes give a state or a ValueError."""
    try:
        parse_stat(content)
    except ValueError:
        return


def test_own_process() -> None:
    """The stat file of this process is parsed."""
    stat = read_stat(f"/proc/{os.getpid()}")

    assert stat is not None
    assert stat.state == "R"
    assert stat.name == Path("/proc/self/comm").read_text(encoding="utf-8").rstrip("\n")
    assert stat.resident_pages > 0


def test_gone(machine: Machine) -> None:
    """A process that has ended gives None."""
    assert read_stat(f"{machine({})['procfs']}/7") is None
    with pytest.raises(FileNotFoundError):
        read_content(f"{machine({})['procfs']}/7")


def test_damaged(machine: Machine) -> None:
    """An unreadable file is an error with its path, unlike a process that has ended."""
    procfs = machine({"proc/7/stat": "garbage\n"})["procfs"]

    with pytest.raises(TargetError, match="/proc/7/stat: unexpected content: 'garbage"):
        read_stat(f"{procfs}/7")


def test_unreadable(machine: Machine) -> None:
    """An error such as too many open files is raised: the process exists."""
    procfs = machine({"proc/7/stat/below": ""})["procfs"]

    with pytest.raises(IsADirectoryError):
        read_stat(f"{procfs}/7")


def test_ids(machine: Machine) -> None:
    """Directories of processes are recognized by name, and have the number of their inode."""
    procfs = machine({"proc/1/stat": LINE, "proc/42/stat": LINE, "proc/sys/x": ""})["procfs"]

    assert pids(procfs) == {pid: Path(procfs, pid).stat().st_ino for pid in ("1", "42")}


def test_real_inodes() -> None:
    """The inode number in a listing of /proc is that of the process's directory."""
    own = str(os.getpid())

    assert pids("/proc")[own] == Path("/proc", own).stat().st_ino


def test_absent(machine: Machine) -> None:
    """Without /proc there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc is absent"):
        pids(machine({})["procfs"])
