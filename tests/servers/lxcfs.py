"""Files that a FUSE server makes up, as lxcfs does for /proc of a container, and that die with it.

As with lxcfs a file may be read as far as it was long when it was opened, and 512 bytes more.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Process, wait_until
from servers.fuse import INIT_REPLY, REPLY, REQUEST, mount, unmount

_INIT, _LOOKUP, _GETATTR, _OPEN, _READ, _STATFS = 26, 1, 3, 14, 15, 17
#: What needs no answer: forget, interrupt and batch_forget.
_SILENT = {2, 36, 42}
#: release and flush
_CLOSING = {18, 25}
_ENOENT, _ENOSYS = 2, 38
_DIRECT_IO = 1
_RESERVE = 512

_ATTRIBUTES = struct.Struct("=6Q10I")
_READ_IN = struct.Struct("=QQI")


class Lxcfs(Process):
    """A FUSE server whose files are those of the folder `source`, as they are at the moment of a read."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.source.mkdir()
        #: Where its files are in its mount namespace.
        self.point = folder / "mounted"
        self.point.mkdir()
        super().__init__(
            [sys.executable, __file__, str(self.source), str(self.point)],
            folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        self.ready(lambda: self._mounts() == 1)
        #: Where its files are seen from outside its mount namespace.
        self.root = f"/proc/{self.popen.pid}/root{self.point}"

    def end(self) -> None:
        """End the server; the mount stays, and every file of it is dead."""
        self.popen.send_signal(signal.SIGUSR1)
        wait_until(lambda: "ended" in self.log.read_text(), "the server has ended")

    def start_again(self) -> None:
        """Start another server at the same place."""
        before = self._mounts()
        self.popen.send_signal(signal.SIGUSR2)
        wait_until(lambda: self._mounts() > before, "the server has started again")

    def _mounts(self) -> int:
        return self.log.read_text().count("INIT")


@pytest.fixture
def lxcfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lxcfs]:
    """Give a server of files; skipped where we may not mount one."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is absent, or not for us: modprobe fuse, and be root")
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    server = Lxcfs(tmp_path_factory.mktemp("lxcfs"))
    yield server
    server.kill()


def _attributes(node: int) -> bytes:
    mode = 0o040755 if node == 1 else 0o100444
    return _ATTRIBUTES.pack(node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


class _Server:
    """The answers to the kernel's requests."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._names: list[str] = []
        #: How long each opened file was.
        self._sizes: list[int] = []

    def serve(self, device: int) -> None:
        """Answer until the device is closed."""
        while True:
            request = os.read(device, 1 << 16)
            _, opcode, unique, node, *_ = REQUEST.unpack_from(request)
            if opcode in _SILENT:
                continue
            error, body = self._answer(opcode, node, request[REQUEST.size :])
            os.write(device, REPLY.pack(REPLY.size + len(body), error, unique) + body)
            if opcode == _INIT:
                print("INIT", flush=True)  # noqa: T201

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if opcode == _INIT:
            return 0, INIT_REPLY
        if opcode == _LOOKUP:
            return self._look_up(body.rstrip(b"\0").decode())
        if opcode == _GETATTR:
            return 0, struct.pack("=QII", 0, 0, 0) + _attributes(node)
        if opcode == _OPEN:
            self._sizes.append(len(self._content(node)))
            return 0, struct.pack("=QII", len(self._sizes) - 1, _DIRECT_IO, 0)
        if opcode == _READ:
            file, offset, size = _READ_IN.unpack_from(body)
            end = min(offset + size, self._sizes[file] + _RESERVE)
            content = self._content(node)
            return 0, content[offset:end] if len(content) <= self._sizes[file] + _RESERVE else b""
        if opcode == _STATFS:
            return 0, bytes(80)
        return (0 if opcode in _CLOSING else -_ENOSYS), b""

    def _look_up(self, name: str) -> tuple[int, bytes]:
        if not (self._source / name).is_file():
            return -_ENOENT, b""
        if name not in self._names:
            self._names.append(name)
        node = self._names.index(name) + 2
        return 0, struct.pack("=4QII", node, 0, 0, 0, 0, 0) + _attributes(node)

    def _content(self, node: int) -> bytes:
        return (self._source / self._names[node - 2]).read_bytes()


def _run(source: str, point: str) -> None:
    """Serve at `point`, until SIGUSR1 ends the server and SIGUSR2 starts another one."""
    signals = {signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    while True:
        device = mount(point)
        child = os.fork()
        if child == 0:
            _Server(Path(source)).serve(device)
        os.close(device)
        signal.sigwait({signal.SIGUSR1})
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print("ended", flush=True)  # noqa: T201
        signal.sigwait({signal.SIGUSR2})
        unmount(point)


if __name__ == "__main__":
    _run(*sys.argv[1:])
