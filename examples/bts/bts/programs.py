"""The programs that the demo starts and stops."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

#: Where Debian and Ubuntu put programs that are not on a user's PATH.
MORE_FOLDERS = "/usr/sbin:/usr/lib/rabbitmq/bin"
START_SECONDS = 120.0
STOP_SECONDS = 10.0


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


class StoppedError(Exception):
    """The demo was asked to end while it waited."""


def find(program: str) -> str | None:
    """Return the path of a program; None where it is missing."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{MORE_FOLDERS}")


def find_all(packages: dict[str, str]) -> dict[str, str]:
    """Return the path of each program in `packages` (program: Debian package).

    DemoError with the command that installs everything that is missing.
    """
    found = {program: find(program) for program in packages}
    missing = sorted(program for program, path in found.items() if path is None)
    if missing:
        install = " ".join(sorted({packages[program] for program in missing}))
        msg = f"missing: {', '.join(missing)}; install with: sudo apt-get install {install}"
        raise DemoError(msg)
    return {program: path for program, path in found.items() if path is not None}


def choose_ports(preferred: dict[str, int]) -> dict[str, int]:
    """Return the preferred port of 127.0.0.1 for each name, or a free one where something listens there."""
    with ExitStack() as bound:
        return {
            name: bound.enter_context(_bind(number)).getsockname()[1]
            for name, number in preferred.items()
        }


def _bind(number: int) -> socket.socket:
    for candidate in (number, 0):
        probe = socket.socket()
        # A port whose last connections have just been closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", candidate))
        except OSError:
            probe.close()
        else:
            return probe
    msg = "no TCP port of 127.0.0.1 is free"
    raise DemoError(msg)


def listens(number: int) -> bool:
    """Return whether something accepts connections on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", number)) == 0


def ends_with_this_process() -> list[str]:
    """Return the beginning of a command line whose process the kernel kills when this process ends.

    The shell ends at once if that happened before the kernel knew of it. The kernel takes the end of the thread that
    starts a process for it, so in threads other than the main one, which may end earlier, it is empty.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    check = f'[ $PPID = {os.getpid()} ] && exec "$@"'
    return [str(find("setpriv")), "--pdeathsig", "KILL", "sh", "-c", check, "sh"]


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
    #: When it was asked to end (time.monotonic()).
    _asked: float | None = None

    @property
    def log(self) -> Path:
        """Return the file that holds its output."""
        return self.folder / f"{self.name}.log"

    @property
    def running(self) -> bool:
        """Return whether its process has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C is for the demo, which stops the others in order.

        The kernel ends it when the demo is killed.
        """
        self._asked = None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*ends_with_this_process(), *self.argv],
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self, stopped: threading.Event) -> None:
        """Return when it listens; StoppedError as soon as `stopped` is set.

        DemoError with the end of its log where it ends or is not ready in time.
        """
        end = time.monotonic() + START_SECONDS
        while not listens(self.port):
            if not self.running or time.monotonic() > end:
                state = "did not start in time" if self.running else "has ended"
                msg = f"{self.name} {state}. The end of its log:\n{self.end_of_log(5)}"
                raise DemoError(msg)
            if stopped.wait(0.1):
                raise StoppedError

    def end_of_log(self, lines: int) -> str:
        """Return the last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def ask_to_end(self) -> None:
        """Ask it to end, and end it at once when that takes long; to be called again until it has ended."""
        if not self.running:
            return
        self.thaw()
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
            self._signal(signal.SIGTERM)
        elif now > self._asked + STOP_SECONDS:
            self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it, and return when it has ended."""
        if self.process is None:
            return
        while self.running:
            self.ask_to_end()
            try:
                self.process.wait(0.2)
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
