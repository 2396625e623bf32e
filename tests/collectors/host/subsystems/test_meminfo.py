from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.meminfo import Meminfo, parse
from bts_exporter import TargetError
from bts_exporter.testing import Samples, collect

Machine = Callable[[dict[str, str]], dict[str, Any]]


@pytest.fixture
def samples(machine: Machine) -> Callable[[str], Samples]:
    """Give a function that collects from a /proc/meminfo."""
    return lambda content: collect(Meminfo(Meminfo.Config(**machine({"proc/meminfo": content}))))


def test_kilobytes_become_bytes(samples: Callable[[str], Samples]) -> None:
    """A value in kB is served in bytes, with a suffix in the name."""
    assert samples("MemTotal:        3742148 kB\n") == {
        "node_memory_MemTotal_bytes": {(): 3742148 * 1024}
    }


def test_plain_numbers_stay(samples: Callable[[str], Samples]) -> None:
    """A value without a unit is a number of pages, without a suffix in the name."""
    assert samples("HugePages_Total:       7\nHugepagesize:       2048 kB\n") == {
        "node_memory_HugePages_Total": {(): 7},
        "node_memory_Hugepagesize_bytes": {(): 2048 * 1024},
    }


def test_parentheses(samples: Callable[[str], Samples]) -> None:
    """Text in parentheses is part of the name."""
    assert samples("Active(anon):    2 kB\n") == {"node_memory_Active_anon_bytes": {(): 2048}}


def test_unknown_fields(samples: Callable[[str], Samples]) -> None:
    """A field of a newer kernel is served, whatever characters it has."""
    assert samples("Zap-Zone/2:    1 kB\n") == {"node_memory_Zap_Zone_2_bytes": {(): 1024}}


def test_names_are_remembered(machine: Machine) -> None:
    """Each scrape emits the same metric objects, so that the engine can share them."""
    collector = Meminfo(Meminfo.Config(**machine({"proc/meminfo": "MemFree: 1 kB\n"})))

    assert collect(collector) == collect(collector)


def test_unreadable_line_loses_only_itself() -> None:
    """The lines around an unreadable one are served, and the error has the line."""
    rows = parse(b"MemTotal: 1 kB\nMemFree: lots\nCached: 2 kB\n")

    assert (next(rows), next(rows)) == ((b"MemTotal", 1024, 1024), (b"Cached", 1024, 2048))
    with pytest.raises(ValueError, match="unexpected content: 'MemFree: lots'"):
        next(rows)


def test_empty(samples: Callable[[str], Samples]) -> None:
    """An empty file is an error: every host has memory."""
    with pytest.raises(TargetError, match="/proc/meminfo: is empty"):
        samples("")
