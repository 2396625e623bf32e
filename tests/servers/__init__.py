"""Real servers for tests: each on free loopback ports, with a folder of its own, ended by its process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bts.programs import ends_with_this_process
from bts_exporter.test_kit.exporter_process import free_port as free_port


def need(program: str, package: str) -> str:
    """Return the path of `program`; where it is missing the test is skipped, in CI it fails."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/lib/rabbitmq/bin")
    if path is None:
        message = f"{program} is missing: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Return as soon as `condition` holds; AssertionError naming `what` when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            msg = f"not within {seconds:g} s: {what}"
            raise AssertionError(msg)
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Return whether something accepts connections on `port` of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A server process of our own: its output is kept in `log`, and it ends when the test ends, or the test run is killed."""

    def __init__(
        self, argv: Sequence[str], folder: Path, env: dict[str, str] | None = None
    ) -> None:
        self.log = folder / "out.log"
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                [*ends_with_this_process(), *argv],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ready(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until `condition` holds; the log is in the error when it does not."""
        try:
            wait_until(
                lambda: self.popen.poll() is not None or condition(), "server ready", seconds
            )
            assert self.popen.poll() is None, "the server ended"
        except AssertionError as error:
            self.kill()
            error.add_note(self.log.read_text(errors="replace")[-3000:])
            raise

    def freeze(self) -> None:
        """Stop the process where it is: its sockets stay open and nothing answers."""
        self.popen.send_signal(signal.SIGSTOP)
        # Until the signal has reached all of its threads, they answer.
        os.waitid(os.P_PID, self.popen.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self.popen.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once: what it holds is thrown away anyway."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
