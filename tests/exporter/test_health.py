"""Health and watchdog: whether scrapes can make progress, not just whether the process runs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from bts_exporter.exposition.formats import Format
from bts_exporter.page_service import Exporter
from servers import wait_until
from servers.exporter import StartExporter
from stubs import Hang, LocalStub, Stub, collectors, drop_in

#: Puts the engine into a state in which no scrape ends, as an internal error could.
DEADLOCK = """\
import gc
from pathlib import Path
from bts_exporter import Collector, CollectorConfig, gauge, page_service

class Deadlock(Collector):
    class Config(CollectorConfig):
        flag: str
    value = gauge("deadlock_value", "A value.")
    done = False
    def collect(self, scrape):
        page_service._OVERDUE = 0.2
        scrape.emit(self.value, 1)
        if Path(self.config.flag).exists() and not self.done:
            self.done = True
            for found in gc.get_objects():
                if isinstance(found, page_service.Exporter):
                    found._rendering.acquire()
"""
#: Hangs in the shared thread while a file exists.
HANGS = """\
import time
from pathlib import Path
from bts_exporter import Collector, CollectorConfig, gauge

class Hangs(Collector):
    class Config(CollectorConfig):
        flag: str
    local = True
    value = gauge("hangs_value", "A value.")
    def collect(self, scrape):
        scrape.emit(self.value, 1)
        while Path(self.config.flag).exists():
            time.sleep(0.01)
"""
#: Closes every listening socket of the process once a file is there.
CLOSES = """\
import os, socket
from pathlib import Path
from bts_exporter import Collector, CollectorConfig, gauge

class Closes(Collector):
    class Config(CollectorConfig):
        flag: str
    value = gauge("closes_value", "A value.")
    def collect(self, scrape):
        scrape.emit(self.value, 1)
        if not Path(self.config.flag).exists():
            return
        for name in os.listdir("/proc/self/fd"):
            try:
                sock = socket.socket(fileno=os.dup(int(name)))
                listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                sock.close()
                if listens:
                    os.close(int(name))
            except OSError:
                pass
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return the socket of a service manager whose watchdog has to be fed twenty times a second."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        yield sock


def hears(manager: socket.socket, seconds: float) -> bool:
    """Return whether the manager gets a notification within `seconds`."""
    manager.settimeout(seconds)
    try:
        return manager.recv(4096) != b""
    except TimeoutError:
        return False


def discard(manager: socket.socket) -> None:
    """Discard the notifications so far."""
    while hears(manager, 0.001):
        pass


def test_scrapes_that_never_end(
    exporter: StartExporter, manager: socket.socket, tmp_path: Path
) -> None:
    """If no scrape can end, /-/healthy is 503 with the reason, and the watchdog is not fed."""
    drop_in(tmp_path / "plugins", "deadlock", DEADLOCK)
    flag = tmp_path / "flag"
    block = f"collectors: {{deadlock: {{flag: {flag}}}}}"
    server = exporter(f"plugins: {tmp_path}/plugins\nscrape_timeout: 1s\n{block}")
    assert server.get("/metrics")[0] == 200
    assert server.get("/-/healthy") == (200, "bts-exporter is healthy.\n")
    assert hears(manager, 20)
    flag.touch()

    def scrape() -> None:
        with suppress(OSError, HTTPException):  # the test ends before it does
            server.get("/metrics")

    threading.Thread(target=scrape, daemon=True).start()
    wait_until(lambda: server.get("/-/healthy")[0] == 503, "it is not healthy")
    text = server.get("/-/healthy")[1]
    discard(manager)

    assert text.startswith("bts-exporter is not healthy: a scrape that had to end ")
    assert not hears(manager, 2)
    wait_until(
        lambda: "scrapes cannot be answered" in server.log.read_text(), "the line in the log"
    )


def test_listening_socket_that_a_plugin_closed(
    exporter: StartExporter, manager: socket.socket, tmp_path: Path
) -> None:
    """A process that can accept no connection any more does not feed the watchdog."""
    drop_in(tmp_path / "plugins", "closes", CLOSES)
    flag = tmp_path / "flag"
    server = exporter(f"plugins: {tmp_path}/plugins\ncollectors: {{closes: {{flag: {flag}}}}}")
    assert hears(manager, 20)
    flag.touch()
    assert server.get("/metrics")[0] == 200

    wait_until(lambda: "listening socket has been closed" in server.log.read_text(), "it is logged")
    discard(manager)
    assert not hears(manager, 2)


def test_collector_that_hangs_is_no_reason_to_restart(
    exporter: StartExporter, manager: socket.socket, tmp_path: Path
) -> None:
    """A collector that hangs in the shared thread leaves the process healthy, and the watchdog is fed."""
    drop_in(tmp_path / "plugins", "hangs", HANGS)
    flag = tmp_path / "flag"
    flag.touch()
    block = f"collectors: {{hangs: {{flag: {flag}}}, host: }}"
    server = exporter(f"plugins: {tmp_path}/plugins\nscrape_timeout: 1s\n{block}")
    for _ in range(2):
        assert server.value("bts_exporter_collector_success", collector="hangs", target="") == 0
    discard(manager)

    assert server.get("/-/healthy") == (200, "bts-exporter is healthy.\n")
    assert hears(manager, 20)
    flag.unlink()


def test_shared_thread_that_hangs_is_replaced_by_the_check() -> None:
    """Health is correct even if no scrape has replaced the hanging thread."""
    hang = Hang()
    with collectors(("hangs", LocalStub(hang)), ("other", LocalStub())) as (together, runners):
        runners[0].begin(1e9)
        assert hang.begun.wait(60)

        assert together.stalled(60) == ""
        assert not hang.go_on.is_set()


def test_shared_thread_that_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is unhealthy if the shared thread hangs and no other can be started."""
    hang = Hang()

    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with collectors(("hangs", LocalStub(hang))) as (together, runners):
        runners[0].begin(1e9)
        assert hang.begun.wait(60)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            stalled = together.stalled(0.01)
        hang.end()
        wait_until(lambda: together.stalled(60) == "", "it is well again")

    assert stalled == "the thread bts-local does not come to its jobs"


def test_no_thread_is_started_to_check_what_nobody_uses() -> None:
    """Without collectors in the shared thread it is not checked."""
    before = threading.active_count()
    with collectors(("own", Stub())) as (together, _):
        assert together.stalled(60) == ""
        assert threading.active_count() == before


def test_scrape_under_way() -> None:
    """A scrape that waits within its deadline leaves the process healthy."""
    hang = Hang()
    exporter = Exporter()
    with collectors(("slow", Stub(hang))) as (together, runners):
        exporter.collectors = together
        scraping = threading.Thread(target=lambda: exporter.page(runners, Format.TEXT))
        scraping.start()
        assert hang.begun.wait(60)

        assert exporter.stalled() == ""
        hang.end()
        scraping.join(60)
