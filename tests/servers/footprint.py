"""What a process uses: threads, file descriptors, memory; and a scraper that it has to serve meanwhile."""

from __future__ import annotations

import threading
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from servers import wait_until
from servers.exporter import Exporter

#: The scrape timeout of the well-behaved scraper, in seconds: Prometheus' default.
SCRAPE_TIMEOUT = 10


class Footprint(NamedTuple):
    """Threads, open file descriptors and resident memory in MB.

    Files of /proc and /sys do not count: as many are kept open as the machine has processes.
    """

    threads: int
    files: int
    megabytes: float

    @classmethod
    def of(cls, process: Exporter) -> Self:
        """Measure it now."""
        folder = Path(f"/proc/{process.popen.pid}")
        resident = int((folder / "statm").read_text().split()[1]) * 4096 / 1e6
        files = [link for fd in (folder / "fd").iterdir() if (link := _target(fd))]
        kernel = ("/proc/", "/sys/")
        others = [link for link in files if not link.startswith(kernel)]
        return cls(len(list((folder / "task").iterdir())), len(others), resident)


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # closed meanwhile
        return ""


def settled(process: Exporter, scrapes: int = 30) -> Footprint:
    """Return the footprint after some scrapes, which open the files that are kept."""
    for _ in range(scrapes):
        assert process.get("/metrics")[0] == 200
    wait_until(
        lambda: process.value("bts_exporter_http_open_connections") == 1, "connections are closed"
    )
    return min(Footprint.of(process) for _ in range(5))  # the last thread may not have ended


def returns_to(process: Exporter, before: Footprint, margin: float) -> None:
    """Wait until there are no more threads and files than before, and at most `margin` MB more memory."""

    def has_returned() -> bool:
        now = Footprint.of(process)
        return now.threads <= before.threads and now.files <= before.files

    try:
        wait_until(has_returned, f"threads and files as before: {before}")
    except AssertionError as error:
        error.add_note(f"now: {Footprint.of(process)}")
        raise
    after = Footprint.of(process)
    assert after.megabytes <= before.megabytes + margin, (before, after)


class Scraper:
    """A well-behaved scraper: one request after the other, each with Prometheus' timeout."""

    def __init__(self, process: Exporter, path: str = "/metrics") -> None:
        self._process = process
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[object] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def failures(self) -> list[object]:
        """Return what was not a complete page within the timeout."""
        return [answer for answer in self.answers if answer != 200]

    def served(self, count: int) -> None:
        """Wait for `count` more answers."""
        wanted = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= wanted, f"{count} answers", seconds=60)

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self.answers.append(self._scrape())

    def _scrape(self) -> object:
        connection = HTTPConnection("127.0.0.1", self._process.port, timeout=SCRAPE_TIMEOUT)
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": str(SCRAPE_TIMEOUT)}
        try:
            connection.request("GET", self._path, headers=headers)
            response = connection.getresponse()
            response.read()
        except (OSError, HTTPException) as error:
            return error
        finally:
            with suppress(OSError):
                connection.close()
        return response.status
