"""The canary: publishes a message every few seconds, and measures how long it takes to come back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from math import ceil
from threading import Event, Lock
from typing import Annotated

from msgspec import Meta

from bts_collectors.mqtt.client.router import Handler, Outgoing, Publish
from bts_collectors.mqtt.client.topics import Subscription
from bts_exporter import (
    CollectorConfig,
    Duration,
    HistogramAccumulator,
    Metric,
    Scrape,
    counter,
    histogram,
)

#: Seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_QOS = (0, 1, 2)
_MIN_INTERVAL_SECONDS = 1.0  # seconds: the network thread ticks twice a second
_MAX_TIMEOUT_SECONDS = 3600.0  # seconds: messages in flight are kept this long
#: Seconds between two ticks, which normally come twice a second, that show a pause of our own: a
#: stopped process, a frozen virtual machine.
_PAUSE_SECONDS = 3.0
_NOT_IN_A_LEVEL = re.compile(r"[/+#\0]")

ROUND_TRIP = histogram(
    "mqtt_canary_round_trip_seconds",
    "Time from publishing a canary message until it comes back from the broker.",
    "qos",
)
SENT = counter("mqtt_canary_sent_total", "Canary messages published.", "qos")
RECEIVED = counter(
    "mqtt_canary_received_total", "Canary messages that came back within canary.timeout.", "qos"
)
LOST = counter(
    "mqtt_canary_lost_total",
    "Canary messages that did not come back within canary.timeout, or before the connection ended.",
    "qos",
)
METRICS: tuple[Metric, ...] = (ROUND_TRIP, SENT, RECEIVED, LOST)


#: What `__post_init__` checks, for editors.
_Qos = Meta(extra_json_schema={"enum": list(_QOS)})
_QosList = Meta(extra_json_schema={"minItems": 1, "uniqueItems": True})
_Timeout = Meta(
    extra_json_schema={
        "exclusiveMinimum": 0,
        "maximum": _MAX_TIMEOUT_SECONDS,
    }
)


class CanaryConfig(CollectorConfig, frozen=True):
    """Settings of the canary."""

    #: Topic that the messages are sent to, without wildcards.
    topic: Annotated[str, Meta(extra_json_schema={"pattern": r"^(?=/*[^/])[^+#\0]*$"})] = (
        "bts-exporter/canary"
    )
    #: With QoS 0, brokers queue no canary messages for disconnected clients.
    qos: Annotated[tuple[Annotated[int, _Qos], ...], _QosList] = (0,)
    #: Time between two messages.
    interval: Annotated[Duration, Meta(extra_json_schema={"minimum": _MIN_INTERVAL_SECONDS})] = (
        Duration(5)
    )
    #: A message that takes longer is lost.
    timeout: Annotated[Duration, _Timeout] = Duration(10)

    def __post_init__(self) -> None:
        """Check values and their combinations; ValueError explains the problem."""
        if not self.topic.strip("/") or any(sign in self.topic for sign in "+#\0"):
            msg = f"topic: {self.topic!r} is not a valid topic (expected one without wildcards)"
            raise ValueError(msg)
        if not self.qos or set(self.qos) - set(_QOS) or len(set(self.qos)) < len(self.qos):
            msg = f"qos: expected a list of 0, 1 and 2 without duplicates, got {list(self.qos)}"
            raise ValueError(msg)
        if self.interval < _MIN_INTERVAL_SECONDS:
            msg = f"interval: must be at least {_MIN_INTERVAL_SECONDS:g} s, got {self.interval:g} s"
            raise ValueError(msg)
        if not 0 < self.timeout <= _MAX_TIMEOUT_SECONDS:
            msg = f"timeout: must be more than 0 s and at most 1 h, got {self.timeout:g} s"
            raise ValueError(msg)


class _QosMessages:
    """Counts and messages in flight of one QoS."""

    __slots__ = ("due", "in_flight", "lost", "received", "round_trip", "sent")

    def __init__(self) -> None:
        self.due = 0.0
        self.sent = self.received = self.lost = 0
        self.round_trip = HistogramAccumulator(BUCKETS)
        # Payload -> publication time, or None if its round trip cannot be measured.
        self.in_flight: dict[bytes, float | None] = {}

    def expire(self, before: float) -> None:
        """Count measured messages as lost that were published before a time."""
        for payload, published in list(self.in_flight.items()):
            if published is not None and published < before:
                del self.in_flight[payload]
                self.lost += 1

    def expire_unmeasured(self) -> None:
        """Count messages as lost whose round trip cannot be measured."""
        for payload in [
            payload for payload, published in self.in_flight.items() if published is None
        ]:
            del self.in_flight[payload]
            self.lost += 1

    def stop_measuring(self) -> None:
        """Exclude all messages in flight from the measurement: our own pause delayed them."""
        self.in_flight = dict.fromkeys(self.in_flight)


class Canary:
    """Publishes messages and receives them, over the connection that all other messages use."""

    def __init__(
        self,
        config: CanaryConfig,
        host: str,
        replied: Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take our host name, for the topics TOPIC/HOST/QOS, and the event to set when a message returns."""
        self._config = config
        self._replied = replied
        self._last_return = float("-inf")
        self._last_tick = self._unmeasured_until = float("-inf")
        self._clock = clock
        self._lock = Lock()
        self._by_qos = {qos: _QosMessages() for qos in sorted(config.qos)}
        # Not the client id: it changes at each start, and filters are label values.
        host = _NOT_IN_A_LEVEL.sub("_", host)
        self._topics = {f"{config.topic}/{host}/{qos}": qos for qos in self._by_qos}
        self.subscriptions = tuple(
            Subscription(topic, qos, apart=True) for topic, qos in self._topics.items()
        )

    def begin(self) -> None:
        """Count messages of the previous connection as lost; publish again at once."""
        with self._lock:
            for messages in self._by_qos.values():
                messages.expire_unmeasured()
                messages.expire(float("inf"))
                messages.due = 0.0
            self._last_tick = self._clock()

    def route(self, topic: str) -> Handler | None:
        """Return the handler for returning messages."""
        qos = self._topics.get(topic)
        if qos is None:
            return None
        messages = self._by_qos[qos]

        def receive(payload: bytes, _retained: bool, _properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
            now = self._clock()
            with self._lock:
                if payload not in messages.in_flight:
                    return
                published = messages.in_flight.pop(payload)
                messages.received += 1
                if published is not None:
                    messages.round_trip.observe(now - published)
            self._last_return = now
            self._replied.set()

        return receive

    def tick(self, publish: Publish) -> None:
        """Publish the messages that are due, and expire the late ones."""
        self._expire()
        for topic, qos in self._topics.items():
            messages = self._by_qos[qos]
            now = self._clock()
            if now < messages.due:
                continue
            with self._lock:
                payload = b'{"seq":%d,"ts_ns":%d}' % (messages.sent, time.time_ns())
                messages.sent += 1
                messages.due = now + self._config.interval
                messages.in_flight[payload] = now
            publish(Outgoing(topic, payload, qos, expiry_seconds=ceil(self._config.timeout)))

    def age_seconds(self) -> float:
        """Return the seconds since a message last came back; infinite before the first."""
        return self._clock() - self._last_return

    def emit(self, scrape: Scrape) -> None:
        """Emit counts and round-trip times by QoS."""
        with self._lock:
            for qos, messages in self._by_qos.items():
                label = str(qos)
                scrape.emit(SENT, messages.sent, label)
                scrape.emit(RECEIVED, messages.received, label)
                scrape.emit(LOST, messages.lost, label)
                messages.round_trip.emit(scrape, ROUND_TRIP, label)

    def _expire(self) -> None:
        now = self._clock()
        was_paused, self._last_tick = now - self._last_tick > _PAUSE_SECONDS, now
        with self._lock:
            for messages in self._by_qos.values():
                if now > self._unmeasured_until:
                    messages.expire_unmeasured()
                if was_paused:
                    # The messages may have come back during the pause: they are read after this tick.
                    messages.stop_measuring()
                messages.expire(now - self._config.timeout)
            if was_paused:
                self._unmeasured_until = now + self._config.timeout
