"""The service's real processes on real brokers."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from bts import faults
from servers import Process, free_port, listens, wait_until
from servers.mosquitto import Mosquitto
from servers.rabbitmq import RabbitMQ
from servers.redis import RedisServer


class Stack:
    """Brokers of our own and the processes of the service, each started when a test asks for it."""

    def __init__(
        self, folder: Path, mosquitto: Mosquitto, rabbitmq: RabbitMQ, redis: RedisServer
    ) -> None:
        self.folder = folder
        self.mosquitto, self.rabbitmq, self.redis = mosquitto, rabbitmq, redis
        self.faults = folder / "faults"
        self.ports: dict[str, int] = {}
        self.processes: dict[str, Process] = {}

    def start(self, role: str, *arguments: str) -> Process:
        """Start a process of the service and wait until it serves its metrics."""
        port = self.ports.setdefault(role, free_port())
        folder = self.folder / role
        folder.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "BTS_MQTT": f"127.0.0.1:{self.mosquitto.port}",
            "BTS_AMQP": f"amqp://guest:guest@127.0.0.1:{self.rabbitmq.amqp}/",
            "BTS_REDIS": self.redis.url,
            "BTS_FAULTS": str(self.faults),
        }
        argv = [sys.executable, "-m", f"bts.{role}", f"--metrics-port={port}", *arguments]
        self.processes[role] = process = Process(argv, folder, environment)
        process.ready(lambda: listens(port))
        return process

    def inject(self, *names: str) -> None:
        """Make these faults, and no others, the active ones."""
        assert set(names) <= set(faults.FAULTS)
        faults.write(self.faults, frozenset(names))

    def get(self, role: str, path: str = "/metrics") -> str:
        """Return the body that a process serves."""
        url = f"http://127.0.0.1:{self.ports[role]}{path}"
        with urllib.request.urlopen(url, timeout=10) as response:
            body: str = response.read().decode()
        return body

    def value(self, role: str, series: str) -> float | None:
        """Return the value of a series of a process, as written in its metrics; None if it has none."""
        for line in self.get(role).splitlines():
            name, _, value = line.rpartition(" ")
            if name == series:
                return float(value)
        return None

    def stop(self) -> None:
        """End all processes of the service."""
        for process in self.processes.values():
            process.kill()


@pytest.fixture
def stack(
    tmp_path: Path,
    start_mosquitto: Callable[..., Mosquitto],
    rabbitmq: RabbitMQ,
    make_redis: Callable[..., RedisServer],
) -> Iterator[Stack]:
    """Return brokers without messages, and nothing started yet."""
    mosquitto = start_mosquitto("max_inflight_messages 1000", "max_queued_messages 100000")
    result = Stack(tmp_path, mosquitto, rabbitmq, make_redis())
    yield result
    result.stop()
    # The broker is shared with other tests, which have other queues.
    for queue in rabbitmq.api("queues/%2F"):
        if queue["name"].startswith(("bts.", "in_")):
            rabbitmq.api(f"queues/%2F/{queue['name']}", "DELETE")


class Listener:
    """An MQTT client that remembers every reading that is published."""

    def __init__(self, port: int) -> None:
        self.readings: list[dict[str, object]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="test-listener")
        self._client.on_message = lambda _c, _d, message: self.readings.append(
            json.loads(message.payload)
        )
        subscribed: list[object] = []
        self._client.on_subscribe = lambda *_: subscribed.append(1)
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("bts/+/+", qos=1)
        self._client.loop_start()
        wait_until(lambda: subscribed, "subscription")

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def listener(stack: Stack) -> Iterator[Listener]:
    """Return a client that has subscribed to all readings."""
    result = Listener(stack.mosquitto.port)
    yield result
    result.stop()
