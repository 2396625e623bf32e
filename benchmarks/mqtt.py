"""What readings cost: many messages over many topics, JSON decoded, a gauge and a counter of each topic."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from measuring import Bench, Scraper, Server, ratios, spread
from report import Bar, Row, Section, Table
from servers import free_port, need
from servers.mosquitto import Mosquitto

MESSAGES, TOPICS = 100_000, 1_000
#: Messages a second, sent in bunches of a hundredth of a second.
RATE = 20_000
#: Limits: CPU relative to the Go exporter, and to a callback of paho with prometheus_client.
GO_RATIO, CALLBACK_RATIO = 0.5, 0.2
#: A program has finished when it uses at most 0.01 s of CPU in so many seconds.
_QUIET = 0.5

_HOW = f"""\
{MESSAGES:,} messages of QoS 0 to {TOPICS:,} topics, {RATE:,} a second, through one mosquitto to one program at a time, in turns. Each
payload is JSON of 194 bytes. One number of it becomes a gauge, and a counter counts the messages, both with two labels
from the topic. Each program has received one message per topic before. CPU is that of its process from the first to
the last message. bts-exporter receives them over TCP, TLS and WebSocket, the others over TCP. The callback is paho's, with json and prometheus_client's labels, as one would
write it; mosquitto_sub writes payloads to /dev/null. A message is lost if no count includes it."""


class Sensors:
    """Publishes readings, as fast as they are meant to come."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(b"\x10\x13\x00\x04MQTT\x04\x02\x00\x00\x00\x07sensors")
        assert self._socket.recv(4)[3] == 0
        self._packets = [_packet(number) for number in range(TOPICS)]

    def publish(self, messages: int, rate: float = RATE) -> None:
        """Send `messages`, over all topics in turn."""
        packets = itertools.cycle(self._packets)
        began = time.perf_counter()
        sent = 0
        while sent < messages:
            bunch = min(messages - sent, round(rate / 100))
            self._socket.sendall(b"".join(itertools.islice(packets, bunch)))
            sent += bunch
            time.sleep(max(began + sent / rate - time.perf_counter(), 0))

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def _packet(number: int) -> bytes:
    topic = f"bench/station-{number // 10:03}/{number % 10}".encode()
    reading = {"id": number, "value": number / 8, "reading_time": 1700000000.5, "unit": "ampere"}
    payload = json.dumps(reading | {"note": ""})
    payload = json.dumps(reading | {"note": "x" * (194 - len(payload))}).encode()
    body = len(topic).to_bytes(2, "big") + topic + payload
    return bytes([0x30, len(body) & 0x7F | 0x80, len(body) >> 7]) + body


@dataclass
class Contestant:
    """One subscriber, and what its turns cost."""

    name: str
    start: Callable[[], Server]
    #: The samples whose sum is the number of messages it has seen.
    counts: re.Pattern[str]
    cpu: list[float] = field(default_factory=list)
    lost: int = 0

    def take_turn(self, sensors: Sensors) -> None:
        """Have it take all messages."""
        server = self.start()
        try:
            server.wait()
            while self._seen(server) < TOPICS:
                sensors.publish(TOPICS)
                time.sleep(_QUIET)
            before, warm = self._seen(server), server.cpu()
            sensors.publish(MESSAGES)
            self.cpu.append(_settled(server) - warm)
            self.lost += MESSAGES - (self._seen(server) - before)
        finally:
            server.end()

    def _seen(self, server: Server) -> int:
        with Scraper(server.port) as scraper:
            return sum(int(float(count)) for count in self.counts.findall(scraper.scrape().text))


def run(bench: Bench) -> Section:
    """Measure."""
    folder = bench.new_folder("mosquitto")
    transports = Transports(folder)
    broker = Mosquitto(folder, *transports.listeners)
    bench.ends.callback(broker.kill)
    broker.start()
    sensors = Sensors(broker.port)
    bench.ends.callback(sensors.close)
    contestants = [_ours(bench, "bts-exporter", broker.url), _go(bench, broker)]
    contestants.append(_callback(bench, broker))
    others = [
        _ours(bench, f"bts-exporter, {name}", url, settings)
        for name, url, settings in transports.addresses
    ]
    contestants += others
    reference: list[float] = []
    for _ in range(bench.often(5, 2)):
        for contestant in contestants:
            contestant.take_turn(sensors)
        reference.append(_mosquitto_sub(broker, sensors))
    ours, go, callback = contestants[:3]
    rows = [
        Row(c.name, [spread(c.cpu), float(c.lost)], ratios(ours.cpu, c.cpu)) for c in contestants
    ]
    rows.append(Row("mosquitto_sub", [spread(reference), 0.0], ratios(ours.cpu, reference)))
    beside = {c.name: ratios(ours.cpu, c.cpu).median for c in contestants}
    return Section(
        "Readings of MQTT",
        _HOW,
        [Table(("CPU, s", "messages lost"), "bts / this", rows)],
        bars=[
            Bar(
                f"{beside[go.name]:.2f} of {go.name}, at most {GO_RATIO}",
                beside[go.name] <= GO_RATIO,
            ),
            Bar(
                f"{beside[callback.name]:.2f} of {callback.name}, at most {CALLBACK_RATIO}",
                beside[callback.name] <= CALLBACK_RATIO,
            ),
            *(Bar(f"messages lost by {c.name}: {c.lost}", c.lost == 0) for c in (ours, *others)),
        ],
    )


class Transports:
    """More listeners: TLS, with its own certificate, and WebSocket."""

    def __init__(self, folder: Path) -> None:
        tls, web = free_port(), free_port()
        cert, key = folder / "cert.pem", folder / "key.pem"
        argv = [need("openssl", "openssl"), "req", "-x509", "-nodes", "-newkey", "ec", "-days", "2"]
        argv += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]
        argv += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
        subprocess.run(argv, check=True, capture_output=True)
        self.listeners = [
            *(f"listener {tls} 127.0.0.1", f"certfile {cert}", f"keyfile {key}"),
            *(f"listener {web} 127.0.0.1", "protocol websockets"),
        ]
        self.addresses = [
            ("TLS", f"mqtts://127.0.0.1:{tls}", f"tls: {{ca_file: {cert}}}"),
            ("WebSocket", f"ws://127.0.0.1:{web}", ""),
        ]


def _ours(bench: Bench, name: str, url: str, tls: str = "") -> Contestant:
    settings = f"""\
plugins: none
collectors:
  mqtt:
    url: {url}
    {tls}
    rules:
      bench:
        topic: bench/{{station}}/{{parameter}}
        metrics:
          bench_value: {{path: value}}
          bench_messages_total: {{type: counter}}
"""
    seen = re.compile(r"^bench_messages_total\{.*\} (\S+)", re.MULTILINE)
    return Contestant(name, lambda: bench.start_ours(settings), seen)


def _go(bench: Bench, broker: Mosquitto) -> Contestant:
    package = "prometheus-mqtt-exporter"
    config = bench.new_folder(package) / "config.yaml"
    config.write_text(f"""\
mqtt:
  server: "tcp://127.0.0.1:{broker.port}"
  topic_path: bench/+/+
  device_id_regex: "bench/(?P<deviceid>.*)"
  qos: 0
cache: {{timeout: 60m}}
metrics:
  - {{prom_name: bench_value, mqtt_name: value, help: Newest value., type: gauge}}
  - {{prom_name: bench_id, mqtt_name: id, help: A counter., type: counter}}
""")
    argv = [need(package, package), f"-config={config}", "-listen-address=127.0.0.1"]
    return Contestant(
        package,
        lambda: bench.start(package, lambda port: [*argv, f"-listen-port={port}"]),
        re.compile(r"^received_messages\{.*status=\"success\".*\} (\S+)", re.MULTILINE),
    )


def _callback(bench: Bench, broker: Mosquitto) -> Contestant:
    script = Path(__file__).with_name("paho_callback.py")
    return Contestant(
        "paho's callback",
        lambda: bench.start(
            "callback", lambda port: [sys.executable, str(script), str(broker.port), str(port)]
        ),
        re.compile(r"^bench_messages_total\{.*\} (\S+)", re.MULTILINE),
    )


def _mosquitto_sub(broker: Mosquitto, sensors: Sensors) -> float:
    """Return the CPU seconds that mosquitto's own client takes; RuntimeError if it loses messages."""
    program = need("mosquitto_sub", "mosquitto-clients")
    argv = [program, "-p", str(broker.port), "-t", "bench/#", "-C", str(MESSAGES)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    time.sleep(1)
    sensors.publish(MESSAGES)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime
        time.sleep(0.05)
    process.kill()
    process.wait()
    msg = f"mosquitto_sub loses messages at {RATE} a second"
    raise RuntimeError(msg)


def _settled(server: Server) -> float:
    """Return the CPU seconds of a server as soon as it takes no more of them."""
    before, now = -1.0, server.cpu()
    while now - before > 0.01:
        time.sleep(_QUIET)
        before, now = now, server.cpu()
    return now
