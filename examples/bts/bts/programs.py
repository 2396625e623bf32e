"""The programs that the demo starts and stops."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

#: Where Debian and Ubuntu put programs that are not on a user's PATH.
MORE_FOLDERS = "/usr/sbin:/usr/lib/rabbitmq/bin"
START_SECONDS = 120.0
STOP_SECONDS = 10.0


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


def find(program: str, package: str) -> str:
    """Return the path of a program; DemoError with the command that installs it where it is missing."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{MORE_FOLDERS}")
    if path is None:
        msg = f"{program} is missing; install it with: sudo apt-get install {package}"
        raise DemoError(msg)
    return path


def port(preferred: int) -> int:
    """Return `preferred` if nothing listens there on 127.0.0.1, else a free port."""
    for candidate in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    msg = "no TCP port of 127.0.0.1 is free"
    raise DemoError(msg)


def listens(number: int) -> bool:
    """Return whether something accepts connections on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", number)) == 0


@dataclass(slots=True)
class Program:
    """A program, and the process that runs it while it is started."""

    name: str
    argv: list[str]
    folder: Path
    #: The port of 127.0.0.1 on which it is ready.
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    frozen: bool = False

    @property
    def log(self) -> Path:
        """Return the file that holds its output."""
        return self.folder / f"{self.name}.log"

    @property
    def running(self) -> bool:
        """Return whether its process has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C is for the demo, which stops the others in order."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Return when it listens; DemoError with the end of its log where it does not."""
        end = time.monotonic() + START_SECONDS
        while not listens(self.port):
            if not self.running or time.monotonic() > end:
                state = "did not start in time" if self.running else "ended"
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
                msg = f"{self.name} {state}:\n{tail}"
                raise DemoError(msg)
            time.sleep(0.1)

    def stop(self) -> None:
        """End it: politely, then at once. A frozen process is thawed so that it can hear of it."""
        if self.process is None:
            return
        self.thaw()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.running:
                self._signal(number)
                try:
                    self.process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        # What it started and left behind.
        self._signal(signal.SIGKILL)
        self.process = None

    def freeze(self) -> None:
        """Stop it where it is: its connections stay open and nothing answers."""
        if self.running and not self.frozen:
            self._signal(signal.SIGSTOP)
            self.frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        if self.frozen:
            self._signal(signal.SIGCONT)
            self.frozen = False

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return
