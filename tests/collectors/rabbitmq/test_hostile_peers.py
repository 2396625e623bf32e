"""What a hostile or broken server costs the process: memory, threads and other parts of the scrape."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from servers import wait_until
from servers.exporter import Exporter, StartExporter
from servers.management import FakeManagement, Handler, Reply, answer, raw

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LABELS = {("collector", "rabbitmq"), ("target", "")}
SETTINGS = "plugins: none\ncollectors:\n  rabbitmq: {{url: 'http://127.0.0.1:{port}'}}\n"
#: An ordinary listing of some 15,000 queues.
LISTING = json.dumps(
    [
        {"name": f"queue-{number}", "vhost": "/", "padding": "x" * 1900, "messages_ready": number}
        for number in range(15_000)
    ]
).encode()
#: A gigabyte of blanks, of which each megabyte takes one kilobyte.
BOMB = gzip.compress(b" " * (1 << 20), 9) * 1024


def cut_off(handler: Handler) -> None:
    """Send an ordinary listing but for its end."""
    handler.wfile.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(LISTING))
    handler.wfile.write(LISTING[:-100])
    handler.close_connection = True


def endless(first: bytes, piece: bytes) -> Reply:
    """Send `first`, and `piece` again and again, for as long as somebody reads."""

    def reply(handler: Handler) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(first)
            while not handler.fake.over.is_set():
                handler.wfile.write(piece * 1000)

    return reply


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
DIGITS = b"9" * 10**6
GZIPPED = HEAD + b"Content-Encoding: gzip\r\n"

HOSTILE: dict[str, Reply] = {
    "cut-off": cut_off,
    "gzip-bomb": raw(GZIPPED + b"Content-Length: %d\r\n\r\n" % len(BOMB) + BOMB),
    "gzip-bomb-in-chunks": raw(
        GZIPPED + CHUNKED[len(HEAD) :] + b"\r\n%x\r\n" % len(BOMB) + BOMB + b"\r\n0\r\n\r\n"
    ),
    "gzip-of-gzip": raw(
        GZIPPED + b"Content-Length: %d\r\n\r\n" % len(gzip.compress(BOMB)) + gzip.compress(BOMB)
    ),
    "endless": endless(HEAD + b"\r\n", b"[" * 100),
    "endless-interim-responses": endless(b"", b"HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n"),
    "endless-headers": endless(HEAD, b"X-A: " + b"b" * 1000 + b"\r\n"),
    "endless-header-line": endless(HEAD + b"X-A: ", b"b" * 1000),
    "endless-status-line": endless(b"HTTP/1.1 200 ", b"b" * 1000),
    "endless-trailers": endless(CHUNKED + b"\r\n0\r\n", b"X-A: b\r\n"),
    "endless-chunk-size": endless(CHUNKED + b"\r\n", b"0" * 1000),
    "chunk-of-size-minus-one": endless(CHUNKED + b"\r\n-1\r\n", b" " * 1000),
    "chunk-of-size-minus-five": endless(CHUNKED + b"\r\n-5\r\n", b" " * 1000),
    "chunk-of-any-size": endless(CHUNKED + b"\r\n7fffffffffffffffff\r\n", b" " * 1000),
    "announces-too-much": endless(HEAD + b"Content-Length: 99999999999999\r\n\r\n", b" " * 1000),
    "announces-two-lengths": raw(HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n[]   "),
    "unknown-encoding": raw(HEAD + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n[]"),
    "deep": answer("placeholder"),
    "many-small-objects": raw(
        HEAD + b"\r\n" + b"[" + b'{"name":"","vhost":""},' * 2_500_000 + b"{}]"
    ),
    "long-number": raw(
        HEAD
        + b'\r\n[{"name":"a","vhost":"/","messages":'
        + DIGITS
        + b',"fd_used":'
        + DIGITS
        + b"}]"
    ),
}
DEEP = b"[" * 2_000_000
HOSTILE["deep"] = raw(HEAD + b"\r\n" + DEEP)


def resident(process: Exporter, what: str = "VmRSS") -> int:
    """Return the process's memory in bytes."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(what + ":"))
    return int(line.split()[1]) * 1024


def success(samples: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> float:
    """Return whether RabbitMQ's collection succeeded."""
    return samples["bts_exporter_collector_success", frozenset(LABELS)]


@pytest.mark.parametrize("reply", ["cut-off", "gzip-bomb"])
def test_memory_after_fifty_failed_scrapes_is_that_after_five(
    management: FakeManagement, exporter: StartExporter, reply: str
) -> None:
    """Failed responses do not stay in memory."""
    management.routes["/api/queues"] = HOSTILE[reply]
    process = exporter(SETTINGS.format(port=management.port))

    def scrape(times: int) -> int:
        for _ in range(times):
            assert success(process.samples()) == 0
        return resident(process)

    after_five = scrape(5)
    after_fifty = scrape(45)

    assert after_fifty < after_five + 12_000_000
    assert resident(process, "VmHWM") < 250_000_000


@pytest.mark.parametrize("reply", HOSTILE)
@pytest.mark.parametrize(
    ("path", "kept"),
    [("/api/queues", "rabbitmq_node_running"), ("/api/nodes", "rabbitmq_queue_messages_ready")],
)
def test_a_hostile_reply_loses_only_its_own_metrics(
    management: FakeManagement, exporter: StartExporter, path: str, kept: str, reply: str
) -> None:
    """A hostile response costs bounded time and memory, and the next scrape works."""
    usual = management.routes[path]
    management.routes[path] = HOSTILE[reply]
    process = exporter(SETTINGS.format(port=management.port))

    samples = process.samples()
    management.routes[path] = usual
    after = process.samples()

    assert success(samples) == 0
    assert samples["rabbitmq_up", frozenset()] == 1
    assert any(name == kept for name, _ in samples)
    assert resident(process, "VmHWM") < 450_000_000
    assert success(after) == 1


@contextmanager
def amqp_peer(*replies: bytes, then: bytes = b"") -> Iterator[int]:
    """Give the port of a server that sends the `replies`, each after it received something.

    After the last it sends `then` again and again.
    """
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while not over.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                with closing(connection):
                    for reply in replies:
                        connection.recv(65536)
                        connection.sendall(reply)
                    while then and not over.is_set():
                        connection.sendall(then)
                    while connection.recv(65536):
                        pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    over.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def frame(kind: int, payload: bytes, size: int | None = None) -> bytes:
    """Return a frame of channel 0, or one that announces another size."""
    announced = len(payload) if size is None else size
    return struct.pack(">BHL", kind, 0, announced) + payload + b"\xce"


def start_method(table: bytes) -> bytes:
    """Return connection.start with the server's properties `table`."""
    properties = struct.pack(">L", len(table)) + table
    mechanisms = struct.pack(">L", 5) + b"PLAIN" + struct.pack(">L", 5) + b"en_US"
    return frame(1, struct.pack(">HHBB", 10, 10, 0, 9) + properties + mechanisms)


def nested(depth: int) -> bytes:
    """Return a table in a table in a table."""
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + struct.pack(">L", len(table)) + table
    return table


AMQP: dict[str, tuple[Callable[[], tuple[tuple[bytes, ...], bytes]], str]] = {
    "frame-of-4-GB": (lambda: ((struct.pack(">BHL", 1, 0, 0xFFFFFFF0),), b"x" * 65536), "frame of"),
    "endless-heartbeats": (
        lambda: ((start_method(b""),), frame(8, b"") * 8192),
        "",
    ),
    "nested-tables": (lambda: ((start_method(nested(15_000)),), b""), ""),
    "table-longer-than-its-frame": (
        lambda: (
            (frame(1, struct.pack(">HHBB", 10, 10, 0, 9) + struct.pack(">L", 0x7FFFFFFF)),),
            b"",
        ),
        "",
    ),
    "unknown-method": (lambda: ((frame(1, struct.pack(">HH", 999, 999)),), b""), ""),
    "unknown-frame": (lambda: ((frame(7, b"x"),), b""), "not AMQP"),
    "message-of-exabytes": (
        lambda: (
            (frame(2, struct.pack(">HHQ", 60, 0, 1 << 62) + b"\0\0"),),
            b"",
        ),
        "a message of",
    ),
    "http": (lambda: ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), b""), "port of HTTP"),
    "tls": (lambda: ((b"\x15\x03\x03\x00\x02\x02\x0a",), b""), "amqps://"),
    "another-version": (lambda: ((b"AMQP\x03\x01\x00\x00",), b""), "another version"),
    "closes": (lambda: ((b"",), b""), ""),
}


@pytest.mark.parametrize("name", AMQP)
def test_a_hostile_peer_over_amqp_loses_only_its_own_metrics(
    management: FakeManagement, exporter: StartExporter, name: str
) -> None:
    """Announced sizes are checked before pika buffers them, and the canary's thread survives."""
    made, words = AMQP[name]
    replies, then = made()
    with amqp_peer(*replies, then=then) as port:
        process = exporter(
            SETTINGS.format(port=management.port).replace(
                "}",
                f", canary: {{url: 'amqp://127.0.0.1:{port}', interval: 1s, timeout: 1s}}}}",
            )
        )

        def failed_twice() -> bool:
            samples = process.samples()
            tried = sum(
                n for (key, _), n in samples.items() if key == "rabbitmq_canary_probes_total"
            )
            assert samples["rabbitmq_up", frozenset()] == 1
            return tried >= 3 and success(samples) == 0

        wait_until(failed_twice, "the canary tried again")
        _, page = process.get("/")

    assert words in page
    assert resident(process, "VmHWM") < 150_000_000


def test_of_fifty_thousand_queues_every_backlog_and_lag_is_served(
    management: FakeManagement, exporter: StartExporter
) -> None:
    """With default settings, backlog and lag of 50,000 queues are served, and dropped details fail with `limited`."""
    number = 50_000
    depth = {"messages_ready": 3, "messages": 3, "messages_unacknowledged": 0}
    management.routes["/api/overview"] = answer({"object_totals": {"queues": number}})
    management.routes["/api/queues"] = answer(
        [
            {"name": f"queue-{each}", "vhost": "/", "type": "classic", "state": "running"} | depth
            for each in range(number)
        ]
    )
    process = exporter(SETTINGS.format(port=management.port))
    process.get("/metrics")  # a first look knows no ages
    _, text = process.get("/metrics")

    failed = 'bts_exporter_collector_errors_total{collector="rabbitmq",target="",reason="limited"}'
    assert text.count("\nmessaging_backlog_messages{") == number
    assert text.count("\nmessaging_lag_seconds{") > 0.999 * (100_000 - number) - 100
    assert "\nrabbitmq_up 1\n" in text
    assert failed in text
    assert resident(process, "VmHWM") < 400_000_000
