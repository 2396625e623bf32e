"""Damaged files give rows that are true, or an error with the path."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bts_collectors.host import SUBSYSTEMS
from bts_collectors.host.kernel.cpuinfo import parse_cpuinfo
from bts_collectors.host.subsystems import (
    cpu,
    diskstats,
    filesystem,
    loadavg,
    meminfo,
    netdev,
    procstat,
)
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]
Parser = Callable[[bytes], Iterable[Any]]

STAT = b"""\
cpu  301854 612 111922 8979004 3552 2 3944 0 44 36
cpu0 44490 19 21045 1087069 220 1 3410 0 2 1
cpu10 47869 23 16474 1110787 591 0 46 0 3 2
intr 8885917 17 0 0 0
ctxt 38014093
btime 1418183276
softirq 5057579 250191 1481983 1647 211099 186066 0 1783454 622196 12499 508444
"""
NETDEV = b"""\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1616206   14296    0    0    0     0          0         0  1616206   14296    0    0    0     0       0          0
  eth0:129776257    4488    0    0    0     0          0         0   308677    3554    0    0    0     0       0         10
"""
DISKSTATS = b"""\
   8       0 sda 25354637 34367663 1003346126 18492372 28444756 11134226 505697032 63877960 0 9653880 82621804
   8      32 sdc 126552 141 1657779 14 11822 1895 172905 1007 0 10730 17070 18851 0 125173784 11130 1555 1944
"""
MOUNTINFO = b"""\
29 1 259:2 / / rw,relatime shared:1 - ext4 /dev/dm-2 errors=remount-ro,data=ordered
48 29 260:3 / /boot\\040two ro,relatime shared:92 - ext2 /dev/sda3 rw
"""
MEMINFO = b"MemTotal:        3742148 kB\nActive(anon):    2020004 kB\nHugePages_Total:      12\n"

PARSERS: dict[str, tuple[Parser, bytes]] = {
    "cpu": (cpu.parse_times, STAT),
    "stat": (procstat.parse, STAT),
    "netdev": (netdev.parse, NETDEV),
    "diskstats": (diskstats.parse, DISKSTATS),
    "mountinfo": (lambda content: filesystem.parse(content)[0], MOUNTINFO),
    "meminfo": (meminfo.parse, MEMINFO),
    "loadavg": (loadavg.parse, b"0.21 0.37 10.39 1/719 19737\n"),
    "list": (cpu.parse_list, b"0-3,8,10-11"),
    "cpuinfo": (parse_cpuinfo, b"processor\t: 0\ncpu MHz\t: 799.998\n\nprocessor\t: 1\n"),
    "udev": (lambda content: diskstats.parse_udev(content).items(), b"E:ID_FS_TYPE=ext4\nG:x\n"),
}
#: Parsers of files whose last part may be missing.
LONG = [name for name in PARSERS if name not in {"list", "cpuinfo", "udev"}]


def rows(name: str, content: bytes) -> list[Any]:
    """Return the rows of `content` up to the first error."""
    found = []
    try:
        for row in PARSERS[name][0](content):
            found.append(row)  # noqa: PERF402  # those before an error count
    except ValueError:
        pass
    return found


@pytest.mark.parametrize("name", PARSERS)
def test_samples_are_valid(name: str) -> None:
    """The undamaged files of the tests below are valid."""
    parser, content = PARSERS[name]

    assert list(parser(content))


@pytest.mark.parametrize("name", LONG)
def test_cut_off(name: str) -> None:
    """A truncated file gives no row that the whole file does not have."""
    content = PARSERS[name][1]
    whole = rows(name, content)

    for end in range(len(content)):
        assert [row for row in rows(name, content[:end]) if row not in whole] == []


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=200)
@given(content=st.binary(max_size=300))
def test_noise(name: str, content: bytes) -> None:
    """Arbitrary bytes give rows or a ValueError."""
    rows(name, content)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=200)
@given(data=st.data())
def test_damage(name: str, data: st.DataObject) -> None:
    """A damaged file gives rows or a ValueError."""
    content = PARSERS[name][1]
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, len(content)))
    patch = data.draw(st.binary(max_size=40) | st.sampled_from([b"\n", b" ", b"\0", b"-", b"\xff"]))

    rows(name, content[:begin] + patch + content[end:])


FILES = {
    "conntrack": "proc/sys/net/netfilter/nf_conntrack_count",
    "cpu": "proc/stat",
    "diskstats": "proc/diskstats",
    "filesystem": "proc/1/mountinfo",
    "loadavg": "proc/loadavg",
    "meminfo": "proc/meminfo",
    "netdev": "proc/net/dev",
    "os": "root/etc/os-release",
    "schedstat": "proc/schedstat",
    "selinux": "sys/fs/selinux/enforce",
    "stat": "proc/stat",
    "udp_queues": "proc/net/udp",
}


@pytest.mark.parametrize("name", FILES)
def test_garbage_is_an_error(machine: Machine, name: str) -> None:
    """A file of garbage fails the collection, and the error has the path."""
    paths = machine({FILES[name]: "\udcff\0 what\n\n1 2\n" * 20})
    subsystem = SUBSYSTEMS[name]

    with pytest.raises(TargetError, match=f"{FILES[name]}: ") as caught:
        collect(subsystem(subsystem.Config(**paths)))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", FILES)
def test_unreadable_is_an_error(machine: Machine, name: str) -> None:
    """A file that cannot be read is an error with the path, unlike an absent one."""
    subsystem = SUBSYSTEMS[name]
    paths = machine({f"{FILES[name]}/below": ""})
    machine({"proc/self/mountinfo/below": ""})

    with pytest.raises(OSError, match=r"Is a directory: '.*/(proc|root|sys)/"):
        collect(subsystem(subsystem.Config(**paths)))


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"cpu"}))
def test_absent_is_nothing_to_read(machine: Machine, name: str) -> None:
    """Without /proc there is nothing to read; for `cpu` it is an error."""
    subsystem = SUBSYSTEMS[name]

    with pytest.raises(NotPresent):
        collect(subsystem(subsystem.Config(**machine({}))))
