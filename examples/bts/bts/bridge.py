"""The bridge: readings from MQTT to RabbitMQ, without losing one.

A message is acknowledged to the MQTT broker after RabbitMQ has confirmed it (it is on disk then). A bridge
that is killed leaves what it had taken to the next one: the session is persistent.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import paho.mqtt.client as mqtt
import pika  # type: ignore[import-untyped]
import pika.exceptions  # type: ignore[import-untyped]
from paho.mqtt.enums import CallbackAPIVersion
from pika.channel import Channel  # type: ignore[import-untyped]
from pika.frame import Method  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, start_http_server

from bts import topology
from bts.metrics import BridgeMetrics
from bts.readings import MalformedReadingError, decode_reading
from bts.settings import Settings, parser, settings_of

TOPIC = "bts/+/+"
CLIENT_ID = "bts-bridge"
RETRY_SECONDS = 1.0

log = logging.getLogger("bts.bridge")


class Publisher:
    """Publishes to RabbitMQ with confirms, in the thread of its connection.

    Messages that are not confirmed when a connection is lost are published again on the next one.
    """

    def __init__(self, url: str, on_confirm: Callable[[mqtt.MQTTMessage], None]) -> None:
        """Publish to the broker at `url`; `on_confirm` is called once for each message."""
        self._parameters = pika.URLParameters(url)
        self._on_confirm = on_confirm
        #: By delivery tag.
        self._unconfirmed: dict[int, mqtt.MQTTMessage] = {}
        #: Not published yet; other threads append to it.
        self._waiting: deque[mqtt.MQTTMessage] = deque()
        self._channel: Channel | None = None
        self._connection: pika.SelectConnection | None = None
        self._tag = 0

    @property
    def unconfirmed(self) -> int:
        """Return how many messages RabbitMQ has not confirmed yet."""
        return len(self._unconfirmed) + len(self._waiting)

    def run(self) -> None:
        """Serve the connection until the process is stopped."""
        while True:
            self._connection = pika.SelectConnection(
                self._parameters,
                on_open_callback=lambda connection: connection.channel(
                    on_open_callback=self._declare
                ),
                on_open_error_callback=lambda connection, _: connection.ioloop.stop(),
                on_close_callback=lambda connection, _: connection.ioloop.stop(),
            )
            self._connection.ioloop.start()
            self._channel = None
            self._waiting.extendleft(reversed(self._unconfirmed.values()))
            self._unconfirmed = {}
            log.warning("RabbitMQ is not reachable; %d messages wait", self.unconfirmed)
            time.sleep(RETRY_SECONDS)

    def publish(self, message: mqtt.MQTTMessage) -> None:
        """Publish a message; callable from any thread."""
        self._waiting.append(message)
        if self._channel is not None and self._connection is not None:
            self._connection.ioloop.add_callback_threadsafe(self._publish_waiting)

    def _declare(self, channel: Channel) -> None:
        topology.declare(channel)
        channel.confirm_delivery(self._confirmed, lambda _: self._ready(channel))

    def _ready(self, channel: Channel) -> None:
        log.info("publishing to %s", topology.EXCHANGE)
        self._channel, self._tag = channel, 0
        self._publish_waiting()

    def _publish_waiting(self) -> None:
        while self._waiting and self._channel is not None and self._channel.is_open:
            message = self._waiting.popleft()
            self._tag += 1
            self._unconfirmed[self._tag] = message
            key, properties = envelope(message)
            self._channel.basic_publish(topology.EXCHANGE, key, message.payload, properties)

    def _confirmed(self, frame: Method) -> None:
        tag = frame.method.delivery_tag
        tags = [tag]
        if frame.method.multiple:
            tags = [number for number in self._unconfirmed if number <= tag]
        for number in tags:
            self._settle(number, confirmed=isinstance(frame.method, pika.spec.Basic.Ack))

    def _settle(self, tag: int, *, confirmed: bool) -> None:
        message = self._unconfirmed.pop(tag, None)
        if message is None:
            return
        if confirmed:
            self._on_confirm(message)
        else:
            self._waiting.append(message)
            self._publish_waiting()


def envelope(message: mqtt.MQTTMessage) -> tuple[str, pika.BasicProperties]:
    """Return the routing key and properties of a message; the timestamp is the time of the reading."""
    _, station, parameter = message.topic.split("/")
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    try:
        reading = decode_reading(bytes(message.payload))
    except MalformedReadingError:
        # The worker counts it and moves it to the dead letters.
        properties.timestamp = int(time.time())
    else:
        properties.message_id = reading.id
        properties.timestamp = max(0, int(reading.reading_time))
    return f"reading.{station}.{parameter}", properties


class Bridge:
    """Takes messages from MQTT and acknowledges them when RabbitMQ has them."""

    def __init__(self, settings: Settings) -> None:
        registry = CollectorRegistry()
        self._metrics = BridgeMetrics(registry)
        self._publisher = Publisher(settings.amqp_url, self._acknowledge)
        self._metrics.unconfirmed.set_function(lambda: self._publisher.unconfirmed)
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=CLIENT_ID, clean_session=False, manual_ack=True
        )
        self._client.on_connect = lambda client, *_: client.subscribe(TOPIC, qos=1)
        self._client.on_message = lambda _client, _data, message: self._publisher.publish(message)
        self._client.reconnect_delay_set(1, 5)
        start_http_server(settings.metrics_port, "127.0.0.1", registry)
        self._client.connect_async(settings.mqtt_host, settings.mqtt_port)

    def run(self) -> None:
        """Forward messages until the process is stopped."""
        self._client.loop_start()
        self._publisher.run()

    def _acknowledge(self, message: mqtt.MQTTMessage) -> None:
        self._client.ack(message.mid, message.qos)
        self._metrics.forwarded.inc()


def main() -> None:
    """Run the bridge."""
    command = parser("bridge", "Forward readings from MQTT to RabbitMQ.", 8101)
    Bridge(settings_of(command.parse_args())).run()


if __name__ == "__main__":
    main()
