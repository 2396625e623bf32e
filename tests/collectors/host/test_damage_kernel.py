"""Damaged files of subsystems with one file: samples, or an error with the path."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bts_collectors.host import SUBSYSTEMS
from bts_exporter import NotPresent, Scrape, TargetError

#: The file of a subsystem, and valid content.
FILES: dict[str, tuple[str, bytes]] = {
    "vmstat": ("proc/vmstat", b"nr_free_pages 977\npgpgin 1234\noom_kill 1\n"),
    "netstat": (
        "proc/net/netstat",
        (
            b"TcpExt: SyncookiesSent PruneCalled ListenDrops\nTcpExt: 11 22 33\n"
            b"IpExt: InNoRoutes InOctets\nIpExt: 55 66\n"
        ),
    ),
    "snmp6": ("proc/net/snmp6", b"Ip6InOctets                     \t1415\nIcmp6InMsgs \t17\n"),
    "pressure": (
        "proc/pressure/io",
        (
            b"some avg10=0.10 avg60=2.00 avg300=3.85 total=15000\n"
            b"full avg10=0.20 avg60=3.00 avg300=4.95 total=25000\n"
        ),
    ),
    "sockstat": (
        "proc/net/sockstat",
        b"sockets: used 229\nTCP: inuse 41 orphan 0 tw 52 alloc 17 mem 23\n",
    ),
    "softnet": (
        "proc/net/softnet_stat",
        b"0000000a " * 12 + b"00000000\n" + b"0000002b " * 13 + b"\n",
    ),
    "filefd": ("proc/sys/fs/file-nr", b"1024\t0\t922337\n"),
    "entropy": ("proc/sys/kernel/random/entropy_avail", b"256\n"),
    "kernel_hung": ("proc/sys/kernel/hung_task_detect_count", b"12\n"),
    "arp": (
        "proc/net/arp",
        (
            b"IP address  HW type  Flags  HW address  Mask  Device\n"
            b"192.168.1.1  0x1  0x2  cc:aa:dd:ee:aa:bb  *  eth0\n"
            b"192.168.1.2  0x1  0x2  cc:aa:dd:ee:aa:bc  *  eth1\n"
        ),
    ),
    "processes": ("proc/sys/kernel/pid_max", b"4194304\n"),
}
#: Subsystems whose module has another name.
SUBSYSTEM = {"snmp6": "netstat"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Give a directory that the examples write their files to, one after another."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def samples(folder: Path, name: str, content: bytes) -> set[tuple[str, tuple[str, ...], float]]:
    """Return the samples of a subsystem whose file has `content`; its error must have the path."""
    file = FILES[name][0]
    path = folder / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if name == "snmp6":  # the tables are needed, too
        path.with_name("snmp").write_bytes(b"Tcp: X\nTcp: 1\n")
    kind = SUBSYSTEMS[SUBSYSTEM.get(name, name)]
    scrape = Scrape(monotonic() + 60)
    try:
        kind(kind.Config(procfs=str(folder / name / "proc"))).collect(scrape)
    except TargetError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017  # samples before it count
        assert len(str(error)) < 300  # noqa: PT017
    except NotPresent:
        pass  # another file, which does not exist here
    return {
        (metric.name, labels, value)
        for metric, values in scrape.samples.items()
        for labels, value in values.items()
    }


@pytest.mark.parametrize("name", FILES)
def test_samples_are_valid(folder: Path, name: str) -> None:
    """The undamaged files of the tests below give samples."""
    assert samples(folder, name, FILES[name][1])


@pytest.mark.parametrize("name", FILES)
def test_cut_off(folder: Path, name: str) -> None:
    """A truncated file gives no sample that the whole file does not give."""
    content = FILES[name][1]
    whole = samples(folder, name, content)

    # In a truncated table the remaining rows are counted.
    fewer = {("node_arp_entries", ("eth0",), 1), ("node_arp_entries", ("eth1",), 1)}
    for end in range(len(content)):
        assert samples(folder, name, content[:end]) <= whole | fewer


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=100)
@given(content=st.binary(max_size=300))
def test_noise(folder: Path, name: str, content: bytes) -> None:
    """Arbitrary bytes give samples, or an error with the path."""
    samples(folder, name, content)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=200)
@given(data=st.data())
def test_damage(folder: Path, name: str, data: st.DataObject) -> None:
    """A damaged file gives samples, or an error with the path."""
    content = FILES[name][1]
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, len(content)))
    patch = data.draw(
        st.binary(max_size=40)
        | st.sampled_from([b"\n", b" ", b"\t", b"\0", b"-", b"\xff", b"9" * 30, b"9" * 5000])
    )

    samples(folder, name, content[:begin] + patch + content[end:])
