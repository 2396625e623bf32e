"""Threads of collections in the real process: collectors recover from any interruption."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from servers import wait_until
from servers.exporter import Exporter, StartExporter
from stubs import drop_in

#: A collector for each way to fail; all share the thread of the host's collectors.
FAILING = """\
import ctypes, threading, time
from queue import SimpleQueue
from bts_exporter import Collector, gauge

def raise_in(thread, error):
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))

class Mute(Exception):
    def __str__(self):
        raise SystemExit

class Rude(Exception):
    @property
    def __traceback__(self):
        raise KeyboardInterrupt
    @property
    def __cause__(self):
        return Rude()
    __context__ = __cause__

class Faceless(Exception):
    @property
    def __class__(self):
        raise KeyboardInterrupt

class Text(str):
    def split(self, *_):
        raise MemoryError

class Garbled(Exception):
    def __str__(self):
        return Text("garbled")

class Base(Collector):
    local = True
    value = gauge("failing_collections", "Collections so far.", ("of",))
    count = 0
    def collect(self, scrape):
        self.count += 1
        scrape.emit(self.value, self.count, self.name)
        self.act()

def recurse():
    recurse()

def interrupt_itself(_):
    raise_in(threading.get_ident(), SystemExit)

threads = SimpleQueue()

def interrupt_threads():
    while True:
        thread = threads.get()
        time.sleep(0.02)
        raise_in(thread, SystemExit)

threading.Thread(target=interrupt_threads, daemon=True).start()

def interrupt_later(_):
    # As a plug-in does that limits its own time, when the time comes after it has returned.
    threads.put(threading.get_ident())

def raising(error):
    def act(_):
        raise error
    return act

ERRORS = [SystemExit(1), KeyboardInterrupt(), MemoryError(), StopIteration(), GeneratorExit(),
          Mute(), Rude(), Faceless(), Garbled(), ExceptionGroup("both", [ValueError(), Rude()])]
ACTIONS = {type(error).__name__.lower(): raising(error) for error in ERRORS}
ACTIONS |= {"recursion": lambda _: recurse(), "itself": interrupt_itself}

class Failing(Collector):
    @classmethod
    def build(cls, config):
        return [type(name, (Base,), {"name": name, "act": act})(config) for name, act in ACTIONS.items()]
    @classmethod
    def declared(cls):
        yield Base.value

class Later(Base):
    name = "later"
    act = interrupt_later
"""
#: Takes a second, longer than a short scrape waits.
SLOW = """\
import time
from bts_exporter import Collector, CollectorConfig, gauge

class Slow(Collector):
    class Config(CollectorConfig):
        seconds: float
    value = gauge("slow_value", "A value.")
    def collect(self, scrape):
        time.sleep(self.config.seconds)
        scrape.emit(self.value, 1)
"""
#: Lets no thread start while a file exists; its own thread is running already.
THREADLESS = """\
import threading
from pathlib import Path
from bts_exporter import Collector, CollectorConfig, gauge

class Threadless(Collector):
    class Config(CollectorConfig):
        flag: str
    started = gauge("threadless_started", "How often it was started.")
    count = 0
    def __init__(self, config):
        super().__init__(config)
        if not hasattr(threading, "start_as_ever"):
            threading.start_as_ever = threading._start_new_thread
        def start(*arguments):
            if Path(config.flag).exists():
                raise RuntimeError("can't start new thread")
            return threading.start_as_ever(*arguments)
        threading._start_new_thread = start
    def start(self):
        self.count += 1
    def collect(self, scrape):
        scrape.emit(self.started, self.count)
"""


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    """Return settings with the plug-ins; what follows are collectors in flow style."""
    sources = {
        "failing": FAILING + "\nCOLLECTOR = Failing",
        "later": FAILING + "\nCOLLECTOR = Later",
    }
    for name, source in {**sources, "slow": SLOW, "threadless": THREADLESS}.items():
        drop_in(tmp_path / "plugins", name, source)
    return f"plugins: {tmp_path}/plugins\ncollectors: "


def failing(server: Exporter, seconds: str = "") -> set[str]:
    """Return the collectors that failed in a scrape with this timeout."""
    headers = {"X-Prometheus-Scrape-Timeout-Seconds": seconds} if seconds else {}
    status, text = server.get("/metrics", headers)
    assert status == 200
    return {
        line.split('"')[1]
        for line in text.splitlines()
        if line.startswith("bts_exporter_collector_success{") and line.endswith(" 0")
    }


def reasons(server: Exporter) -> dict[tuple[str, str], float]:
    """Return how often collectors failed, by name and reason."""
    return {
        (dict(labels)["collector"], dict(labels)["reason"]): value
        for (name, labels), value in server.samples().items()
        if name == "bts_exporter_collector_errors_total"
    }


def at_once(calls: list[Callable[[], object]]) -> list[threading.Thread]:
    """Start each call in a thread."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def test_hurried_scrapes_cost_no_collector(exporter: StartExporter) -> None:
    """Scrapes with a timeout of 5 ms do not make collectors fail or busy."""
    server = exporter("collectors: {host: }")

    hurried = [failing(server, "0.005") for _ in range(8)]

    assert hurried == [set()] * 8
    assert failing(server) == set()
    assert reasons(server) == {}
    assert "collection fails" not in server.log.read_text()


def test_hurried_scrape_does_not_end_what_a_patient_one_waits_for(
    exporter: StartExporter, plugins: str
) -> None:
    """A collector that takes a second does not fail because another scrape has a shorter timeout."""
    server = exporter(plugins + "{slow: {seconds: 1}}")
    wait_until(lambda: failing(server) == set(), "it was collected")

    for _ in range(3):
        assert failing(server, "0.005") == {"slow"}
        assert failing(server) == set()

    assert reasons(server) == {}


def test_scrape_with_less_time_does_not_make_a_collector_busy(
    exporter: StartExporter, plugins: str
) -> None:
    """A collection that a shorter scrape gave up is repeated for a scrape with more time."""
    server = exporter(plugins + "{slow: {seconds: 1.5}}")
    wait_until(lambda: failing(server) == set(), "it was collected")

    for _ in range(2):
        assert failing(server, "1.2") == {"slow"}
        assert failing(server) == set()

    assert set(reasons(server)) == {("slow", "timeout")}


def test_patience_of_all_kinds_under_reloads(exporter: StartExporter, plugins: str) -> None:
    """Thirty clients with different timeouts, and reloads in between, leave no collector behind."""
    settings = plugins + "{slow: {seconds: 0.2}, host: }"
    server = exporter(settings, "--web.enable-lifecycle")
    timeouts = ["", "0.001", "0.005", "0.1", "0.5", "1", "5"]
    ended: list[set[str]] = []

    def scrape(number: int) -> None:
        turns = (timeouts[(number + turn) % len(timeouts)] for turn in range(8))
        ended.extend(failing(server, seconds) for seconds in turns)

    def reload() -> None:
        for turn in range(8):
            server.config.write_text(settings.replace("0.2", f"0.2{turn}"))
            assert server.get("/-/reload", method="POST")[0] == 200

    calls: list[Callable[[], object]] = [lambda n=n: scrape(n) for n in range(30)]  # type: ignore[misc]
    for thread in at_once([*calls, reload]):
        thread.join(60)

    assert len(ended) == 240
    assert failing(server) == set()
    assert {name for name, _ in reasons(server)} <= {"slow"}


def test_process_that_stood_still(exporter: StartExporter) -> None:
    """A process that was frozen in the middle of its scrapes loses no collector, and none has failed."""
    server = exporter("collectors: {host: }")
    stopped = threading.Event()

    def scrape(seconds: str) -> None:
        while not stopped.is_set():
            failing(server, seconds)

    threads = at_once([lambda s=s: scrape(s) for s in ("0.005", "0.5", "1", "5", "")])  # type: ignore[misc]
    for _ in range(8):
        server.freeze()
        stopped.wait(
            0.7
        )  # longer than short scrapes wait: their deadlines pass while the process is stopped
        server.thaw()
        assert server.get("/-/healthy")[0] == 200
    stopped.set()
    for thread in threads:
        thread.join(60)

    assert failing(server) == set()
    assert reasons(server) == {}
    assert "collection fails" not in server.log.read_text()


def test_whatever_a_collector_raises(exporter: StartExporter, plugins: str) -> None:
    """Its samples are served, it is collected again, and those that share its thread lose nothing."""
    server = exporter(plugins + "{failing: , host: }")
    names = failing(server)
    counts = [failing_collections(server) for _ in range(3)]

    assert len(names) == 12
    for name in names:
        first = counts[0][name]
        assert [count[name] for count in counts] == [first, first + 1, first + 2]
    assert failing(server) == names
    assert {reason for _, reason in reasons(server)} == {"internal"}
    assert server.get("/-/healthy")[0] == 200


def failing_collections(server: Exporter) -> dict[str, float]:
    """Return how often each of the failing collectors was collected."""
    return {
        dict(labels)["of"]: value
        for (name, labels), value in server.samples().items()
        if name == "failing_collections"
    }


def test_exception_from_another_thread(exporter: StartExporter, plugins: str) -> None:
    """An exception raised in the shared thread from outside costs a collection at most, and no collector."""
    server = exporter(plugins + "{later: , host: }")
    hits = ("SystemExit", "continues after")
    wait_until(
        lambda: failing(server) or any(hit in server.log.read_text() for hit in hits),
        "an exception hit the thread",
    )
    # None if the scrape was interrupted before the sample was emitted.
    counts = [failing_collections(server).get("later", 0) for _ in range(20)]

    assert max(counts) >= 10
    wait_until(lambda: failing(server) == set(), "all collectors are back")
    assert {reason for _, reason in reasons(server)} <= {"internal"}
    assert server.get("/-/healthy")[0] == 200


def test_no_thread_left(exporter: StartExporter, plugins: str, tmp_path: Path) -> None:
    """While no thread can be started what has one works; when there are threads again, so does the rest."""
    flag = tmp_path / "flag"
    settings = f"{plugins}{{threadless: {{flag: {flag}}}, host: }}"
    server = exporter(settings, "--web.enable-lifecycle")
    changed = settings.replace("flag}}", "flag}}, slow: {seconds: 0, interval: 60s}")
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:

        def ask(path: str, method: str = "GET") -> tuple[int, str]:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()

        assert ask("/metrics")[0] == 200  # from now on its connection has a thread
        flag.touch()
        server.config.write_text(changed)
        status, text = ask("/metrics")
        refused = ask("/-/reload", "POST")
        flag.unlink()

        assert status == 200
        success = [line for line in text.splitlines() if "collector_success{" in line]
        assert success
        assert [line for line in success if not line.endswith(" 1")] == []
        assert refused[0] == 500
        assert "cannot start a thread to load the settings" in refused[1]
        assert ask("/-/reload", "POST") == (200, "reloaded.\n")
        assert ask("/-/healthy")[0] == 200
    assert failing(server) == set()
