"""A file system of ours that the kernel asks through /dev/fuse, and that hangs when it is frozen.

Only this process sees it: it is mounted in a mount namespace that ends with its process.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Process

_CLONE_NEWNS = 0x20000
_MNT_DETACH = 2
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_STATFS, _INIT = 17, 26
_ENOSYS = 38

REQUEST = struct.Struct("=IIQQIII4x")
REPLY = struct.Struct("=IiQ")
#: Version 7.31, of which requests of 4 KiB at most, and nothing else, are taken.
INIT_REPLY = struct.pack("=IIIIHHII9I", 7, 31, 0, 0, 1, 1, 4096, 1, *[0] * 9)

#: What statvfs says of it.
BLOCKS, FREE, AVAILABLE, FILES, FILES_FREE, UNIT = 1000, 600, 500, 40, 30, 4096
_STATFS_REPLY = struct.pack(
    "=5Q4I24x", BLOCKS, FREE, AVAILABLE, FILES, FILES_FREE, UNIT, 255, UNIT, 0
)


class Fuse(Process):
    """A file system in a mount namespace of its own."""

    def __init__(self, folder: Path) -> None:
        self.point = folder / "mounted"
        self.point.mkdir()
        super().__init__(
            [sys.executable, __file__, str(self.point)],
            folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        self.ready(lambda: "INIT" in self.log.read_text())
        #: The root folder as the server sees it.
        self.root = f"/proc/{self.popen.pid}/root"

    def mountinfo(self) -> str:
        """Return the lines of the file system and, behind it, of the root from the server's mountinfo."""
        content = Path(f"/proc/{self.popen.pid}/mountinfo").read_text(encoding="utf-8")
        lines = {line.split()[4]: line for line in content.splitlines(keepends=True)}
        return lines[str(self.point)] + lines["/"]


@pytest.fixture
def fuse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuse]:
    """Give a file system that answers, and can be frozen; skipped where we may not mount one."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is absent, or not for us: modprobe fuse, and be root")
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    folder = tmp_path_factory.mktemp("fuse")
    server = Fuse(folder)
    yield server
    server.kill()


def mount(point: str) -> int:
    """Mount our file system for this process only, and return the descriptor that takes the replies."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS))
    _check(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    _check(libc.mount(b"bts-test", point.encode(), b"fuse", ctypes.c_ulong(0), options))
    return device


def unmount(point: str) -> None:
    """Take the file system away, whether or not it is in use."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.umount2(point.encode(), _MNT_DETACH))


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _serve(device: int) -> None:
    """Answer what statvfs takes, and that nothing else can be done."""
    known = {_INIT: INIT_REPLY, _STATFS: _STATFS_REPLY}
    while True:
        request = os.read(device, 1 << 16)
        _, opcode, unique, *_ = REQUEST.unpack_from(request)
        body = known.get(opcode, b"")
        error = 0 if opcode in known else -_ENOSYS
        os.write(device, REPLY.pack(REPLY.size + len(body), error, unique) + body)
        print({_INIT: "INIT", _STATFS: "STATFS"}.get(opcode, opcode), flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve(mount(sys.argv[1]))
