"""What the broker says of itself, and how our connection to it fares."""

from __future__ import annotations

import secrets
from threading import Event
from time import monotonic

from bts_collectors.mqtt import failures, systopics
from bts_collectors.mqtt.link import CONNECT_REASONS, DISCONNECT_REASONS, Link
from bts_collectors.mqtt.session import PORTS, Target
from bts_collectors.mqtt.supervisor import Supervisor
from bts_collectors.mqtt.sysvalues import SysValues
from bts_exporter import (
    Collector,
    CollectorConfig,
    Duration,
    Scrape,
    Secret,
    TargetError,
    Url,
    backlog,
    counter,
    gauge,
)

#: Seconds after the start that a collection waits for the broker's first answer.
FIRST_ANSWER_SECONDS = 2.0
#: Seconds that a collection waits, at most, for a burst of values to be through.
SETTLE_SECONDS = 0.5
_KEEPALIVE_MAX = 65535  # seconds: the protocol has 16 bits for them


class MqttConfig(CollectorConfig, frozen=True):
    """Where the broker is, and when its values are too old to show."""

    url: Url = Url("mqtt", "127.0.0.1", 1883)
    password: Secret | None = None
    #: Without the broker's uptime for so long, mqtt_up is 0 and the broker's series are dropped.
    stale_after: Duration = Duration(30)
    #: Of silence, after which the connection is checked.
    keepalive: Duration = Duration(10)

    def __post_init__(self) -> None:
        """Check what the types cannot; ValueError with what is wrong."""
        if self.url.scheme not in PORTS:
            msg = f"url: expected {' or '.join(f'{scheme}://' for scheme in PORTS)}, got {self.url}"
            raise ValueError(msg)
        if self.url.path.strip("/") or self.url.query:
            msg = f"url: expected nothing behind the port, got {self.url}"
            raise ValueError(msg)
        if (self.password or self.url.password) and not self.url.username:
            msg = "password: MQTT knows none without a user: url: mqtt://USER@host"
            raise ValueError(msg)
        if not 1 <= self.keepalive <= _KEEPALIVE_MAX:
            msg = f"keepalive: must be between 1 s and {_KEEPALIVE_MAX} s, got {self.keepalive:g} s"
            raise ValueError(msg)
        if not self.stale_after:
            msg = "stale_after: must be more than 0 s"
            raise ValueError(msg)


class Mqtt(Collector):
    """An MQTT broker: mosquitto by its `$SYS` topics, any other by whether it lets us in."""

    Config = MqttConfig
    config: MqttConfig

    broker = systopics.METRICS
    backlog = backlog.BACKLOG
    sys_updated = gauge(
        "mosquitto_sys_last_update_timestamp_seconds",
        "When the broker last gave its uptime, in Unix time; shown also when it is too old.",
    )
    up = gauge(
        "mqtt_up",
        "Whether the network thread runs, is connected and the broker's uptime is not older than"
        " stale_after.",
    )
    connected = gauge("mqtt_connected", "Whether the broker has accepted our connection.")
    connects = counter("mqtt_connects_total", "Connections that the broker accepted.")
    disconnects = counter(
        "mqtt_disconnects_total",
        f"Connections that ended without our will, by reason ({', '.join(DISCONNECT_REASONS)}).",
        "reason",
    )
    connect_failures = counter(
        "mqtt_connect_failures_total",
        f"Attempts to connect that failed, by reason ({', '.join(CONNECT_REASONS)}).",
        "reason",
    )
    restarts = counter(
        "mqtt_network_thread_restarts_total",
        "Times that the network thread was restarted after an unforeseen error.",
    )
    message_errors = counter(
        "mqtt_message_handling_errors_total",
        "Messages received whose handling failed by an unforeseen error.",
    )
    granted_qos = gauge(
        "mqtt_subscription_granted_qos",
        "QoS that the broker granted to our subscription (SUBACK); -1 if it denied it.",
        "filter",
    )

    def __init__(self, config: MqttConfig) -> None:
        """Keep the settings; no I/O here."""
        super().__init__(config)
        self._answered = Event()
        self._patience = 0.0
        self._values = SysValues(self._answered)
        target = Target(
            url=config.url,
            password=config.password or config.url.password,
            # The same for every connection: a new one takes the place of one that hangs.
            client_id=f"bts-exporter-{secrets.token_hex(4)}",
            keepalive=int(config.keepalive),
        )
        self._supervisor = Supervisor(target, self._values, self._answered)

    def start(self) -> None:
        """Begin to connect."""
        self._patience = monotonic() + FIRST_ANSWER_SECONDS
        self._supervisor.start()

    def stop(self) -> None:
        """End the connection."""
        self._supervisor.stop()

    def collect(self, scrape: Scrape) -> None:
        """Emit what the network thread knows; TargetError when the broker gives no fresh values."""
        # At the start only; and never all of the time, since there is something to say afterwards.
        patience = min(self._patience - monotonic(), scrape.remaining() / 2)
        self._answered.wait(max(patience, 0))
        self._values.settle(min(SETTLE_SECONDS, scrape.remaining() / 2))
        age = self._values.age()
        fresh = age is not None and age <= self.config.stale_after
        if fresh:
            self._emit_broker(scrape)
        self._emit_connection(scrape, self._supervisor.link)
        up = fresh and self._supervisor.alive and self._supervisor.link.connected
        scrape.emit(self.up, int(up))
        if not up:
            raise self._why_down()

    def _emit_broker(self, scrape: Scrape) -> None:
        readings = self._values.readings()
        for reading in readings.values():
            scrape.emit(reading.metric, reading.value, *reading.labels)
        queued = systopics.queued(readings)
        if queued is not None:
            scrape.emit(systopics.QUEUED, queued)
            scrape.emit(self.backlog, queued, "mqtt", "", "")

    def _emit_connection(self, scrape: Scrape, link: Link) -> None:
        if self._values.updated is not None:
            scrape.emit(self.sys_updated, self._values.updated)
        scrape.emit(self.connected, int(link.connected))
        scrape.emit(self.connects, link.connects)
        for reason in DISCONNECT_REASONS:
            scrape.emit(self.disconnects, link.disconnects[reason], reason)
        for reason in CONNECT_REASONS:
            scrape.emit(self.connect_failures, link.connect_failures[reason], reason)
        scrape.emit(self.restarts, link.restarts)
        scrape.emit(self.message_errors, link.message_errors)
        for name, qos in link.granted.items():
            scrape.emit(self.granted_qos, qos, name)

    def _why_down(self) -> TargetError:
        if not self._supervisor.alive:
            return TargetError("internal", f"{self.config.url}: the network thread does not run")
        return failures.why_down(
            self.config.url, self._supervisor.link, self._values, self.config.stale_after
        )


COLLECTOR = Mqtt
