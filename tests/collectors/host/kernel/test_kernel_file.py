from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bts_collectors.host.kernel import kernel_file
from bts_collectors.host.kernel.files import SHORT_RECORDS, SINGLE_RECORD
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.open_files import is_kernel_made
from bts_exporter import NotPresent, TargetError

#: A file that the kernel generates on every Linux, with new content in each read.
UPTIME = "/proc/uptime"

only_linux = pytest.mark.skipif(not Path(UPTIME).exists(), reason="no /proc")


def opened() -> set[str]:
    """Return the files that this process has open."""
    links = list(Path("/proc/self/fd").iterdir())
    return {str(link.readlink()) for link in links if link.is_symlink()}


@only_linux
def test_stays_open() -> None:
    """A kernel file is opened once, and each read returns new content."""
    file = KernelFile(UPTIME)
    first = file.read()
    assert UPTIME in opened()
    # The second of its two numbers may change before the first does.
    while float((second := file.read()).split()[0]) == float(first.split()[0]):
        pass

    assert second.endswith(b"\n")
    assert float(second.split()[0]) > float(first.split()[0])
    del file
    assert UPTIME not in opened()


@only_linux
@pytest.mark.parametrize("short", [0, SHORT_RECORDS])
def test_long_content(short: int) -> None:
    """Content that needs several reads is complete, each time."""
    file = KernelFile("/proc/kallsyms", short)
    whole = Path("/proc/kallsyms").read_bytes()

    assert len(whole) > 100_000
    assert [file.read() == whole for _ in range(3)] == [True, True, True]


@only_linux
@pytest.mark.parametrize(
    ("path", "short", "reads"),
    [
        ("/proc/loadavg", SINGLE_RECORD, 1),
        ("/proc/net/arp", SHORT_RECORDS, 1),
        ("/proc/loadavg", 0, 2),
    ],
)
def test_number_of_reads(
    monkeypatch: pytest.MonkeyPatch, path: str, short: int, reads: int
) -> None:
    """A file that is known to be complete after one read is not read to its end."""
    done: list[int] = []
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        done.append(offset)
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)

    assert KernelFile(path, short).read().endswith(b"\n")
    assert len(done) == reads


def test_content_as_long_as_one_read(tmp_path: Path) -> None:
    """A file as long as one read is read to its end."""
    path = tmp_path / "file"
    for size in (SINGLE_RECORD - 1, SINGLE_RECORD, SINGLE_RECORD + 1, 3 * SINGLE_RECORD):
        path.write_bytes(b"x" * size)

        assert KernelFile(str(path), SINGLE_RECORD).read() == b"x" * size


def test_file_on_a_disk(tmp_path: Path) -> None:
    """A file on a disk, which can be replaced, is opened and closed in each read."""
    path = tmp_path / "file"
    path.write_text("old\n")
    file = KernelFile(str(path))
    assert (file.read(), file.value(), file.head()) == (b"old\n", b"old", b"old\n")
    (tmp_path / "new").write_text("new\n")
    (tmp_path / "new").rename(path)

    assert (file.read(), file.value(), file.head()) == (b"new\n", b"new", b"new\n")
    assert str(path) not in opened()


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EIO, errno.ESRCH])
def test_replaced_device_is_opened_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    """If the device or process of an open file is gone, the file that has its path now is read."""
    path = tmp_path / "file"
    path.write_text("old\n")
    monkeypatch.setattr(kernel_file, "is_kernel_made", lambda _: True)
    file = KernelFile(str(path))
    file.read()
    dead = os.open(path, os.O_RDONLY)
    path.unlink()
    path.write_text("new\n")
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == os.fstat(dead).st_ino:
            raise OSError(code, os.strerror(code))
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    try:
        assert (file.read(), file.value()) == (b"new\n", b"new")
    finally:
        os.close(dead)


def test_absent(tmp_path: Path) -> None:
    """A missing file raises NotPresent, and is read once it exists."""
    path = tmp_path / "file"
    file = KernelFile(str(path))
    with pytest.raises(NotPresent, match=f"{path} is absent"):
        file.read()
    assert file.value() is None
    path.write_text("here\n")

    assert (file.read(), file.value()) == (b"here\n", b"here")


def test_unreadable(tmp_path: Path) -> None:
    """A read error has the path and leaves no file open; `value` returns None."""
    file = KernelFile(str(tmp_path))

    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        file.read()
    with pytest.raises(IsADirectoryError):
        file.head()
    assert file.value() is None
    assert str(tmp_path) not in opened()


def test_names_the_file(tmp_path: Path) -> None:
    """A ValueError becomes an error with the path; other errors propagate."""
    path = tmp_path / "file"
    path.write_text("x\n")
    file = KernelFile(str(path))

    with pytest.raises(TargetError, match=f"{path}: no number"), file as content:
        raise ValueError("no number" if content == b"x\n" else "?")
    with pytest.raises(KeyError), file:
        raise KeyError


@only_linux
def test_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor is closed once even if close(2) fails: its number may belong to another file by then."""
    closed: list[int] = []
    real = os.close

    def close(descriptor: int) -> None:
        closed.append(descriptor)
        real(descriptor)
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    file = KernelFile(UPTIME)
    file.read()
    monkeypatch.setattr(os, "close", close)
    file.close()
    file.close()
    del file

    assert len(closed) == 1


@only_linux
def test_other_file_system(tmp_path: Path) -> None:
    """Only files on procfs, sysfs and cgroup file systems count as generated by the kernel."""
    path = tmp_path / "file"
    path.touch()
    for name, expected in ((UPTIME, True), ("/sys/kernel", True), (str(path), False)):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            assert is_kernel_made(descriptor) is expected
        finally:
            os.close(descriptor)
    assert not is_kernel_made(-1)
