"""Measuring: server processes, their CPU and memory, and a scraper that behaves like Prometheus."""

from __future__ import annotations

import ctypes
import gzip
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from servers import Process, free_port, need

if TYPE_CHECKING:
    import ssl

#: The headers that Prometheus 2.42 of Debian 12 sends.
PROMETHEUS = {
    "User-Agent": "Prometheus/2.42.0+ds",
    "Accept": (
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    ),
}

#: Minimal settings: only the host, without plug-ins.
HOST_ONLY = "plugins: none\ncollectors:\n  host:\n"

_LIBC = ctypes.CDLL(None)
# As in systemd/bts-exporter.service and Dockerfile.
_OURS = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "1048576"}


class Spread(NamedTuple):
    """Several measurements of one quantity."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Return the median of `values` and their spread."""
    known = list(values)
    return Spread(statistics.median(known), min(known), max(known))


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the ratio of each pair; the two values of a pair were measured one after the other."""
    return spread(a / b for a, b in zip(above, below, strict=True))


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, including ended ones, with nanoseconds."""
    clock = ctypes.c_int()
    error = _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, os.strerror(error), f"CPU clock of {pid}")
    return time.clock_gettime(clock.value)


class Memory(NamedTuple):
    """Memory of a process in bytes, counted page by page (/proc/PID/smaps_rollup)."""

    resident: int
    #: Resident in this process only: free when it ends.
    private: int


class Answer(NamedTuple):
    """One response to a scrape."""

    status: int
    body: bytes  # as received, compressed or not
    content_type: str
    packed: bool
    seconds: float  # from sending the request to the last byte

    @property
    def text(self) -> str:
        """Return the page."""
        return (gzip.decompress(self.body) if self.packed else self.body).decode()

    @property
    def samples(self) -> int:
        """Return the number of samples on the page."""
        return sum(not line.startswith("#") for line in self.text.splitlines())


class Access(NamedTuple):
    """What a client of a server with TLS and passwords needs."""

    context: ssl.SSLContext
    headers: dict[str, str]


class Scraper:
    """A client that keeps one connection, as Prometheus does."""

    def __init__(
        self,
        port: int,
        path: str = "/metrics",
        *,
        packed: bool = True,
        access: Access | None = None,
    ) -> None:
        if access is None:
            self._connection = HTTPConnection("127.0.0.1", port, timeout=30)
        else:
            self._connection = HTTPSConnection(
                "127.0.0.1", port, timeout=30, context=access.context
            )
        self._path = path
        self._headers = PROMETHEUS | {"Accept-Encoding": "gzip" if packed else "identity"}
        if access is not None:
            self._headers |= access.headers

    def __enter__(self) -> Self:
        self._connection.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def scrape(self, *, patience: float = 10) -> Answer:
        """Return a response of any status; `patience` is Prometheus' scrape_timeout in seconds."""
        headers = self._headers | {"X-Prometheus-Scrape-Timeout-Seconds": f"{patience:g}"}
        began = time.perf_counter()
        self._connection.request("GET", self._path, headers=headers)
        response = self._connection.getresponse()
        body = response.read()
        seconds = time.perf_counter() - began
        content_type = response.getheader("Content-Type", "")
        packed = response.getheader("Content-Encoding") == "gzip"
        return Answer(response.status, body, content_type, packed, seconds)


class Server:
    """A program that serves metrics on a free loopback port."""

    def __init__(
        self, argv: Callable[[int], Sequence[str]], folder: Path, env: dict[str, str]
    ) -> None:
        """Start it; it is ready when `wait` returns."""
        self.port = free_port()
        plain = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder)}
        self.access: Access | None = None
        self.began = time.perf_counter()
        self._process = Process(argv(self.port), folder, plain | env)
        self.pid = self._process.popen.pid

    def wait(self, expected: str = "", path: str = "/metrics", seconds: float = 30.0) -> float:
        """Return the seconds from the start until `path` was answered with `expected` in it.

        RuntimeError with the end of the log when that does not happen.
        """
        while time.perf_counter() < self.began + seconds and self._process.popen.poll() is None:
            try:
                with Scraper(self.port, path, packed=False, access=self.access) as scraper:
                    answer = scraper.scrape()
            except OSError:
                time.sleep(0.002)
                continue
            if answer.status == 200 and expected in answer.text:
                return time.perf_counter() - self.began
            time.sleep(0.05)
        self.end()
        log = self._process.log.read_text(errors="replace")[-2000:]
        msg = f"{self._process.popen.args!r} gives no {expected} at {path}:\n{log}"
        raise RuntimeError(msg)

    def cpu(self) -> float:
        """Return the CPU seconds used so far."""
        return cpu_of(self.pid)

    def memory(self) -> Memory:
        """Return the current memory."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        kib = {name: int(value) for name, value in re.findall(r"(\w+): +(\d+) kB", rollup)}
        return Memory(kib["Rss"] * 1024, (kib["Private_Clean"] + kib["Private_Dirty"]) * 1024)

    def threads(self) -> int:
        """Return the current number of threads."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def end(self) -> None:
        """End the process by its id."""
        self._process.kill()


class Bench:
    """The servers and options of a benchmark; all servers end with it."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.ends = ExitStack()
        self._folders = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ends.close()

    def often(self, full: int, quick: int) -> int:
        """Return the number of measurements."""
        return quick if self.quick else full

    def new_folder(self, name: str) -> Path:
        """Create a new folder."""
        self._folders += 1
        folder = self.folder / f"{self._folders:03}-{name}"
        folder.mkdir()
        return folder

    def start(
        self,
        name: str,
        argv: Callable[[int], Sequence[str]],
        env: dict[str, str] | None = None,
    ) -> Server:
        """Start a program that serves metrics; `argv` makes its command line from a port."""
        server = Server(argv, self.new_folder(name), env or {})
        self.ends.callback(server.end)
        return server

    def compile_ours(self) -> None:
        """Start bts-exporter once, since compiling costs memory and installed packages are compiled."""
        with running(self.start_ours()):
            pass

    def start_ours(self, settings: str = HOST_ONLY, *further: str) -> Server:
        """Start bts-exporter with `settings` and `further` flags, in the environment of its systemd unit."""
        config = self.new_folder("settings") / "config.yaml"
        config.write_text(settings)
        flags = [str(Path(sys.executable).with_name("bts-exporter")), f"--config.file={config}"]
        environment = _OURS | {
            "PYTHONPYCACHEPREFIX": str(self.folder / "compiled"),
            "PYTHONDONTWRITEBYTECODE": "",
        }
        # Compiling leaves freed memory behind, which an installed exporter does not have.
        check = [flags[0], "check", *flags[1:]]
        subprocess.run(check, env=os.environ | environment, check=False, capture_output=True)
        return self.start(
            "bts-exporter",
            lambda port: [*flags, f"--web.listen-address=127.0.0.1:{port}", *further],
            environment,
        )

    def start_node_exporter(self, *flags: str) -> Server:
        """Start Debian's node_exporter; pytest's Skipped where it is not installed."""
        package = "prometheus-node-exporter"
        program = need(package, package)
        return self.start(
            package, lambda port: [program, f"--web.listen-address=127.0.0.1:{port}", *flags]
        )


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Wait until `servers` serve metrics, and end them after the block."""
    try:
        for server in servers:
            server.wait()
        yield
    finally:
        for server in servers:
            server.end()
