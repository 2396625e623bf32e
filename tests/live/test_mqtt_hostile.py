"""The real process against hostile brokers: huge announcements, malformed replies, closed connections."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from servers import wait_until
from servers.exporter import Exporter, StartExporter
from servers.management import FakeManagement, Handler, Reply
from servers.mosquitto import Mosquitto
from servers.mqttfake import (
    CONNACK,
    CONNECT,
    PINGREQ,
    PUBLISH,
    SUBSCRIBE,
    FakeBroker,
    accept_websocket,
    filters_of,
    frame,
    lets_in,
    packet,
    publish,
)

pytestmark = pytest.mark.live

RULES = """\
    keepalive: 1
    rules:
      readings:
        topic: bts/{station}
        metrics: {bts_reading: {path: value}}
"""
#: The remaining length that MQTT can spell at most: 256 MiB.
LONGEST = b"\xff\xff\xff\x7f"
#: Bytes by which nothing that a broker announces may make the process grow.
GROWTH = 30 * 1024 * 1024


def settings(url: str, more: str = RULES) -> str:
    """Return settings of one broker."""
    return f"plugins: none\ncollectors:\n  mqtt:\n    url: {url}\n{more}"


def resident(exporter: Exporter) -> int:
    """Return the memory of the process in bytes."""
    status = Path(f"/proc/{exporter.popen.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def failures(exporter: Exporter) -> float:
    """Return how many connections failed or ended, for any reason."""
    found = exporter.samples()
    names = ("mqtt_connect_failures_total", "mqtt_disconnects_total")
    return sum(value for (name, _), value in found.items() if name in names)


def answers_connect(reply: bytes) -> Callable[[int, bytes], bytes | None]:
    """Return a CONNACK."""
    return lambda kind, body: reply if kind == CONNECT else lets_in(kind, body)


def answers_subscribe(reply: bytes) -> Callable[[int, bytes], bytes | None]:
    """Return a reply to SUBSCRIBE that follows the SUBACK."""

    def answer(kind: int, body: bytes) -> bytes | None:
        right = lets_in(kind, body)
        return right + reply if right and kind == SUBSCRIBE else right

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        answers_connect(bytes([CONNACK << 4]) + LONGEST),
        answers_subscribe(b"\x90" + LONGEST),
        answers_subscribe(b"\x32" + LONGEST + b"\x00\x03bts\x00\x01"),
        answers_subscribe(b"\xd0" + LONGEST),
        answers_subscribe(b"\x30\xff\xff\xff\xff\x7f"),
        answers_subscribe(b"\x30\x02\xff\xff"),
    ],
)
def test_announced_sizes_allocate_no_memory(
    fake_broker: FakeBroker, exporter: StartExporter, answer: Callable[[int, bytes], bytes | None]
) -> None:
    """A packet of 256 MiB that is announced but not sent neither blocks nor takes memory."""
    server = exporter(settings(f"mqtt://127.0.0.1:{fake_broker(answer)}"))
    before = resident(server)
    wait_until(lambda: failures(server) >= 2, "given up, twice")

    assert resident(server) - before < GROWTH
    assert server.value("mqtt_network_thread_restarts_total") == 0


def unreleased(connection: socket.socket) -> None:
    """Send messages with QoS 2 endlessly, without PUBREL."""
    connection.recv(4096)
    connection.sendall(packet(CONNACK, b"\x00\x00"))
    request = connection.recv(4096)
    connection.sendall(packet(9, request[2:4] + b"\x00"))
    body = b'{"value": 1, "x": "' + b"x" * 500_000 + b'"}'
    with suppress(OSError):
        for number in range(1, 400):
            connection.sendall(packet(PUBLISH, b"\x00\x05bts/7" + number.to_bytes(2) + body, 4))
        while connection.recv(65536):
            pass


def test_messages_that_are_never_released_are_not_kept(
    fake_broker: FakeBroker, exporter: StartExporter
) -> None:
    """200 MB with QoS 2 and without PUBREL: each message is delivered once and not kept."""
    server = exporter(settings(f"mqtt://127.0.0.1:{fake_broker(talk=unreleased)}"))
    before = resident(server)
    wait_until(
        lambda: (server.value("mqtt_received_messages_total", rule="readings") or 0) >= 399,
        "all received",
    )

    assert server.value("bts_reading", station="7") == 1
    assert resident(server) - before < GROWTH


def unread(connection: socket.socket) -> None:
    """Send messages with QoS 1 endlessly, without reading acknowledgements."""
    connection.recv(4096)
    connection.sendall(packet(CONNACK, b"\x00\x00"))
    request = connection.recv(4096)
    connection.sendall(packet(9, request[2:4] + b"\x00"))
    messages = b"".join(
        packet(PUBLISH, b"\x00\x05bts/7" + number.to_bytes(2) + b'{"value": 1}', 2)
        for number in range(1, 60_000)
    )
    with suppress(OSError):
        while True:
            connection.sendall(messages)


def test_unread_acknowledgements_are_limited(
    fake_broker: FakeBroker, exporter: StartExporter
) -> None:
    """The connection ends before they fill the memory, and the error says why."""
    server = exporter(settings(f"mqtt://127.0.0.1:{fake_broker(talk=unread)}"))
    before = resident(server)
    wait_until(
        lambda: (server.value("mqtt_disconnects_total", reason="protocol") or 0) >= 1, "given up"
    )

    assert resident(server) - before < 2 * GROWTH
    assert server.value("mqtt_network_thread_restarts_total") == 0


def endless_head(connection: socket.socket) -> None:
    """Answer the handshake with endless headers."""
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
    with suppress(OSError):
        while True:
            connection.sendall(b"X-More: " + b"x" * 60_000)


def announces(head: bytes) -> Callable[[socket.socket], None]:
    """Return a function that performs the handshake and sends a frame header."""

    def talk(connection: socket.socket) -> None:
        accept_websocket(connection)
        connection.recv(4096)
        connection.sendall(head)
        connection.recv(4096)

    return talk


@pytest.mark.parametrize(
    "talk",
    [
        endless_head,
        announces(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"),
        announces(b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"),
        announces(b"\x89\x7e\xff\xff"),
        announces(b"\x81\x05hello"),
        announces(b"\x82\x85\x00\x00\x00\x00hello"),
        announces(b"\xf2\x05hello"),
    ],
)
def test_invalid_websocket_is_named(
    fake_broker: FakeBroker, exporter: StartExporter, talk: Callable[[socket.socket], None]
) -> None:
    """Endless headers, frames larger than any packet, and invalid frames."""
    server = exporter(settings(f"ws://127.0.0.1:{fake_broker(talk=talk)}"))
    before = resident(server)
    wait_until(
        lambda: (server.value("mqtt_connect_failures_total", reason="protocol") or 0) >= 1,
        "refused as no MQTT over WebSocket",
    )

    assert resident(server) - before < GROWTH
    assert server.value("mqtt_network_thread_restarts_total") == 0


def test_websocket_may_split_packets_anywhere(
    fake_broker: FakeBroker, exporter: StartExporter
) -> None:
    """Fragments, pings in between, several packets per frame, one byte per frame: all messages arrive."""
    stream = b"".join(publish("bts/7", b'{"value": %d}' % number) for number in range(100))

    def talk(connection: socket.socket) -> None:
        accept_websocket(connection)
        connection.recv(4096)
        connection.sendall(frame(b"\x20\x02\x00") + frame(b"\x00"))
        request = connection.recv(4096)  # masked
        mask = request[2:6]
        number = bytes(a ^ b for a, b in zip(request[8:10], mask[2:], strict=True))
        connection.sendall(b"\x02\x02\x90\x03" + b"\x80\x03" + number + b"\x00" + frame(b"", 9))
        connection.sendall(frame(stream) + frame(b"ping", 9))
        for at in range(len(stream)):
            connection.sendall(frame(stream[at : at + 1]))
        while connection.recv(4096):
            pass

    server = exporter(settings(f"ws://127.0.0.1:{fake_broker(talk=talk)}"))
    wait_until(
        lambda: server.value("mqtt_received_messages_total", rule="readings") == 200, "200 messages"
    )

    assert server.value("bts_reading", station="7") == 99


def refuses_sys(kind: int, body: bytes) -> bytes | None:
    """Reply like a broker that denies `$SYS`."""
    if kind == SUBSCRIBE and filters_of(body)[0].startswith("$SYS"):
        return packet(9, body[:2] + b"\x80")
    return lets_in(kind, body)


def hangs_up_on_sys(kind: int, body: bytes) -> bytes | None:
    """Reply like AWS IoT, which closes the connection."""
    if kind == SUBSCRIBE and any(name.startswith("$SYS") for name in filters_of(body)):
        return None
    return lets_in(kind, body)


def silent_on_sys(kind: int, body: bytes) -> bytes | None:
    """Never answer a subscription to `$SYS`."""
    if kind == SUBSCRIBE and any(name.startswith("$SYS") for name in filters_of(body)):
        return b""
    return lets_in(kind, body)


def with_a_message(
    answer: Callable[[int, bytes], bytes | None],
) -> Callable[[int, bytes], bytes | None]:
    """Return a function that sends a reading after each ping."""
    return lambda kind, body: (
        publish("bts/7", b'{"value": 5}') + packet(13) if kind == PINGREQ else answer(kind, body)
    )


@pytest.mark.parametrize("answer", [refuses_sys, hangs_up_on_sys, silent_on_sys])
def test_broker_without_sys_is_up_by_its_rules(
    fake_broker: FakeBroker,
    exporter: StartExporter,
    answer: Callable[[int, bytes], bytes | None],
) -> None:
    """If $SYS is denied, unanswered or ends the connection, rules work and the collection succeeds."""
    server = exporter(settings(f"mqtt://127.0.0.1:{fake_broker(with_a_message(answer))}"))
    wait_until(lambda: server.value("bts_reading", station="7") == 5, "a reading")
    wait_until(lambda: server.value("mqtt_up") == 1, "up")
    wait_until(
        lambda: server.value("bts_exporter_collector_success", collector="mqtt", target="") == 1,
        "success",
    )

    denied = server.value("mqtt_subscription_granted_qos", filter="$SYS/#")
    assert denied == (None if answer is silent_on_sys else -1)


def test_denied_sys_is_named(fake_broker: FakeBroker, exporter: StartExporter) -> None:
    """If nothing else shows that the broker is up."""
    server = exporter(settings(f"mqtt://127.0.0.1:{fake_broker(refuses_sys)}", ""))
    wait_until(lambda: "subscription to $SYS/#" in server.log.read_text(), "named in the log")

    assert server.value("mqtt_up") == 0


def test_sys_may_be_left_out(fake_broker: FakeBroker, exporter: StartExporter) -> None:
    """With `sys: false` there is no subscription to $SYS, and the connection shows that the broker is up."""
    asked: list[str] = []

    def answer(kind: int, body: bytes) -> bytes | None:
        asked.extend(filters_of(body) if kind == SUBSCRIBE else [])
        return lets_in(kind, body)

    server = exporter(settings(f"mqtt://127.0.0.1:{fake_broker(answer)}", "    sys: false\n"))
    wait_until(lambda: server.value("mqtt_up") == 1, "up")

    assert asked == []


def test_filter_that_ends_the_connection_affects_only_its_rule(
    fake_broker: FakeBroker, exporter: StartExporter
) -> None:
    """It is left out and named; the other rule receives its messages."""

    def answer(kind: int, body: bytes) -> bytes | None:
        if kind == SUBSCRIBE and "secret/+" in filters_of(body):
            return None
        return lets_in(kind, body)

    more = RULES + "      secret: {topic: 'secret/{x}', metrics: {secret: {path: value}}}\n"
    server = exporter(settings(f"mqtt://127.0.0.1:{fake_broker(with_a_message(answer))}", more))
    wait_until(lambda: server.value("bts_reading", station="7") == 5, "a reading", 60)

    assert server.value("mqtt_subscription_granted_qos", filter="secret/+") == -1
    assert server.value("mqtt_up") == 1
    wait_until(lambda: "secret/+" in server.log.read_text(), "the line in the log")


def large(body: bytes, *, packed: bool) -> Reply:
    """Return a truncated response, or a zip bomb."""

    def reply(handler: Handler) -> None:
        handler.send_response(200)
        if packed:
            handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(body) + (0 if packed else 10)))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return reply


@pytest.mark.parametrize("packed", [False, True])
def test_failed_responses_of_emqx_are_not_kept(
    mosquitto: Mosquitto, exporter: StartExporter, packed: bool
) -> None:
    """Fifty truncated responses or zip bombs need no more memory than five."""
    client = b'{"clientid": "%s", "mqueue_len": 1}'
    body = b'{"data": [' + b",".join(client % (b"x" * 100) for _ in range(40_000))
    if packed:
        body = gzip.compress(b" " * 50_000_000)
    with FakeManagement() as api:
        api.routes["/api/v5/clients"] = large(body, packed=packed)
        server = exporter(settings(mosquitto.url, f"    emqx: {{url: '{api.url}'}}\n"))
        for _ in range(5):
            server.samples()
        after_five = now_resident(server)
        for _ in range(45):
            server.samples()

        assert len(api.requests) >= 50
        assert now_resident(server) - after_five < GROWTH / 2
        assert server.value("mqtt_up") == 1


def now_resident(exporter: Exporter) -> int:
    """Return the current memory of the process in bytes."""
    status = Path(f"/proc/{exporter.popen.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_many_scrapers_and_floods_at_once(fake_broker: FakeBroker, exporter: StartExporter) -> None:
    """Fifty concurrent scrapes succeed while a broker floods with topics, valid and invalid payloads."""

    def flood(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(packet(CONNACK, b"\x00\x00"))
        number = 0
        with suppress(OSError):
            while True:
                batch = [
                    publish(f"bts/{(number + n) % 30_000}", b'{"value": nan}' if n % 2 else b"{")
                    for n in range(200)
                ]
                connection.sendall(b"".join(batch) + publish("bts/7", b'{"value": 1}'))
                number += 200

    server = exporter(settings(f"mqtt://127.0.0.1:{fake_broker(talk=flood)}"))
    wait_until(lambda: server.value("bts_reading", station="7") == 1, "a reading")
    with ThreadPoolExecutor(50) as pool:
        pages = list(pool.map(lambda _: server.get("/metrics")[0], range(100)))

    assert set(pages) == {200}
    assert server.value("mqtt_message_handling_errors_total") == 0
    assert server.value("mqtt_connected") == 1


def test_client_id_is_the_one_that_is_set(fake_broker: FakeBroker, exporter: StartExporter) -> None:
    """Brokers may permit clients by id."""
    bodies: list[bytes] = []

    def answer(kind: int, body: bytes) -> bytes | None:
        bodies.extend([body] if kind == CONNECT else [])
        return lets_in(kind, body)

    server = exporter(
        settings(f"mqtt://127.0.0.1:{fake_broker(answer)}", "    sys: false\n    client_id: mine\n")
    )
    wait_until(lambda: server.value("mqtt_up") == 1, "up")

    assert bodies[0].endswith(b"\x00\x04mine")


def test_names_that_yaml_reads_as_values_are_refused(tmp_path: Path) -> None:
    """With line and cure, before metrics are served under another name."""
    config = tmp_path / "config.yaml"
    rule = "{topic: a, metrics: {m: {path: b}}}"
    config.write_text(f"collectors:\n  mqtt:\n    rules:\n      on: {rule}\n      null: {rule}\n")
    done = subprocess.run(
        [sys.executable, "-m", "bts_exporter", f"--config.file={config}", "check"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert "YAML reads on, yes or true as True: quote the name" in done.stderr
    assert "YAML reads null or ~ as None" in done.stderr


def test_pause_of_the_process_is_no_fault_of_the_broker(
    mosquitto: Mosquitto, exporter: StartExporter
) -> None:
    """Messages that came meanwhile are read before anything expires, and the broker stays up."""
    more = "    keepalive: 60\n    stale_after: 3\n    canary: {interval: 1s, timeout: 5s}\n"
    server = exporter(settings(mosquitto.url, more))

    def canaries(which: str) -> float:
        return server.value(f"mqtt_canary_{which}_total", qos="0") or 0

    wait_until(lambda: canaries("received") >= 1, "a canary back")
    mosquitto.freeze()
    wait_until(lambda: canaries("sent") > canaries("received"), "a canary under way")
    server.freeze()
    mosquitto.thaw()
    ready = time.monotonic() + 12
    wait_until(lambda: time.monotonic() > ready, "longer than any of the time-outs")
    server.thaw()
    found = server.samples()
    wait_until(lambda: canaries("received") >= 3, "canaries come back again")

    assert found["mqtt_up", frozenset()] == 1
    assert canaries("lost") == 0
