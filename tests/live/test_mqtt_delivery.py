"""No message is lost over any transport, and nothing is left in other clients' queues."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bts_collectors.mqtt.client import network_thread as supervisor_module
from bts_collectors.mqtt.probes.canary import CanaryConfig
from bts_collectors.mqtt.sessions.mosquitto import PersistenceConfig
from bts_exporter import AddressWatch, Duration, TLSConfig
from bts_exporter.testing import collect, look
from servers import free_port, listens, need, wait_until
from servers.certificates import Certificates
from servers.exporter import Exporter, StartExporter
from servers.mosquitto import Mosquitto, StartMosquitto
from servers.mqtt import Start, shows
from servers.mqttfake import packet

pytestmark = pytest.mark.live

TRANSPORTS = pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])


class Published:
    """A client that publishes at a given rate, with QoS 0."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(packet(1, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x07sensors"))
        assert self._socket.recv(4)[3] == 0

    def send(self, messages: dict[str, bytes], *, retained: bool = False) -> None:
        """Send a message to each topic."""
        self._socket.sendall(
            b"".join(
                packet(3, len(topic).to_bytes(2) + topic.encode() + payload, int(retained))
                for topic, payload in messages.items()
            )
        )

    def close(self) -> None:
        """End the connection when all is sent."""
        self._socket.sendall(packet(14))
        self._socket.close()


@pytest.fixture
def broker(
    start_mosquitto: StartMosquitto, certificates: Certificates
) -> tuple[Mosquitto, dict[str, int]]:
    """Return a broker without a queue limit, and its ports by scheme."""
    ports = {scheme: free_port() for scheme in ("mqtts", "ws", "wss")}
    tls = [f"certfile {certificates.server}", f"keyfile {certificates.server_key}"]
    lines = ["max_queued_messages 0"]
    for scheme, port in ports.items():
        lines.append(f"listener {port} 127.0.0.1")
        lines += ["protocol websockets"] if "ws" in scheme else []
        lines += tls if scheme in {"mqtts", "wss"} else []
    started = start_mosquitto(*lines)
    wait_until(lambda: all(map(listens, ports.values())), "all listeners")
    return started, {"mqtt": started.port} | ports


@pytest.fixture
def serve(
    broker: tuple[Mosquitto, dict[str, int]], certificates: Certificates, exporter: StartExporter
) -> Any:
    """Return a function that starts an exporter over a transport."""

    def start(scheme: str) -> Exporter:
        tls = f"tls: {{ca_file: {certificates.ca}}}" if scheme in {"mqtts", "wss"} else ""
        return exporter(f"""\
plugins: none
collectors:
  mqtt:
    url: {scheme}://127.0.0.1:{broker[1][scheme]}
    {tls}
    rules:
      readings:
        topic: bts/{{station}}
        metrics: {{bts_reading: {{path: value}}}}
""")

    return start


@TRANSPORTS
def test_retained_flood_arrives_completely(
    serve: Any, broker: tuple[Mosquitto, dict[str, int]], scheme: str
) -> None:
    """5,000 messages of 1.5 kB, which the broker sends at once."""
    source = Published(broker[0].port)
    padding = b"x" * 1470
    for first in range(0, 5000, 500):
        payloads = {
            f"bts/{n}": b'{"value": %d, "x": "%s"}' % (n, padding)
            for n in range(first, first + 500)
        }
        source.send(payloads, retained=True)
    source.close()
    watcher = subprocess.run(
        [
            need("mosquitto_sub", "mosquitto-clients"),
            "-p",
            str(broker[0].port),
            "-t",
            "bts/#",
            "-C",
            "5000",
            "-W",
            "20",
            "-F",
            "%l",
        ],
        check=True,
        capture_output=True,
    )
    assert watcher.stdout.count(b"\n") == 5000
    server = serve(scheme)
    wait_until(lambda: server.value("mqtt_series", rule="readings") == 5000, "5,000 series")

    assert server.value("mqtt_received_messages_total", rule="readings") == 5000
    assert server.value("bts_reading", station="4999") == 4999


@TRANSPORTS
def test_stream_of_messages_arrives_completely(
    serve: Any, broker: tuple[Mosquitto, dict[str, int]], scheme: str
) -> None:
    """40,000 messages of 200 bytes within a few seconds."""
    server = serve(scheme)
    wait_until(
        lambda: server.value("mqtt_subscription_granted_qos", filter="bts/+") == 0, "subscribed"
    )
    source = Published(broker[0].port)
    messages = {f"bts/{n}": b'{"value": %d, "x": "%s"}' % (n, b"x" * 170) for n in range(1000)}
    for _ in range(40):
        source.send(messages)
    source.close()
    wait_until(
        lambda: server.value("mqtt_received_messages_total", rule="readings") == 40_000,
        "40,000 messages",
    )

    assert server.value("mqtt_up") == 1


def test_canary_fills_no_queue(mosquitto: Mosquitto, start: Start) -> None:
    """A disconnected client that subscribes to everything has no canary messages in its queue."""
    mosquitto.subscribe_and_leave("archive", "#")
    collector = start(mosquitto.url, canary=CanaryConfig(interval=Duration(1)))
    wait_until(
        lambda: look(collector)[0]["mqtt_canary_received_total"]["0",] >= 3, "three canaries back"
    )
    wait_until(shows(collector, "mosquitto_queued_messages", 0), "nothing queued")


def test_canary_of_mqtt_5_expires(
    start_mosquitto: StartMosquitto, start: Start, tmp_path: Path
) -> None:
    """With QoS 1, messages stay in a queue only for the canary's timeout."""
    file = tmp_path / "mosquitto.db"
    broker = start_mosquitto("persistence true", f"persistence_location {tmp_path}/")
    broker.subscribe_and_leave("archive", "#")
    canary = CanaryConfig(interval=Duration(1), timeout=Duration(1), qos=(1,))
    source = start(broker.url, canary=canary, protocol=5)
    wait_until(
        lambda: look(source)[0]["mqtt_canary_received_total"]["1",] >= 2, "two canaries back"
    )
    source.stop()
    assert broker.process
    broker.process.popen.send_signal(signal.SIGUSR1)
    wait_until(file.exists, "saved")
    reader = start(broker.url, persistence=PersistenceConfig(file=str(file)))
    queued = "mosquitto_client_queued_messages"
    wait_until(shows(reader, queued, 0, "archive"), "all of them have expired")


def test_expired_messages_are_not_a_backlog(
    start_mosquitto: StartMosquitto, start: Start, tmp_path: Path
) -> None:
    """Mosquitto saves them until it removes them."""
    file = tmp_path / "mosquitto.db"
    broker = start_mosquitto("persistence true", f"persistence_location {tmp_path}/")
    broker.subscribe_and_leave("consumer", "bts/#")
    broker.publish("bts/1", count=2)
    pub = [need("mosquitto_pub", "mosquitto-clients"), "-p", str(broker.port), "-V", "5", "-q", "1"]
    for seconds, number in (("1", 3), ("3600", 4)):
        expiry = ["-D", "publish", "message-expiry-interval", seconds, "--repeat", str(number)]
        subprocess.run([*pub, "-t", "bts/1", "-m", "x", *expiry], check=True, timeout=20)
    assert broker.process
    broker.process.popen.send_signal(signal.SIGUSR1)
    wait_until(file.exists, "saved")
    collector = start(broker.url, persistence=PersistenceConfig(file=str(file)))

    wait_until(
        shows(collector, "mosquitto_client_queued_messages", 6, "consumer"), "three have expired"
    )
    assert collect(collector)["messaging_backlog_messages"]["mqtt", "", "consumer"] == 6


def test_password_that_was_changed_is_read_again(
    start_mosquitto: StartMosquitto, exporter: StartExporter, tmp_path: Path
) -> None:
    """After the broker refuses the old one, the file is read again."""
    broker = start_mosquitto(anonymous=False, users={"monitor": "new"})
    secret = tmp_path / "secret"
    secret.write_text("old")
    server = exporter(
        "plugins: none\ncollectors:\n  mqtt:\n"
        f"    url: mqtt://monitor@127.0.0.1:{broker.port}\n    password: !file {secret}\n"
    )
    wait_until(
        lambda: (server.value("mqtt_connect_failures_total", reason="auth") or 0) >= 1, "refused"
    )
    secret.write_text("new")
    wait_until(lambda: server.value("mqtt_up") == 1, "up", 60)


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the addresses of the name broker.test, for a test to change."""
    addresses = ["127.0.0.1"]
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        return real(addresses[0] if host == "broker.test" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(
        supervisor_module, "AddressWatch", partial(AddressWatch, interval_seconds=0)
    )
    return addresses


def test_changed_address_of_the_host_name_is_followed(
    start_mosquitto: StartMosquitto, start: Start, moving: list[str]
) -> None:
    """Although the old broker still works."""
    old = start_mosquitto()
    new = start_mosquitto(f"listener {old.port} 127.0.0.2")
    new.publish("bts/1", "retained", retain=True)
    collector = start(f"mqtt://broker.test:{old.port}")
    wait_until(shows(collector, "mqtt_connects_total", 1), "connected")
    moving[0] = "127.0.0.2"
    wait_until(shows(collector, "mqtt_connects_total", 2), "connected to the other one")
    found, _ = look(collector)

    assert set(found["mqtt_disconnects_total"].values()) == {0}
    assert len([t for t in threading.enumerate() if t.name == "bts-lookup"]) <= 1


def test_deleted_retained_message_removes_the_series(
    mosquitto: Mosquitto, exporter: StartExporter
) -> None:
    """An empty payload deletes a retained message; it is not an error."""
    server = exporter(f"""\
plugins: none
collectors:
  mqtt:
    url: {mosquitto.url}
    protocol: 5
    rules:
      readings:
        topic: bts/{{station}}
        qos: 1
        property_labels: {{room: room}}
        metrics:
          bts_reading: {{path: value}}
          bts_readings_total: {{type: counter}}
""")
    granted = ("mqtt_subscription_granted_qos", {"filter": "bts/+"})
    wait_until(lambda: server.value(granted[0], **granted[1]) == 1, "subscribed with QoS 1")
    pub = [need("mosquitto_pub", "mosquitto-clients"), "-p", str(mosquitto.port), "-V", "5", "-r"]
    room = ["-D", "publish", "user-property", "room", "hall"]
    for station in ("7", "8"):
        argv = [*pub, "-t", f"bts/{station}", "-m", '{"value": 5}', *room]
        subprocess.run(argv, check=True, timeout=20)
    wait_until(lambda: server.value("bts_reading", station="8", room="hall") == 5, "both shown")
    subprocess.run([*pub, "-t", "bts/7", "-n"], check=True, timeout=20)
    wait_until(lambda: server.value("bts_reading", station="7", room="hall") is None, "removed")

    assert server.value("bts_reading", station="8", room="hall") == 5
    assert server.value("bts_readings_total", station="7", room="hall") is None
    assert server.value("mqtt_message_errors_total", rule="readings", reason="malformed") == 0


def test_descriptors_above_a_thousand_are_served(mosquitto: Mosquitto, start: Start) -> None:
    """The client works in a process with many open files, where select() would fail."""
    with ExitStack() as files:
        for _ in range(1100):
            files.callback(os.close, os.dup(0))
        collector = start(mosquitto.url, canary=CanaryConfig(interval=Duration(1)))
        wait_until(shows(collector, "mqtt_up", 1), "up")
        wait_until(
            lambda: look(collector)[0]["mqtt_canary_received_total"]["0",] >= 1, "a canary back"
        )


@pytest.mark.parametrize(
    "case",
    [
        ("mqtt", "mqtts", "unreachable", "does the port speak TLS (mqtts://, usually 8883)"),
        ("mqtt", "ws", "protocol", "the server speaks HTTP: for MQTT over WebSocket use ws://"),
        ("mqtt", "wss", "unreachable", "does the port speak TLS"),
        ("mqtts", "mqtt", "unreachable", "1883 is without (mqtt://)"),
        ("mqtts", "ws", "tls", "does this port speak TLS?"),
        ("mqtts", "wss", "protocol", "or wss:// with TLS"),
        ("ws", "mqtt", "unreachable", "1883 is plain MQTT (mqtt://)"),
        ("ws", "mqtts", "unreachable", "is it a WebSocket listener"),
        ("ws", "wss", "unreachable", "has TLS (wss://)"),
        ("wss", "mqtt", "unreachable", "8883 is MQTT (mqtts://)"),
        ("wss", "ws", "tls", "does this port speak TLS?"),
        ("wss", "mqtts", "unreachable", "8883 is MQTT (mqtts://)"),
    ],
)
def test_confused_ports_are_named(
    broker: tuple[Mosquitto, dict[str, int]],
    certificates: Certificates,
    start: Start,
    case: tuple[str, str, str, str],
) -> None:
    """Each listener with each scheme: the message names the probable protocol."""
    scheme, port, reason, words = case
    tls = TLSConfig(ca_file=str(certificates.ca)) if scheme in {"mqtts", "wss"} else TLSConfig()
    _, error = look(start(f"{scheme}://127.0.0.1:{broker[1][port]}", tls=tls))

    assert error is not None
    assert (error.reason, words in str(error)) == (reason, True), error
