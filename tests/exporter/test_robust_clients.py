"""Clients that cost too much, against the process: a scraper is served meanwhile, and nothing is left behind."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest

from servers.exporter import Exporter
from servers.footprint import Scraper, returns_to, settled

SETTINGS = "collectors: {host: }\n"
#: Growth of resident memory that does not count as a leak, in MB: the first 400 idle connections add 4.1, later ones nothing.
MARGIN = 12
#: How long many scrapers scrape at once, in seconds: `make test-long` sets it to a minute.
STORM_SECONDS = float(os.environ.get("BTS_STORM_SECONDS", "3"))

HALF = b"GET /metrics HTTP/1.1\r\nHost: te"
WHOLE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
HEALTHY = b"GET /-/healthy HTTP/1.1\r\nHost: test\r\n\r\n"
LONG = b"GET /metrics HTTP/1.1\r\nHost: test\r\nX-Long: " + b"a" * 65536 + b"\r\n\r\n"
#: SO_LINGER that closes with a reset.
RESET = struct.pack("ii", 1, 0)

Attack = Callable[[Exporter, ExitStack, Scraper], None]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """Return an exporter that all attacks share: each has to leave it as it was."""
    exporter = Exporter(tmp_path_factory.mktemp("exporter"), SETTINGS)
    settled(exporter, 100)
    yield exporter
    exporter.kill()


@contextmanager
def connected(process: Exporter, stack: ExitStack) -> Iterator[socket.socket]:
    """Yield a connection that is closed with the others."""
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", process.port), 30))
    with suppress(ConnectionError):
        yield sock


def holding(count: int, sent: bytes) -> Attack:
    """Return an attack by `count` clients that send the same and then wait, without reading."""

    def attack(process: Exporter, stack: ExitStack, scraper: Scraper) -> None:
        for _ in range(count):
            with connected(process, stack) as sock:
                sock.sendall(sent)
        scraper.served(10)

    return attack


def drip(process: Exporter, stack: ExitStack, scraper: Scraper) -> None:
    """Send a request a byte at a time, by 20 clients."""
    socks = []
    for _ in range(20):
        with connected(process, stack) as sock:
            socks.append(sock)
    for i in range(20):
        for sock in socks:
            with suppress(ConnectionError):
                sock.sendall(HALF[i : i + 1])
        scraper.served(1)


def vanish(process: Exporter, stack: ExitStack, scraper: Scraper) -> None:
    """Reset the connection when the response has begun."""
    for _ in range(100):
        with connected(process, stack) as sock:
            sock.sendall(WHOLE)
            sock.recv(100)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.close()
    scraper.served(5)


ATTACKS: dict[str, Attack] = {
    "60 half-sent headers": holding(60, HALF),
    "20 slow clients": drip,
    "400 idle connections": holding(400, HEALTHY),
    "400 silent connections": holding(400, b""),
    "headers of 64 KB": holding(60, LONG),
    "100 that never read": holding(100, WHOLE * 50),
    "100 that disappear mid-response": vanish,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_scraper_is_served_and_nothing_is_left(name: str, process: Exporter) -> None:
    """Each scrape is answered within its timeout; threads, files and memory return to what they were."""
    before = settled(process)
    with Scraper(process) as scraper, ExitStack() as stack:
        ATTACKS[name](process, stack, scraper)

    assert scraper.failures == []
    returns_to(process, before, MARGIN)


def test_headers_that_are_too_long_are_refused(process: Exporter) -> None:
    """64 KB of headers are answered with status 431."""
    with socket.create_connection(("127.0.0.1", process.port), 30) as sock:
        with suppress(ConnectionError):
            sock.sendall(LONG)
        assert sock.recv(100).startswith(b"HTTP/1.1 431 ")


def mutated(rng: random.Random) -> bytes:
    """Return a request with some of its bytes changed, removed, repeated or swapped for odd ones."""
    path = rng.choice([b"/-/healthy", b"/-/ready", b"/probe?target=x", b"/metrics?collect[]=x"])
    data = bytearray(b"%b %b HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"
                     % (rng.choice([b"GET", b"HEAD", b"POST", b"\xff"]), path))  # fmt: skip
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = rng.randbytes(1)
            case 1:
                del data[at : at + rng.randrange(1, 8)]
            case 2:
                data[at:at] = data[at : at + rng.randrange(1, 20)]
            case 3:
                odd = [
                    b"\r\n",
                    b"\0",
                    b"\x7f",
                    b"%",
                    b"%ff",
                    b"\r",
                    b"\n\n",
                    b" ",
                    b"9" * 30,
                    b":",
                    b"\xe2\x80\xa8",
                ]
                data[at:at] = rng.choice(odd)
            case 4:
                data[at:at] = rng.randbytes(rng.randrange(1, 60))
    return bytes(data)


def answer_to(port: int, data: bytes) -> bytes:
    """Send bytes and the end of the request; return the first bytes of the answer, empty without an answer."""
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        with suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            first = sock.recv(12)
            while sock.recv(65536):
                pass
            return first
    return b""


def test_raw_bytes(process: Exporter) -> None:
    """Of 20,000 requests with errors none ends anything but its connection, and none is an internal error."""
    before = settled(process)
    rng = random.Random(14)
    requests = [mutated(rng) for _ in range(20_000)]
    with Scraper(process) as scraper, ThreadPoolExecutor(4) as pool:
        statuses = set(pool.map(lambda data: answer_to(process.port, data), requests, chunksize=50))

    assert statuses - {b""} <= {
        f"HTTP/1.1 {status}".encode() for status in (200, 400, 404, 405, 411, 413, 414, 431, 501, 503, 505)
    }  # fmt: skip
    assert b"HTTP/1.1 400" in statuses
    assert scraper.failures == []
    assert "Traceback" not in process.log.read_text()
    returns_to(process, before, MARGIN)


def test_fifty_scrapers(process: Exporter) -> None:
    """Fifty scrapers that never pause are all answered, with a scraper that has its own page among them."""
    before = settled(process)
    with Scraper(process, "/metrics?collect[]=cpu") as own, ExitStack() as stack:
        crowd = [stack.enter_context(Scraper(process)) for _ in range(50)]
        time.sleep(STORM_SECONDS)
        own.served(1)

    assert [scraper.failures for scraper in (own, *crowd)] == [[]] * 51
    assert all(scraper.answers for scraper in crowd)
    returns_to(process, before, MARGIN)


def test_log_has_no_line_for_each_client(process: Exporter) -> None:
    """None of all these clients has a line in the log."""
    assert len(process.log.read_text().splitlines()) < 20
