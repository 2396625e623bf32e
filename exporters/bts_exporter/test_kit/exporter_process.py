"""bts-exporter as a process that serves the settings of a test."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess  # noqa: TID251  # it is what tests of a complete exporter need
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bts_exporter.test_kit.samples import Page

_SECONDS = 30.0


class ExporterProcess:
    """An exporter on a free port of the loopback address; its output is in `log`."""

    def __init__(
        self,
        folder: Path,
        settings: str | dict[str, Any],
        *flags: str,
        enter: Sequence[str] = (),
    ) -> None:
        """Start it in `folder` with the text of config.yaml, or with the map of its collectors.

        `enter` is what the command line begins with, such as nsenter and its arguments.
        """
        self.config = folder / "config.yaml"
        text = settings if isinstance(settings, str) else json.dumps({"collectors": settings})
        self.config.write_text(text, encoding="utf-8")
        self.log = folder / "out.log"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._argv = [
            *enter,
            sys.executable,
            "-m",
            "bts_exporter",
            f"--config.file={self.config}",
            f"--web.listen-address={self.address}",
            *flags,
        ]
        self.popen = self._started()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def get(
        self, path: str, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, str]:
        """Return status and text of the response to one request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_SECONDS)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def page(self, path: str = "/metrics") -> Page:
        """Return the page of one scrape."""
        status, text = self.get(path)
        if status != 200:  # noqa: PLR2004  # OK
            msg = f"{path}: status {status}: {text}"
            raise AssertionError(msg)
        return Page(text)

    def wait_for(
        self, condition: Callable[[], object], what: str, seconds: float = _SECONDS
    ) -> None:
        """Return as soon as `condition` holds; AssertionError that names `what`, with the log, if it does not in time."""
        end = time.monotonic() + seconds
        while not condition():
            if self.popen.poll() is not None:
                self._fail(f"the exporter ended with code {self.popen.returncode}")
            if time.monotonic() > end:
                self._fail(f"not within {seconds:g} s: {what}")
            time.sleep(0.02)

    def reload(self) -> None:
        """Have it load the settings and plug-ins again, without waiting for the result."""
        self.popen.send_signal(signal.SIGHUP)

    def restart(self) -> None:
        """End it, and start it again with the same settings and address."""
        self.kill()
        self.popen = self._started()

    def kill(self) -> None:
        """End the process at once."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(  # noqa: S603  # our own program
                self._argv,
                cwd=self.config.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_for(self._serves, "the exporter responds")
        return self.popen

    def _serves(self) -> bool:
        """Return whether it responds; it listens before it has loaded its settings."""
        if any(flag.startswith("--web.config.file") for flag in self._argv):  # it may expect TLS
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        try:
            self.get("/-/healthy")
        except (OSError, HTTPException):
            return False
        return True

    def _fail(self, message: str) -> None:
        self.kill()
        msg = f"{message}\n{self.log.read_text(errors='replace')[-3000:]}"
        raise AssertionError(msg)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on.

    It is below those that Linux gives to outgoing connections, and drawn at random: until the server listens,
    neither a client nor another test takes it.
    """
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311  # not a secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
