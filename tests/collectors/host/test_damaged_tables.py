"""Damaged files of more subsystems: true values, or an error with the path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bts_collectors.host import SUBSYSTEMS
from bts_collectors.host.subsystems import conntrack, os_release, schedstat, selinux, udp_queues
from bts_collectors.host.subsystems.netclass import parse_number
from bts_exporter import NotPresent
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

UDP = b"""\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
    0: 00000000:0016 00000000:0000 07 00000015:00000000 00:00000000 00000000     0        0 2740 1
    1: 0100007F:0035 00000000:0000 07 00000000:000000A0 00:00000000 00000000     0        0 2741 1
"""
SCHEDSTAT = b"""\
version 15
timestamp 15819019232
cpu0 498494191 0 3533438552 2553969831 3853684107 2465731542 2045936778163039 343796328169361 4767485306
domain0 00000000,00000003 212499247 210112015 1861015 1860405436 536440 369895 32599 210079416 25368550
cpu1 518377256 0 4155211005 2778589869 10466382 2867629021 1904686152592476 364107263788241 5145567945
"""
CONNTRACK = b"""\
entries  searched found new invalid ignore insert insert_failed drop early_drop search_restart
00000021  00000000 00000000 00000000 00000003 0000588a 00000000 00000000 00000000 00000000 00000001
00000021  00000000 00000002 00000000 00000002 000056a4 00000000 00000000 00000000 00000000 00000010
"""
OS_RELEASE = b"""\
NAME="Ubuntu"
VERSION_ID='22.04'
ID=ubuntu
SUPPORT_END=2032-04-01
"""
SELINUX = b"# comment\nSELINUX=permissive\nSELINUXTYPE=targeted\n"


def numbers_of_schedstat(content: bytes) -> Iterator[int]:
    """Yield the numbers of all rows."""
    for _, *numbers in schedstat.parse(content):
        yield from numbers


PARSERS: dict[str, tuple[Callable[[bytes], Iterable[Any]], bytes]] = {
    "udp_queues": (lambda content: [n for pair in udp_queues.parse(content) for n in pair], UDP),
    "schedstat": (numbers_of_schedstat, SCHEDSTAT),
    "conntrack": (lambda content: conntrack.parse(content).values(), CONNTRACK),
    "os": (lambda content: map(len, os_release.parse(content).values()), OS_RELEASE),
    "selinux": (lambda content: [(selinux.parse(content) or 0) + 1], SELINUX),
    "netclass": (lambda content: [parse_number(content) or 0], b"0x1003"),
}


def values(name: str, content: bytes) -> list[int] | None:
    """Return the values of `content`; None for a ValueError."""
    try:
        return list(PARSERS[name][0](content))
    except ValueError:
        return None


@pytest.mark.parametrize("name", PARSERS)
def test_samples_are_valid(name: str) -> None:
    """The undamaged files of the tests below are valid."""
    assert values(name, PARSERS[name][1])


@pytest.mark.parametrize("name", ["udp_queues", "schedstat", "conntrack"])
def test_cut_off(name: str) -> None:
    """A truncated line counts for nothing: the values are those of the complete lines before it."""
    content = PARSERS[name][1]

    for end in range(len(content)):
        whole = content[: content.rfind(b"\n", 0, end) + 1]
        assert values(name, content[:end]) == values(name, whole)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=200)
@given(content=st.binary(max_size=300))
def test_noise(name: str, content: bytes) -> None:
    """Arbitrary bytes give values that are not negative, or a ValueError."""
    assert all(value >= 0 for value in values(name, content) or [])


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=300)
@given(data=st.data())
def test_damage(name: str, data: st.DataObject) -> None:
    """A damaged file gives values that are not negative, or a ValueError."""
    content = PARSERS[name][1]
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, len(content)))
    marks = [b"\n", b" ", b"\0", b"-1 ", b"1_0", b"\xff", b"9" * 400]
    patch = data.draw(st.binary(max_size=40) | st.sampled_from(marks))

    assert all(value >= 0 for value in values(name, content[:begin] + patch + content[end:]) or [])


@pytest.mark.parametrize(
    "name", ["conntrack", "dmi", "netclass", "os", "schedstat", "selinux", "udp_queues"]
)
def test_absent_is_nothing_to_read(machine: Machine, name: str) -> None:
    """Without /proc, /sys and /etc, as on other systems, there is nothing to read."""
    subsystem = SUBSYSTEMS[name]

    with pytest.raises(NotPresent):
        collect(subsystem(subsystem.Config(**machine({}))))
