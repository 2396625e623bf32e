"""What the broker says of itself, and how our connection to it fares."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from socket import gethostname
from threading import Event
from time import monotonic
from types import MappingProxyType
from typing import Literal

from msgspec import field

from bts_collectors.mqtt import names
from bts_collectors.mqtt.client import connection
from bts_collectors.mqtt.client.network_thread import Supervisor
from bts_collectors.mqtt.client.session import PATHS, PORTS, TLS, Protocol, Target
from bts_collectors.mqtt.client.state import Failure
from bts_collectors.mqtt.diagnosis import Health
from bts_collectors.mqtt.probes import canary, pipeline
from bts_collectors.mqtt.probes.canary import Canary, CanaryConfig
from bts_collectors.mqtt.probes.pipeline import Pipeline, PipelineConfig
from bts_collectors.mqtt.rules import config as rules
from bts_collectors.mqtt.rules import dry_run, engine, series
from bts_collectors.mqtt.rules.config import Rule
from bts_collectors.mqtt.rules.engine import Readings
from bts_collectors.mqtt.rules.series import Families
from bts_collectors.mqtt.sessions import emqx, metrics, mosquitto
from bts_collectors.mqtt.sessions.emqx import Emqx, EmqxConfig
from bts_collectors.mqtt.sessions.mosquitto import PersistenceConfig, SavedSessions
from bts_collectors.mqtt.sys import log_topic, sapcc_names
from bts_collectors.mqtt.sys import topics as systopics
from bts_collectors.mqtt.sys.log_topic import DropEpisodes
from bts_collectors.mqtt.sys.topics import Reading
from bts_collectors.mqtt.sys.values import SysValues
from bts_exporter import (
    Collector,
    CollectorConfig,
    Duration,
    Match,
    Metric,
    Scrape,
    Secret,
    TargetError,
    TLSConfig,
    Url,
    backlog,
    gauge,
)

#: Seconds after the start that a collection waits for the broker's first answer.
FIRST_ANSWER_SECONDS = 2.0
#: Seconds that a collection waits, at most, for a burst of values to be through.
SETTLE_SECONDS = 0.5
#: Seconds that a collection waits, at most, for the network thread after a pause of the process.
WAKE_SECONDS = 1.0
_KEEPALIVE_MAX = 65535  # seconds: the protocol has 16 bits for them
_CLIENT_ID_MAX = 65535  # bytes, likewise
_ALPN_MAX = 255  # bytes of a name


#: What clients of other makers call a connection.
_OTHER_SCHEMES = {"tcp": "mqtt://", "ssl": "mqtts://", "tls": "mqtts://", "mqtt+ssl": "mqtts://"}
_RULES = "messages become metrics by rules: {NAME: {topic: TOPIC, metrics: ...}}"


def _wrong_scheme(url: Url) -> str:
    message = f"url: expected one of {', '.join(f'{scheme}://' for scheme in PORTS)}, got {url}"
    if url.scheme in _OTHER_SCHEMES:
        message += f"; what others call {url.scheme}:// is {_OTHER_SCHEMES[url.scheme]}"
    return message


class MqttConfig(CollectorConfig, frozen=True):
    """Where the broker is, and when its values are too old to show."""

    url: Url = Url("mqtt", "127.0.0.1", 1883)
    password: Secret | None = None
    #: For `url`, and EMQX's API.
    tls: TLSConfig = TLSConfig()
    #: Without the broker's uptime for so long, mqtt_up is 0 and the broker's series are dropped.
    stale_after: Duration = Duration(30)
    #: Whether to subscribe to what the broker says of itself, `$SYS/#`.
    sys: bool = True
    #: By which the broker knows us; a random one if empty.
    client_id: str = ""
    #: Protocols offered by TLS (ALPN): AWS IoT wants x-amzn-mqtt-ca on port 443.
    alpn: tuple[str, ...] = ()
    #: Version of MQTT.
    protocol: Protocol = "3.1.1"
    #: Of silence, after which the connection is checked.
    keepalive: Duration = Duration(10)
    #: Show the broker's account of itself under another exporter's names, too.
    compat_names: Literal["sapcc"] | None = None
    #: Count when the broker begins to drop messages: it logs to a topic (log_dest topic).
    broker_log: bool = False
    persistence: PersistenceConfig | None = None
    emqx: EmqxConfig | None = None
    canary: CanaryConfig | None = None
    #: By name.
    pipelines: dict[str, PipelineConfig] = field(default_factory=dict)
    #: What becomes of messages, by a name of each rule.
    rules: dict[str, Rule] = field(default_factory=dict)

    advice = {  # noqa: RUF012  # the contract
        "topic": _RULES,
        "topics": _RULES,
        "subscribe": _RULES,
        "subscriptions": _RULES,
        "mappings": _RULES,
        "topic_path": _RULES,
        "topic_filter": _RULES,
    }

    def __post_init__(self) -> None:
        """Check what the types cannot; ValueError with all that is wrong."""
        if wrong := [*self._wrong_address(), *self._wrong_numbers(), *self._wrong_blocks()]:
            raise ValueError("; ".join(wrong))

    def _wrong_address(self) -> Iterator[str]:
        url = self.url
        if url.scheme not in PORTS:
            yield _wrong_scheme(url)
        elif url.scheme not in PATHS and (url.path.strip("/") or url.query):
            yield f"url: expected nothing behind the port, got {url}"
        if (self.password or url.password) and not url.username:
            yield "password: MQTT knows none without a user: url: mqtt://USER@host"
        secured = url.scheme in TLS
        if self.tls != TLSConfig() and not (secured or self._emqx_secured):
            # Nobody means to send a password in the clear who says whom to trust.
            yield f"tls: only mqtts:// and wss:// speak TLS, and url is {url.scheme}://"
        if self.alpn and not secured:
            yield f"alpn: only mqtts:// and wss:// speak TLS, and url is {url.scheme}://"

    def _wrong_numbers(self) -> Iterator[str]:
        if not all(0 < len(name.encode()) <= _ALPN_MAX for name in self.alpn):
            yield f"alpn: a name has 1 to {_ALPN_MAX} bytes"
        if len(self.client_id.encode()) > _CLIENT_ID_MAX or "\0" in self.client_id:
            yield f"client_id: at most {_CLIENT_ID_MAX} bytes, and no NUL"
        if not 1 <= self.keepalive <= _KEEPALIVE_MAX:
            yield f"keepalive: must be between 1 s and {_KEEPALIVE_MAX} s, got {self.keepalive:g} s"
        if not self.stale_after:
            yield "stale_after: must be more than 0 s"

    def _wrong_blocks(self) -> Iterator[str]:
        if not self.sys and self.compat_names:
            yield "compat_names: there are no values to name with `sys: false`"
        if self.persistence and self.emqx:
            yield "persistence, emqx: a broker is mosquitto or EMQX, not both"
        yield from rules.check(self.rules)
        for name, rule in self.rules.items():
            if rule.property_labels and self.protocol != 5:  # noqa: PLR2004  # as it calls itself
                yield f"rules.{name}.property_labels: only MQTT 5 has properties: set protocol: 5"
        yield from names.check("pipelines", self.pipelines)

    @property
    def _emqx_secured(self) -> bool:
        return self.emqx is not None and self.emqx.url.scheme == "https"


class Mqtt(Collector):
    """An MQTT broker: mosquitto by its `$SYS` topics, any other by whether it lets us in."""

    Config = MqttConfig
    config: MqttConfig

    commands = MappingProxyType({"test": dry_run.COMMAND})

    broker = systopics.METRICS
    backlog = backlog.BACKLOG
    compat = sapcc_names.SAPCC
    drops = log_topic.METRICS
    queues = (metrics.METRICS, mosquitto.METRICS, emqx.METRICS)
    round_trips = canary.METRICS
    pipelines = pipeline.METRICS
    sys_updated = gauge(
        "mosquitto_sys_last_update_timestamp_seconds",
        "When the broker last gave its uptime, in Unix time; shown also when it is too old.",
    )
    up = gauge(
        "mqtt_up",
        "Whether the network thread runs and is connected, and the broker's uptime or a canary is not"
        " older than stale_after; where there is neither, connected and answering pings.",
    )
    connection = connection.METRICS
    readings = engine.METRICS

    def __init__(self, config: MqttConfig) -> None:
        """Keep the settings; no I/O here."""
        super().__init__(config)
        self._answered = Event()
        self._patience = 0.0
        self._values = SysValues(self._answered) if config.sys else None
        target = Target(
            url=config.url,
            password=config.password or config.url.password,
            # The same for every connection: a new one takes the place of one that hangs.
            client_id=config.client_id or f"bts-exporter-{secrets.token_hex(4)}",
            keepalive=int(config.keepalive),
            protocol=config.protocol,
            tls=config.tls,
            alpn=config.alpn,
        )
        self._drops = DropEpisodes() if config.broker_log else None
        self._canary: Canary | None = None
        if config.canary:
            self._canary = Canary(config.canary, gethostname(), self._answered)
        self._pipelines = [Pipeline(*one) for one in config.pipelines.items()]
        self._queues: SavedSessions | Emqx | None = None
        if config.persistence:
            self._queues = SavedSessions(config.persistence)
        elif config.emqx:
            self._queues = Emqx(config.emqx, config.tls)
        self._families = Families(config.rules)
        self._readings = [Readings(*rule, self._families) for rule in config.rules.items()]
        receivers = [self._values, self._drops, self._canary, *self._pipelines, *self._readings]
        self._supervisor = Supervisor(target, [r for r in receivers if r], self._answered)
        self._health = Health(
            config.url,
            config.stale_after,
            self._supervisor,
            self._values,
            self._canary,
            listens=bool(config.rules or config.pipelines),
            needs_sys=config.broker_log
            or config.compat_names is not None
            or any(rule.topic.filter.startswith("$SYS") for rule in config.rules.values()),
        )

    @classmethod
    def declared_by(cls, config: MqttConfig) -> Iterator[Metric]:
        """Yield the metrics of the rules."""
        return (metric for metric, _ in series.declared(config.rules))

    def matches(self, samples: object) -> Iterator[Match]:  # noqa: ARG002  # rules count what came
        """Yield how many messages have come on the topic of each rule."""
        for rule in self._readings:
            topic = rule.rule.topic.filter
            yield Match(f"rules.{rule.name}", topic, rule.messages, "messages", complete=False)

    def start(self) -> None:
        """Begin to connect."""
        self._patience = monotonic() + FIRST_ANSWER_SECONDS
        self._supervisor.start()

    def stop(self) -> None:
        """End the connection."""
        self._supervisor.stop()

    def collect(self, scrape: Scrape) -> None:
        """Emit what the network thread knows; TargetError with all that is missing, and why."""
        # At the start only; and never all of the time, since there is something to say afterwards.
        patience = min(self._patience - monotonic(), scrape.remaining() / 2)
        self._answered.wait(max(patience, 0))
        self._supervisor.wake(min(WAKE_SECONDS, scrape.remaining() / 2))
        if self._values:
            self._values.settle(min(SETTLE_SECONDS, scrape.remaining() / 2))
        down = self._health.why_down()
        # What alerts are made of comes first: `max_series` takes from the end.
        scrape.emit(self.up, int(down is None))
        self._emit_connection(scrape)
        self._emit_messages(scrape)
        if self._values and self._health.fresh():
            self._emit_broker(scrape, self._values.readings())
        lost = [down or self._health.why_incomplete(), self._emit_queues(scrape)]
        self._emit_series(scrape)
        if found := [Failure(error.reason, str(error)) for error in lost if error]:
            raise TargetError(found[0].reason, "; ".join(message for _, message in found))

    def _emit_broker(self, scrape: Scrape, readings: Mapping[str, Reading]) -> None:
        queued = systopics.queued(readings)
        if queued is not None:
            scrape.emit(self.backlog, queued, "mqtt", "", "")
            scrape.emit(systopics.QUEUED, queued)
        for reading in readings.values():
            if reading.metric:
                scrape.emit(reading.metric, reading.value, *reading.labels)
        if self.config.compat_names:
            sapcc_names.emit(scrape, readings)

    def _emit_connection(self, scrape: Scrape) -> None:
        if self._values and self._values.updated is not None:
            scrape.emit(self.sys_updated, self._values.updated)
        connection.emit(scrape, self._supervisor.link, self._supervisor.router)

    def _emit_messages(self, scrape: Scrape) -> None:
        for rule in self._readings:
            rule.emit(scrape)
        if self._canary:
            self._canary.emit(scrape)
        for one in self._pipelines:
            one.emit(scrape, connected=self._supervisor.link.connected)

    def _emit_queues(self, scrape: Scrape) -> TargetError | None:
        """Emit the queues of clients; return why there are none."""
        if self._queues:
            try:
                self._queues.emit(scrape)
            except TargetError as error:
                return TargetError(error.reason, str(error))  # without frames and what they hold
        return None

    def _emit_series(self, scrape: Scrape) -> None:
        """Emit what anybody who may publish can make more of, at last."""
        if self._drops:
            self._drops.emit(scrape)
        self._families.emit(scrape, monotonic())
        for rule in self._readings:
            rule.emit_topics(scrape)


COLLECTOR = Mqtt
