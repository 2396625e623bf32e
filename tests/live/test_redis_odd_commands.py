"""A command that is refused, hangs or gets an odd reply loses only its own metrics."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping

import pytest

from servers.exporter import StartExporter
from servers.redis import RedisServer
from servers.redis_proxy import MakeProxy, Oddity

pytestmark = pytest.mark.live

#: Command -> beginnings of the names of the metrics that may be missing without it.
COSTS: Mapping[str, tuple[str, ...]] = {
    "CLIENT SETNAME": (),
    "CONFIG GET": ("redis_config_", "redis_db_keys"),
    "SLOWLOG LEN": ("redis_slowlog_length",),
    "SLOWLOG GET": ("redis_slowlog_last_id", "redis_last_slow_execution"),
    "LATENCY LATEST": ("redis_latency_spike_",),
    "LATENCY HISTOGRAM": ("redis_commands_latencies_usec",),
    "CLIENT LIST": ("redis_clients",),
    "TYPE": ("redis_key_", "redis_exporter_command_supported"),
    "LLEN": ("redis_key_", "redis_queue_", "messaging_"),
    "STRLEN": ("redis_key_",),
    "MEMORY USAGE": ("redis_key_memory_usage_bytes",),
    "GET": ("redis_key_value",),
    "SMEMBERS": ("redis_queue_", "messaging_"),
    "LINDEX": ("redis_queue_", "messaging_"),
    "ZCARD": ("redis_queue_", "messaging_"),
    "EVAL_RO": ("redis_stream_group_lag", "messaging_", "redis_exporter_command_supported"),
    "XPENDING": ("redis_stream_group_oldest_pending_", "messaging_in_flight_"),
    "SCAN": ("redis_key_", "redis_exporter_command_supported"),
}
#: Metrics that differ, because the proxies get other commands.
_VARYING = (
    *("redis_exporter_last_scrape_error", "redis_exporter_command_supported"),
    *("redis_exporter_discover", "redis_commands_", "redis_latency_percentiles_usec"),
    *("redis_errors_total", "redis_clients"),
)

Series = tuple[str, frozenset[tuple[str, str]]]


def saying(reply: bytes) -> Oddity:
    """Return the behaviour of a server with one reply."""

    def say(client: socket.socket) -> bool:
        client.sendall(reply)
        return True

    return say


def hang(client: socket.socket) -> bool:
    """Behave as a server that never replies."""
    threading.Event().wait(20)
    return False


def drip(client: socket.socket) -> bool:
    """Behave as a server whose reply never ends."""
    client.sendall(b"$1000000\r\n")
    pause = threading.Event()
    for _ in range(400):
        client.sendall(b"x")
        pause.wait(0.05)
    return False


def close(client: socket.socket) -> bool:
    """Behave as a server that closes the connection."""
    return False


def flood(client: socket.socket) -> bool:
    """Behave as a server that sends an endless line."""
    client.sendall(b"+")
    for _ in range(1600):
        client.sendall(b"x" * 65536)
    return False


ODDITIES: Mapping[str, Oddity] = {
    "error": saying(b"-ERR go away\r\n"),
    "words": saying(b"-this proxy has an unsupported command\r\n"),
    "nil": saying(b"$-1\r\n"),
    "number": saying(b":7\r\n"),
    "text": saying(b"+OK\r\n"),
    "nested": saying(b"*2\r\n*1\r\n*1\r\n:5\r\n$1\r\na\r\n"),
    "empty": saying(b"*0\r\n"),
    "garbage": saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "large array": saying(b"*2147483647\r\n"),
    "100 MB": saying(b"$104857600\r\n" + bytes(65536)),
    "hang": hang,
    "drip": drip,
    "closed": close,
    "flood": flood,
}
BLOCK = """
    - name: {name}
      url: redis://127.0.0.1:{port}
      clients: true
      latency_histograms: true
      streams: [stream, "str*"]
      keys: [text, list, "lis*"]
      key_memory: true
      key_values: true
      queues: {{rq: true, celery: true, lists: [list]}}
"""


@pytest.fixture
def filled(redis_server: RedisServer) -> RedisServer:
    """Give a Redis with data for every command."""
    client = redis_server.client
    client.set("text", 5)
    client.rpush("list", 1, 2)
    client.rpush("celery", "a")
    client.sadd("rq:queues", "rq:queue:mail")
    client.rpush("rq:queue:mail", "job")
    for number in range(10):
        client.xadd("stream", {"n": number})
    client.xgroup_create("stream", "group", "0")
    client.xreadgroup("group", "me", {"stream": ">"}, count=4)
    client.config_set("slowlog-log-slower-than", 0)
    client.ping()
    client.config_set("slowlog-log-slower-than", 10_000)
    return redis_server


@pytest.mark.parametrize("odd", ODDITIES)
def test_one_odd_command(
    filled: RedisServer, redis_proxy: MakeProxy, exporter: StartExporter, odd: str
) -> None:
    """Whatever a server does at one command, INFO's metrics and those of all other commands are served."""
    ports = {name: redis_proxy(filled.port, name, ODDITIES[odd]) for name in COSTS}
    blocks = [BLOCK.format(name="sound", port=filled.port)]
    blocks += [BLOCK.format(name=name.replace(" ", "_"), port=port) for name, port in ports.items()]
    server = exporter("scrape_timeout: 9s\ncollectors:\n  redis:" + "".join(blocks))

    for _ in range(2):
        page: dict[str, dict[Series, float]] = {}
        for (name, labels), value in server.samples().items():
            target = dict(labels).get("target", "")
            others = frozenset(pair for pair in labels if pair[0] != "target")
            page.setdefault(target, {})[name, others] = value
        for command, costs in COSTS.items():
            samples = page[command.replace(" ", "_")]
            missing = {
                series
                for series in page["sound"].keys() - samples.keys()
                if series[0].startswith(("redis_", "messaging_"))
                and not series[0].startswith((*costs, *_VARYING))
            }
            assert (command, missing) == (command, set())
            assert (command, samples["redis_up", frozenset()]) == (command, 1)
