from __future__ import annotations

from pathlib import Path

import pytest

from bts_collectors.host.kernel.devices import devices, parse_integer, read_integer
from bts_exporter import NotPresent


def test_devices(tmp_path: Path) -> None:
    """Entries named by the prefix and a number are devices; other entries are not."""
    for name in ("mc1", "mc0", "mcx", "mc", "power"):
        (tmp_path / name).mkdir()

    assert devices(str(tmp_path), "mc") == ["mc0", "mc1"]
    assert devices(str(tmp_path)) == ["mc", "mc0", "mc1", "mcx", "power"]


@pytest.mark.parametrize("folder", ["absent", "empty", "file"])
def test_no_devices(tmp_path: Path, folder: str) -> None:
    """A directory that is absent, empty or not a directory raises NotPresent with its path."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    with pytest.raises(NotPresent, match=f"/{folder} is absent, or has no devices"):
        devices(str(tmp_path / folder))


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (b"0", 0),
        (b"-12", -12),
        (b"18446744073709551614", 2**64 - 2),
        (b"", None),
        (None, None),
        (b"-", None),
        (b"--1", None),
        (b"1_0", None),
        (b"1.5", None),
        (b"0x10", None),
        (b"9" * 5000, None),
    ],
)
def test_integers(raw: bytes | None, number: int | None) -> None:
    """A value that is not a 64-bit number gives None."""
    assert parse_integer(raw) == number


def test_file(tmp_path: Path) -> None:
    """A file may have a negative number, or be absent."""
    (tmp_path / "temp").write_text("-5\n")

    assert read_integer(str(tmp_path / "temp")) == -5
    assert read_integer(str(tmp_path / "absent")) is None
