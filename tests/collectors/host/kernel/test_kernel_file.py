from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bts_collectors.host.kernel import kernel_file
from bts_collectors.host.kernel.files import AT_ONCE, TABLE
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.open_files import is_kernel_made
from bts_exporter import NothingToRead, TargetError

#: A file that the kernel makes up on each Linux, with other content at each read.
UPTIME = "/proc/uptime"

only_linux = pytest.mark.skipif(not Path(UPTIME).exists(), reason="no /proc")


def opened() -> set[str]:
    """Return the files that this process has open."""
    links = list(Path("/proc/self/fd").iterdir())
    return {str(link.readlink()) for link in links if link.is_symlink()}


@only_linux
def test_stays_open() -> None:
    """A file of the kernel's is opened once, and gives new content at each read."""
    file = KernelFile(UPTIME)
    first = file.read()
    assert UPTIME in opened()
    # It has two numbers, of which the second may be another before the first is.
    while float((second := file.read()).split()[0]) == float(first.split()[0]):
        pass

    assert second.endswith(b"\n")
    assert float(second.split()[0]) > float(first.split()[0])
    del file
    assert UPTIME not in opened()


@only_linux
@pytest.mark.parametrize("short", [0, TABLE])
def test_long_content(short: int) -> None:
    """Content that the kernel gives in several parts is read to its end, again and again."""
    file = KernelFile("/proc/kallsyms", short)
    whole = Path("/proc/kallsyms").read_bytes()

    assert len(whole) > 100_000
    assert [file.read() == whole for _ in range(3)] == [True, True, True]


@only_linux
@pytest.mark.parametrize(
    ("path", "short", "reads"),
    [("/proc/loadavg", AT_ONCE, 1), ("/proc/net/arp", TABLE, 1), ("/proc/loadavg", 0, 2)],
)
def test_how_often_it_is_read(
    monkeypatch: pytest.MonkeyPatch, path: str, short: int, reads: int
) -> None:
    """What is known to come whole is not asked for its end."""
    done: list[int] = []
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        done.append(offset)
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)

    assert KernelFile(path, short).read().endswith(b"\n")
    assert len(done) == reads


def test_content_of_as_much_as_one_read_gives(tmp_path: Path) -> None:
    """However much there is, all of it is read where a shorter one would be known to be whole."""
    path = tmp_path / "file"
    for size in (AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE):
        path.write_bytes(b"x" * size)

        assert KernelFile(str(path), AT_ONCE).read() == b"x" * size


def test_file_of_a_disk(tmp_path: Path) -> None:
    """A file that can be replaced is opened at each read, and closed after it."""
    path = tmp_path / "file"
    path.write_text("old\n")
    file = KernelFile(str(path))
    assert (file.read(), file.value(), file.head()) == (b"old\n", b"old", b"old\n")
    (tmp_path / "new").write_text("new\n")
    (tmp_path / "new").rename(path)

    assert (file.read(), file.value(), file.head()) == (b"new\n", b"new", b"new\n")
    assert str(path) not in opened()


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EIO, errno.ESRCH])
def test_what_is_gone_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    """When an open file has lost what it was of, that which has its path now is read."""
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
    """A file that is not there is nothing to read, and is found when it comes."""
    path = tmp_path / "file"
    file = KernelFile(str(path))
    with pytest.raises(NothingToRead, match=f"{path} is absent"):
        file.read()
    assert file.value() is None
    path.write_text("here\n")

    assert (file.read(), file.value()) == (b"here\n", b"here")


def test_unreadable(tmp_path: Path) -> None:
    """An error while reading names the file, and leaves nothing open; a value is None."""
    file = KernelFile(str(tmp_path))

    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        file.read()
    with pytest.raises(IsADirectoryError):
        file.head()
    assert file.value() is None
    assert str(tmp_path) not in opened()


def test_names_the_file(tmp_path: Path) -> None:
    """Content that makes no sense is an error that names the file; other errors pass."""
    path = tmp_path / "file"
    path.write_text("x\n")
    file = KernelFile(str(path))

    with pytest.raises(TargetError, match=f"{path}: no number"), file as content:
        raise ValueError("no number" if content == b"x\n" else "?")
    with pytest.raises(KeyError), file:
        raise KeyError


@only_linux
def test_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor whose close(2) raises is closed once: its number may be another file's by then."""
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
    """Only what is on procfs, sysfs or a cgroup file system is the kernel's own."""
    path = tmp_path / "file"
    path.touch()
    for name, expected in ((UPTIME, True), ("/sys/kernel", True), (str(path), False)):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            assert is_kernel_made(descriptor) is expected
        finally:
            os.close(descriptor)
    assert not is_kernel_made(-1)
