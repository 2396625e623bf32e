"""A hostile or broken server in place of Redis: what it can cost this process, as a process."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hiredis import Reader

from servers import free_port
from servers.exporter import Exporter, StartExporter
from servers.redis import Listen, MakeRedis

pytestmark = pytest.mark.live

ERRORS = "bts_exporter_collector_errors_total"
MB = 1 << 20
FIELDS = b"redis_version:7.0.15\r\nserver_time_usec:1700000000000000\r\nblocked_clients:3\r\n"
INFO = b"$%d\r\n%b\r\n" % (len(FIELDS), FIELDS)
SETTINGS = """
scrape_timeout: 9s
collectors:
  redis:
    - name: hostile
      url: redis://127.0.0.1:{port}
      clients: true
      latency_histograms: true
      streams: [a, "b*"]
      keys: [k]
      queues: {{rq: true, celery: true}}
"""


def answering(reply: bytes, info: bytes = INFO) -> Callable[[socket.socket], None]:
    """Return the behaviour of a server that answers INFO, and has one reply to all else."""

    def behave(connection: socket.socket) -> None:
        reader = Reader()
        with suppress(OSError):
            while received := connection.recv(65536):
                reader.feed(received)
                while (command := reader.gets()) is not False:
                    if command[:2] == [b"CLIENT", b"SETNAME"]:
                        connection.sendall(b"+OK\r\n")
                    else:
                        connection.sendall(info if command[0] == b"INFO" else reply)
        connection.close()

    return behave


def resident(exporter: Exporter, field: str = "VmRSS") -> float:
    """Return the memory of the process in MB; VmHWM is the most that it ever had."""
    status = Path(f"/proc/{exporter.popen.pid}/status").read_text()
    match = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024


LARGE = {
    "one string": b"$%d\r\n" % (30 * MB) + bytes(30 * MB) + b"\r\n",
    "short strings": b"*900000\r\n" + 900_000 * b"+ab\r\n",
    "empty arrays": b"*900000\r\n" + 900_000 * b"*0\r\n",
    "announced string": b"$2147483647\r\n" + bytes(5 * MB),
    "announced array": b"*2147483647\r\n",
    "nested arrays": 60 * b"*900000\r\n",
    "announced map": b"%2147483647\r\n",
    "announced push": b">2147483647\r\n",
    "endless line": b"+" + bytes(40 * MB),
}


@pytest.mark.parametrize("large", LARGE)
def test_large_replies(redis_listener: Listen, exporter: StartExporter, large: str) -> None:
    """Whatever a server sends after INFO, it is up, and the process never has more than 250 MB.

    Without limits it was 500 MB, and an array that is announced to have 2^31 elements took as many
    bytes eight times and seconds in which nothing else was served.
    """
    server = exporter(SETTINGS.format(port=redis_listener(answering(LARGE[large])).port))

    for _ in range(2):
        samples = server.samples()
        assert samples["redis_up", frozenset({("target", "hostile")})] == 1
        assert samples["redis_blocked_clients", frozenset({("target", "hostile")})] == 3

    assert resident(server, "VmHWM") < 250


def test_a_large_info(redis_listener: Listen, exporter: StartExporter) -> None:
    """With an INFO of 30 MB the server is not up, and the reason says so."""
    info = FIELDS + b"".join(b"f%d:1\r\n" % number for number in range(2_500_000))
    behave = answering(b"$-1\r\n", b"$%d\r\n%b\r\n" % (len(info), info))
    server = exporter(SETTINGS.format(port=redis_listener(behave).port))

    assert server.value("redis_up", target="hostile") == 0
    assert "more than Redis sends (at the command INFO)" in server.get("/")[1]
    assert resident(server, "VmHWM") < 250


def test_memory_does_not_grow_with_failures(
    redis_listener: Listen, exporter: StartExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After fifty failed scrapes the process has as much memory as after five: failures keep no data."""
    # As the service's unit sets it, so that what is freed is given back.
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    reply = b"*50000\r\n" + 49_999 * (b"$100\r\n" + 100 * b"x" + b"\r\n") + b"@"
    server = exporter(SETTINGS.format(port=redis_listener(answering(reply)).port))
    for _ in range(5):
        server.samples()
    before = resident(server)

    for _ in range(45):
        server.samples()

    assert server.value("redis_exporter_last_scrape_error", err="protocol", target="hostile") == 1
    assert resident(server) < before + 15


def test_a_target_that_hangs_from_the_start(make_redis: MakeRedis, exporter: StartExporter) -> None:
    """A scrape with 3 s has redis_up 0 for a frozen server, also while the first collection still waits."""
    frozen = make_redis()
    frozen.freeze()
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    filling = [socket.socket() for _ in range(4)]
    for client in filling:
        client.setblocking(False)
        client.connect_ex(full.getsockname())
    hole = f"redis://127.0.0.1:{full.getsockname()[1]}"
    server = exporter(f"""
scrape_timeout: 20s
collectors:
  redis:
    - {{name: frozen, url: "{frozen.url}", streams: [a, "b*"], keys: ["k*"]}}
    - {{name: tls, url: "{frozen.url.replace("redis:", "rediss:")}"}}
    - {{name: login, url: "{frozen.url}", password: x}}
    - {{name: hole, url: "{hole}"}}
    - {{name: sentinel, url: "redis://x", sentinel: {{master: m, addresses: ["{frozen.url}"]}}}}
    - {{name: cluster, url: "{frozen.url}", cluster: true, keys: [a, b]}}
    - {{name: refused, url: "redis://127.0.0.1:{free_port()}"}}
""")

    for _ in range(2):
        _, page = server.get("/metrics", {"X-Prometheus-Scrape-Timeout-Seconds": "3"})
        down = re.findall(r'^redis_up\{target="(\w+)"\} 0$', page, re.MULTILINE)
        assert sorted(down) == sorted(
            ["frozen", "tls", "login", "hole", "sentinel", "cluster", "refused"]
        )
    for client in (full, *filling):
        client.close()


def test_a_hanging_target_is_the_collectors_own_error(
    make_redis: MakeRedis, exporter: StartExporter
) -> None:
    """Each scrape of a frozen server ends in time with the collector's error, and none is still running."""
    frozen = make_redis()
    server = exporter(f"""
scrape_timeout: 1s
collectors:
  redis:
    - {{name: kept, url: "{frozen.url}", streams: [a, "b*"], keys: ["k*"]}}
    - {{name: sentinel, url: "redis://x", sentinel: {{master: m, addresses: ["{frozen.url}"]}}}}
    - {{name: cluster, url: "{frozen.url}", cluster: true, keys: [a, b]}}
""")
    server.get("/metrics")  # so that there is a connection to keep
    frozen.freeze()
    server.get("/metrics")
    before = server.samples()
    after = server.samples()
    _, page = server.get("/")

    for target in ("kept", "sentinel", "cluster"):
        labels = {("collector", "redis"), ("target", target)}
        failures = {
            reason: after[key] - before.get(key, 0)
            for reason in ("timeout", "busy")
            if (key := (ERRORS, frozenset({*labels, ("reason", reason)}))) in after
        }
        assert failures == {"timeout": 1}
        assert (
            after[
                "redis_exporter_last_scrape_error",
                frozenset({("target", target), ("err", "timeout")}),
            ]
            == 1
        )
    assert page.count(f"Redis at {frozen.url}: no reply in time") >= 3


@pytest.mark.parametrize(
    ("greeting", "expected"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "but HTTP: is this the port of Redis?"),
        (b"AMQP\x00\x00\x09\x01", "but AMQP (RabbitMQ): is this the port of Redis?"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "but SSH: is this the port of Redis?"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "but TLS: use rediss:// in place of redis://"),
        (b"220 mail\r\n", "its reply begins with b'220 mail"),
    ],
)
def test_something_else_at_the_port(
    redis_listener: Listen, exporter: StartExporter, greeting: bytes, expected: str
) -> None:
    """The status page names the protocol that answers instead of Redis."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(greeting)

    server = exporter(SETTINGS.format(port=redis_listener(behave).port))

    assert server.value("redis_up", target="hostile") == 0
    assert expected in server.get("/")[1]
