"""A typical script for comparison: paho callback, json, prometheus_client. Started by mqtt.py."""

from __future__ import annotations

import json
import sys

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from prometheus_client import Counter, Gauge, start_http_server

VALUE = Gauge("bench_value", "Newest value.", ["station", "parameter"])
MESSAGES = Counter("bench_messages", "Messages.", ["station", "parameter"])


def main(broker: int, port: int) -> None:
    """Subscribe at the port `broker`, and serve metrics at `port`."""
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _userdata, message: take(message)
    client.connect("127.0.0.1", broker)
    client.subscribe("bench/#")
    start_http_server(port, "127.0.0.1")
    client.loop_forever()


def take(message: MQTTMessage) -> None:
    """Update the metrics with a message."""
    _, station, parameter = message.topic.split("/")
    VALUE.labels(station, parameter).set(json.loads(message.payload)["value"])
    MESSAGES.labels(station, parameter).inc()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
