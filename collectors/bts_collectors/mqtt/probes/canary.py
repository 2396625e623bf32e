"""How long a message takes through the broker and back to us: one of our own, every few seconds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from math import ceil
from threading import Event, Lock

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
_MIN_INTERVAL = 1.0  # seconds: the network thread looks up twice a second
_MAX_TIMEOUT = 3600.0  # seconds: what is under way is remembered so long
#: Seconds between two ticks, which come twice a second, after which we were away ourselves: a
#: process that was stopped, a virtual machine that was frozen.
_AWAY_SECONDS = 3.0
_NOT_IN_A_LEVEL = re.compile(r"[/+#\0]")

ROUND_TRIP = histogram(
    "mqtt_canary_round_trip_seconds",
    "Time from the publication of a message of ours to its return.",
    "qos",
)
SENT = counter("mqtt_canary_sent_total", "Messages of ours published to measure them.", "qos")
RECEIVED = counter("mqtt_canary_received_total", "Messages of ours that came back in time.", "qos")
LOST = counter(
    "mqtt_canary_lost_total",
    "Messages of ours that did not come back within canary.timeout, or before the connection ended.",
    "qos",
)
METRICS: tuple[Metric, ...] = (ROUND_TRIP, SENT, RECEIVED, LOST)


class CanaryConfig(CollectorConfig, frozen=True):
    """Where our own messages go, how many, and when one is lost."""

    topic: str = "bts-exporter/canary"
    #: With 0 brokers keep no message for clients that are away.
    qos: tuple[int, ...] = (0,)
    interval: Duration = Duration(5)
    timeout: Duration = Duration(10)

    def __post_init__(self) -> None:
        """Check what the types cannot; ValueError with what is wrong."""
        if not self.topic.strip("/") or any(sign in self.topic for sign in "+#\0"):
            msg = f"topic: expected one to publish to, without + and #, got {self.topic!r}"
            raise ValueError(msg)
        if not self.qos or set(self.qos) - set(_QOS) or len(set(self.qos)) < len(self.qos):
            msg = f"qos: expected some of 0, 1, 2, each once, got {list(self.qos)}"
            raise ValueError(msg)
        if self.interval < _MIN_INTERVAL:
            msg = f"interval: must be at least {_MIN_INTERVAL:g} s, got {self.interval:g} s"
            raise ValueError(msg)
        if not 0 < self.timeout <= _MAX_TIMEOUT:
            msg = f"timeout: must be more than 0 s and at most 1h, got {self.timeout:g} s"
            raise ValueError(msg)


class _QosMessages:
    """The messages of one QoS."""

    __slots__ = ("due", "in_flight", "lost", "received", "round_trip", "sent")

    def __init__(self) -> None:
        self.due = 0.0
        self.sent = self.received = self.lost = 0
        self.round_trip = HistogramAccumulator(BUCKETS)
        # Payload -> when it was published, None if that does not tell how long it took.
        self.in_flight: dict[bytes, float | None] = {}

    def expire(self, before: float) -> None:
        """Count as lost what was published before."""
        for payload, published in list(self.in_flight.items()):
            if published is not None and published < before:
                del self.in_flight[payload]
                self.lost += 1

    def expire_unmeasured(self) -> None:
        """Count as lost what has not come back since we were away."""
        for payload in [one for one, published in self.in_flight.items() if published is None]:
            del self.in_flight[payload]
            self.lost += 1

    def stop_measuring(self) -> None:
        """Take note that how long messages take from now on says nothing of the broker."""
        self.in_flight = dict.fromkeys(self.in_flight)


class Canary:
    """Publishes to a topic that it subscribes to, over the connection that all messages take."""

    def __init__(
        self,
        config: CanaryConfig,
        host: str,
        replied: Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Give `host` for our topics, TOPIC/HOST/QOS; `answered` is set by what comes back."""
        self._config = config
        self._replied = replied
        self._last_return = float("-inf")
        self._last_tick = self._unmeasured_until = float("-inf")
        self._clock = clock
        self._lock = Lock()
        self._by_qos = {qos: _QosMessages() for qos in sorted(config.qos)}
        # Not our client id, which is another at each start: filters are labels.
        host = _NOT_IN_A_LEVEL.sub("_", host)
        self._topics = {f"{config.topic}/{host}/{qos}": qos for qos in self._by_qos}
        self.subscriptions = tuple(
            Subscription(topic, qos, apart=True) for topic, qos in self._topics.items()
        )

    def begin(self) -> None:
        """Give up what was under way on the connection before, and begin anew at once."""
        with self._lock:
            for messages in self._by_qos.values():
                messages.expire_unmeasured()
                messages.expire(float("inf"))
                messages.due = 0.0
            self._last_tick = self._clock()

    def route(self, topic: str) -> Handler | None:
        """Return what takes our messages back."""
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
        """Publish what is due, and give up what is late."""
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
        """Return the seconds since a message of ours last came back; infinite before the first."""
        return self._clock() - self._last_return

    def emit(self, scrape: Scrape) -> None:
        """Emit what came back and what did not."""
        with self._lock:
            for qos, messages in self._by_qos.items():
                label = str(qos)
                scrape.emit(SENT, messages.sent, label)
                scrape.emit(RECEIVED, messages.received, label)
                scrape.emit(LOST, messages.lost, label)
                messages.round_trip.emit(scrape, ROUND_TRIP, label)

    def _expire(self) -> None:
        now = self._clock()
        away, self._last_tick = now - self._last_tick > _AWAY_SECONDS, now
        with self._lock:
            for messages in self._by_qos.values():
                if now > self._unmeasured_until:
                    messages.expire_unmeasured()
                if away:
                    # The broker may have replied: what it sent is read after this.
                    messages.stop_measuring()
                messages.expire(now - self._config.timeout)
            if away:
                self._unmeasured_until = now + self._config.timeout
