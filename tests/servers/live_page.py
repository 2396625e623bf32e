"""A live page with a made-up past, served by this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from bts_exporter import Collector, CollectorConfig, Scrape, TargetError, backlog, counter, gauge
from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.page_service import Exporter
from bts_exporter.reload_state import ReloadState
from bts_exporter.settings.loader import Common
from bts_exporter.web.routes import Routes
from bts_exporter.web.server import Server, listen

#: How far the made-up past goes back, and its steps, in seconds.
PAST_SECONDS = 900
STEP_SECONDS = 15


class Queue(NamedTuple):
    """A destination at one moment; None is unknown."""

    system: str
    destination: str
    group: str = ""
    backlog: float | None = None
    lag: float | None = None
    method: str = "message_time"
    consumers: float | None = None
    drain: float | None = None
    published: float | None = None
    consumed: float | None = None


#: Returns the destinations at a moment, in seconds from now (0 or less), or raises.
Script = Callable[[float], Sequence[Queue]]


class Broker(Collector):
    """Plays the destinations of a script."""

    vocabulary = backlog.VOCABULARY

    def __init__(self, script: Script) -> None:
        super().__init__(CollectorConfig())
        self.script = script
        self.moment = 0.0

    def collect(self, scrape: Scrape) -> None:
        """Emit the destinations of the moment."""
        for queue in self.script(self.moment):
            key = (queue.system, queue.destination, queue.group)
            values = {
                backlog.BACKLOG: queue.backlog,
                backlog.LAG_SECONDS: queue.lag,
                backlog.CONSUMERS: queue.consumers,
                backlog.DRAIN_SECONDS: queue.drain,
                backlog.PUBLISHED: queue.published,
                backlog.CONSUMED: queue.consumed,
            }
            for metric, value in values.items():
                if value is not None:
                    scrape.emit(metric, value, *key)
            if queue.lag is not None:
                scrape.emit(backlog.LAG_METHOD, 1, *key, queue.method)


class Machine(Collector):
    """Plays a host, with node_exporter's names."""

    local = True
    cpu = counter("node_cpu_seconds_total", "Seconds the CPU spent in each mode.", ("cpu", "mode"))
    total = gauge("node_memory_MemTotal_bytes", "Total memory.")
    available = gauge("node_memory_MemAvailable_bytes", "Available memory.")
    size = gauge(
        "node_filesystem_size_bytes",
        "Size.",
        ("device", "mountpoint", "fstype", "device_error"),
    )
    avail = gauge(
        "node_filesystem_avail_bytes",
        "Space available.",
        ("device", "mountpoint", "fstype", "device_error"),
    )
    read = counter("node_disk_read_bytes_total", "Bytes read.", ("device",))
    written = counter("node_disk_written_bytes_total", "Bytes written.", ("device",))
    received = counter("node_network_receive_bytes_total", "Bytes received.", ("device",))
    sent = counter("node_network_transmit_bytes_total", "Bytes sent.", ("device",))
    cpu_wait = counter("node_pressure_cpu_waiting_seconds_total", "Waiting for CPU.")
    memory_wait = counter("node_pressure_memory_waiting_seconds_total", "Waiting for memory.")
    io_wait = counter("node_pressure_io_waiting_seconds_total", "Waiting for I/O.")

    def __init__(self) -> None:
        super().__init__(CollectorConfig())
        self.moment = 0.0

    def collect(self, scrape: Scrape) -> None:
        """Emit the figures of the moment."""
        seconds = self.moment + 10_000
        wave = 40 * math.sin(seconds / 90)
        scrape.emit(self.cpu, 0.3 * seconds + wave / 4, "0", "user")
        scrape.emit(self.cpu, 0.7 * seconds - wave / 4, "0", "idle")
        scrape.emit(self.total, 16e9)
        scrape.emit(self.available, 9e9 - 5e8 * math.sin(seconds / 200))
        scrape.emit(self.size, 100e9, "/dev/sda1", "/var/lib/rabbitmq", "ext4", "")
        scrape.emit(self.avail, 30e9 - seconds * 1e5, "/dev/sda1", "/var/lib/rabbitmq", "ext4", "")
        scrape.emit(self.read, 2e6 * seconds + 1e6 * wave, "sda")
        scrape.emit(self.written, 9e6 * seconds + 4e6 * wave, "sda")
        scrape.emit(self.received, 1.5e6 * seconds + 3e5 * wave, "eth0")
        scrape.emit(self.sent, 4e5 * seconds, "eth0")
        scrape.emit(self.cpu_wait, 0.06 * seconds + wave / 30)
        scrape.emit(self.memory_wait, 0.0)
        scrape.emit(self.io_wait, 0.02 * seconds + wave / 90)


def refuse(address: str) -> Script:
    """Return a script of a target that refuses connections."""

    def script(_: float) -> Sequence[Queue]:
        reason = "refused"
        raise TargetError(reason, f"{address}: connection refused; is the broker running?")

    return script


def number(count: int) -> Script:
    """Return a script of so many queues, of which the first are the latest."""

    def script(moment: float) -> Sequence[Queue]:
        return [
            Queue("redis", f"queue-{i:04d}", "workers", 5000 - i, max(1000.0 - i + moment, 0))
            for i in range(count)
        ]

    return script


class Page:
    """A served page."""

    def __init__(self, exporter: Exporter, brokers: Sequence[Broker], port: int) -> None:
        self.exporter = exporter
        self.brokers = brokers
        self.address = f"http://127.0.0.1:{port}/"


@contextmanager
def served(scripts: Mapping[str, Script], *, past: bool = False) -> Iterator[Page]:
    """Serve a page with brokers of these names (type:target) and a host."""
    exporter = Exporter()
    exporter.collectors = together = CollectorSet()
    brokers = [Broker(script) for script in scripts.values()]
    machine = Machine()
    together.add(machine, "host", Common())
    for name, broker in zip(scripts, brokers, strict=True):
        kind, _, target = name.partition(":")
        together.add(broker, kind, Common(name=target))
    now = time.monotonic()
    for moment in range(-PAST_SECONDS if past else 0, 1, STEP_SECONDS):
        for player in (machine, *brokers):
            player.moment = moment
        shots = together.collect(together.runners, 30)
        if moment < 0:
            exporter.counts.observe(shots, now + moment)
            exporter.recorder.record(shots, now + moment)
    exporter.remember(shots)
    listener = listen("127.0.0.1:0")
    server = Server(
        [listener], Routes(exporter, ReloadState(successful=True, loaded_at=time.time()))
    )
    server.start()
    try:
        yield Page(exporter, brokers, listener.getsockname()[1])
    finally:
        server.stop(1)
        for last in together.stop(together.runners):
            last.wait(10)
        together.close()
