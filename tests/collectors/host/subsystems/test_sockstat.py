from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.sockstat import Sockstat, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

SOCKSTAT = """\
sockets: used 229
TCP: inuse 4 orphan 0 tw 5 alloc 17 mem 2
FRAG: inuse 0 memory 7
"""
SOCKSTAT6 = "TCP6: inuse 17\nUDPLITE6: inuse 1\n"


def test_sockets(machine: Machine) -> None:
    """Every number is served; mem, which counts pages, also in bytes."""
    paths = machine({"proc/net/sockstat": SOCKSTAT, "proc/net/sockstat6": SOCKSTAT6})

    assert collect(Sockstat(Sockstat.Config(**paths))) == {
        "node_sockstat_sockets_used": {(): 229},
        "node_sockstat_TCP_inuse": {(): 4},
        "node_sockstat_TCP_orphan": {(): 0},
        "node_sockstat_TCP_tw": {(): 5},
        "node_sockstat_TCP_alloc": {(): 17},
        "node_sockstat_TCP_mem": {(): 2},
        "node_sockstat_TCP_mem_bytes": {(): 2 * os.sysconf("SC_PAGE_SIZE")},
        "node_sockstat_FRAG_inuse": {(): 0},
        "node_sockstat_FRAG_memory": {(): 7},
        "node_sockstat_TCP6_inuse": {(): 17},
        "node_sockstat_UDPLITE6_inuse": {(): 1},
    }


@pytest.mark.parametrize("file", ["sockstat", "sockstat6"])
def test_one_protocol(machine: Machine, file: str) -> None:
    """A host without IPv6 serves the rest."""
    paths = machine({f"proc/net/{file}": "TCP: inuse 1\n"})

    assert collect(Sockstat(Sockstat.Config(**paths))) == {"node_sockstat_TCP_inuse": {(): 1}}


def test_absent(machine: Machine) -> None:
    """Without both files there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc/net/sockstat is absent"):
        collect(Sockstat(Sockstat.Config(**machine({}))))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"TCP: inuse 4",
        b"TCP inuse 4\n",
        b"TCP: inuse\n",
        b"TCP: inuse four\n",
        b"TCP: in-use 4\n",
        b"T\xffP: inuse 4\n",
        "TCP: inusé 4\n".encode(),
        "TCP: inuse ٤\n".encode(),
    ],
)
def test_unreadable(content: bytes) -> None:
    """Lines that are not a protocol with pairs of name and number, and truncated ones, raise ValueError."""
    with pytest.raises(ValueError, match=r"unexpected content|is empty|invalid literal"):
        list(parse(content))


def test_error_names_the_file(machine: Machine) -> None:
    """The error for unreadable content has the path."""
    paths = machine({"proc/net/sockstat": SOCKSTAT, "proc/net/sockstat6": "garbage\n"})

    with pytest.raises(TargetError, match="/proc/net/sockstat6: unexpected content: 'garbage'"):
        collect(Sockstat(Sockstat.Config(**paths)))
