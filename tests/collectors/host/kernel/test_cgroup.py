from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bts_collectors.host.kernel.cgroup import (
    parse_blkio,
    parse_io,
    parse_limit,
    parse_limit_v1,
    parse_pairs,
)
from bts_collectors.host.kernel.pressure import parse_pressure

Parser = Callable[[bytes], Iterator[tuple[bytes, float]]]

IO = b"8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252 dbytes=50331648 dios=3021\n"
BLKIO = (
    b"8:0 Read 100\n8:0 Write 20\n8:0 Sync 1\n8:0 Total 120\n8:16 Read 1\n8:16 Write 2\nTotal 123\n"
)
PRESSURE = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=25\n"
PAIRS = b"usage_usec 15\nuser_usec 10\nsystem_usec 5\n"

PARSERS: dict[str, tuple[Parser, bytes]] = {
    "io": (parse_io, IO),
    "blkio": (parse_blkio, BLKIO),
    "pressure": (parse_pressure, PRESSURE),
    "pairs": (parse_pairs, PAIRS),
    "limit": (parse_limit, b"1048576\n"),
    "limit_v1": (parse_limit_v1, b"1048576\n"),
}


def test_io() -> None:
    """Values are summed over devices."""
    assert dict(parse_io(IO)) == {
        b"rbytes": 1459200 + 90430464,
        b"wbytes": 314773504 + 299008000,
        b"rios": 192 + 8950,
        b"wios": 353 + 1252,
    }


def test_io_of_devices_without_numbers() -> None:
    """A device without numbers, on the next device's line or on its own, adds nothing."""
    found = dict(parse_io(b"8:16 8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:0 \n"))

    assert found == {b"rbytes": 1, b"wbytes": 2, b"rios": 3, b"wios": 4}


def test_no_io_yet() -> None:
    """A cgroup without any I/O has 0 for each value: the kernel lists no devices."""
    assert set(dict(parse_io(b"")).values()) == {0}
    assert set(dict(parse_blkio(b"Total 0\n")).values()) == {0}


def test_blkio() -> None:
    """Values are summed over devices, without totals and other operations."""
    assert dict(parse_blkio(BLKIO)) == {b"Read": 101, b"Write": 22}


def test_pressure() -> None:
    """Microseconds are converted to seconds."""
    assert dict(parse_pressure(PRESSURE)) == {b"some": 1.5, b"full": 25e-6}


def test_pairs() -> None:
    """Each line is a key and a number."""
    assert dict(parse_pairs(PAIRS)) == {b"usage_usec": 15, b"user_usec": 10, b"system_usec": 5}


@pytest.mark.parametrize(
    ("parse", "content", "limit"),
    [
        (parse_limit, b"0\n", 0),
        (parse_limit, b"1048576\n", 1048576),
        (parse_limit, b"max\n", float("inf")),
        (parse_limit_v1, b"1048576\n", 1048576),
        (parse_limit_v1, b"9223372036854771712\n", float("inf")),
        (parse_limit_v1, b"9223372036854710272\n", float("inf")),  # pages of 64 KiB
        (parse_limit_v1, b"9223372036854775807\n", float("inf")),
    ],
)
def test_limit(parse: Parser, content: bytes, limit: float) -> None:
    """No limit is infinity, in both versions."""
    assert dict(parse(content)) == {b"": limit}


@pytest.mark.parametrize(
    ("parse", "content"),
    [
        (parse_limit, b""),
        (parse_limit, b"1048"),
        (parse_limit, b"max"),
        (parse_limit, b"-1\n"),
        (parse_limit, b"1\n2\n"),
        (parse_pairs, b"oom_kill many\n"),
        (parse_pairs, b"oom_kill\n"),
        (parse_io, b"8:0 rbytes=x\n"),
        (parse_io, b"8:0 rbytes\n"),
        (parse_io, b"8:0 rbytes=1\n8:16 rbytes=22"),
        (parse_blkio, b"8:0 Read 1\n8:0 Write 22"),
        (parse_pairs, b"oom 1\noom_kill 22"),
        (parse_blkio, b"8:0 Read x\n"),
        (parse_blkio, b"\n"),
        (parse_pressure, b""),
    ],
)
def test_unreadable(parse: Parser, content: bytes) -> None:
    """Content that is not a number, or may be truncated, raises ValueError."""
    with pytest.raises(ValueError, match=r"unexpected content|is empty"):
        list(parse(content))


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=200)
@given(data=st.data())
def test_damage(name: str, data: st.DataObject) -> None:
    """A damaged file gives numbers that are not negative, or a ValueError."""
    parse, content = PARSERS[name]
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, len(content)))
    patch = data.draw(st.binary(max_size=40) | st.sampled_from([b"\n", b" ", b"-", b"9" * 5000]))

    try:
        found = dict(parse(content[:begin] + patch + content[end:]))
    except ValueError:
        return
    assert all(value >= 0 for value in found.values())
