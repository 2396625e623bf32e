from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.conntrack import Conntrack, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

SIZES = {
    "proc/sys/net/netfilter/nf_conntrack_count": "123\n",
    "proc/sys/net/netfilter/nf_conntrack_max": "65536\n",
}
STATISTICS = """\
entries  searched found new invalid ignore delete delete_list insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
00000021  00000000 00000000 00000000 00000003 0000588a 00000000 00000000 00000000 00000000 00000000 00000000 00000000  00000000 00000000 00000000 00000001
00000021  00000000 00000002 00000000 00000002 000056a4 00000000 00000000 00000000 00000000 00000000 00000000 00000000  00000000 00000000 00000000 00000010
"""


def test_size_and_statistics(machine: Machine) -> None:
    """Size and limit are served, and the hexadecimal statistics summed over CPUs."""
    paths = machine({**SIZES, "proc/net/stat/nf_conntrack": STATISTICS})

    assert collect(Conntrack(Conntrack.Config(**paths))) == {
        "node_nf_conntrack_entries": {(): 123},
        "node_nf_conntrack_entries_limit": {(): 65536},
        "node_nf_conntrack_stat_found": {(): 2},
        "node_nf_conntrack_stat_invalid": {(): 5},
        "node_nf_conntrack_stat_ignore": {(): 0x588A + 0x56A4},
        "node_nf_conntrack_stat_insert": {(): 0},
        "node_nf_conntrack_stat_insert_failed": {(): 0},
        "node_nf_conntrack_stat_drop": {(): 0},
        "node_nf_conntrack_stat_early_drop": {(): 0},
        "node_nf_conntrack_stat_search_restart": {(): 17},
    }


def test_without_statistics(machine: Machine) -> None:
    """A kernel without the statistics serves size and limit, and does not fail."""
    assert collect(Conntrack(Conntrack.Config(**machine(SIZES)))) == {
        "node_nf_conntrack_entries": {(): 123},
        "node_nf_conntrack_entries_limit": {(): 65536},
    }


def test_absent(machine: Machine) -> None:
    """Without connection tracking there is nothing to read."""
    with pytest.raises(NotPresent, match="nf_conntrack_count is absent"):
        collect(Conntrack(Conntrack.Config(**machine({}))))


def test_invalid_size(machine: Machine) -> None:
    """A size that is not a number is an error with the path."""
    paths = machine({**SIZES, "proc/sys/net/netfilter/nf_conntrack_max": "lots\n"})

    with pytest.raises(TargetError, match=r"nf_conntrack_max: unexpected content: .*lots"):
        collect(Conntrack(Conntrack.Config(**paths)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"entries found",
        b"what is\n1 2\n",
        b"entries found\n1\n",
        b"entries found\n1 -2\n",
        b"entries found\n1 1_0\n",
        b"entries found\n1 xy\n",
    ],
)
def test_no_statistics(content: bytes) -> None:
    """A truncated table, another table and words that are not numbers raise ValueError."""
    with pytest.raises(ValueError, match=r"unexpected content|is empty|invalid literal"):
        parse(content)
