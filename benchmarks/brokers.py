"""Real brokers with data, and the other exporters for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from servers.mosquitto import Mosquitto
from servers.rabbitmq import RabbitMQ
from servers.redis import RedisServer


class Alternative(NamedTuple):
    """Another exporter for the same broker."""

    package: str  # in Debian; its program has the same name
    flags: Callable[[int], list[str]]  # by the port that it serves


class Broker(NamedTuple):
    """A running broker."""

    settings: str  # of our collector for it, in YAML
    alternative: Alternative | None


def rabbitmq(folder: Path, ends: ExitStack) -> Broker:
    """Start RabbitMQ with 20 queues; Debian has no other exporter for it."""
    broker = RabbitMQ(folder)
    ends.callback(broker.stop)
    for number in range(20):
        broker.queue(f"queue-{number}")
    broker.publish("queue-0", 10)
    return Broker(f"{{url: '{broker.url.replace('://', '://guest:guest@')}'}}", None)


def redis(folder: Path, ends: ExitStack) -> Broker:
    """Start Redis with 3 streams, each with 2 consumer groups."""
    broker = RedisServer(folder)
    ends.callback(broker.kill)
    for number in range(3):
        stream = f"bts:{number}"
        for _ in range(100):
            broker.client.xadd(stream, {"x": "y"})
        for group in ("a", "b"):
            broker.client.xgroup_create(stream, group, "0")
    what = [f"-redis.addr={broker.url}", "-check-streams=bts:*"]
    return Broker(
        f"{{url: '{broker.url}', streams: ['bts:*']}}",
        Alternative(
            "prometheus-redis-exporter",
            lambda port: [*what, f"-web.listen-address=127.0.0.1:{port}"],
        ),
    )


def mqtt(folder: Path, ends: ExitStack) -> Broker:
    """Start mosquitto."""
    broker = Mosquitto(folder)
    ends.callback(broker.kill)
    broker.start()
    config = folder / "mqtt-exporter.yaml"
    config.write_text(f"""\
mqtt: {{server: "tcp://127.0.0.1:{broker.port}", topic_path: "$SYS/broker/clients/connected", qos: 0}}
cache: {{timeout: 60m}}
metrics: [{{prom_name: clients, mqtt_name: connected, help: Clients., type: gauge}}]
""")
    what = [f"-config={config}", "-listen-address=127.0.0.1"]
    return Broker(
        f"{{url: '{broker.url}'}}",
        Alternative("prometheus-mqtt-exporter", lambda port: [*what, f"-listen-port={port}"]),
    )


#: Functions that start a broker in a folder, by collector type; they raise pytest's Skipped if it is not installed.
STARTS: Mapping[str, Callable[[Path, ExitStack], Broker]] = MappingProxyType(
    {"rabbitmq": rabbitmq, "redis": redis, "mqtt": mqtt}
)
