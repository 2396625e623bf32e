"""What the broker says of itself, and how our connection to it fares."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from socket import gethostname
from threading import Event
from time import monotonic
from types import MappingProxyType
from typing import Literal

from msgspec import field

from bts_collectors.mqtt import (
    canary,
    clientqueues,
    compat,
    connection,
    dryrun,
    emqx,
    failures,
    families,
    logtopic,
    pipeline,
    readings,
    rules,
    savedsessions,
    systopics,
)
from bts_collectors.mqtt.canary import Canary, CanaryConfig
from bts_collectors.mqtt.emqx import Emqx, EmqxConfig
from bts_collectors.mqtt.families import Families
from bts_collectors.mqtt.logtopic import DropEpisodes
from bts_collectors.mqtt.pipeline import Pipeline, PipelineConfig
from bts_collectors.mqtt.readings import Readings
from bts_collectors.mqtt.rules import Rule
from bts_collectors.mqtt.savedsessions import PersistenceConfig, SavedSessions
from bts_collectors.mqtt.session import PATHS, PORTS, TLS, Protocol, Target
from bts_collectors.mqtt.supervisor import Supervisor
from bts_collectors.mqtt.sysvalues import SysValues
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
_KEEPALIVE_MAX = 65535  # seconds: the protocol has 16 bits for them


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
        "client_id": "the exporter makes one up, so that no other client has it",
    }

    def __post_init__(self) -> None:
        """Check what the types cannot; ValueError with what is wrong."""
        if self.url.scheme not in PORTS:
            msg = _wrong_scheme(self.url)
            raise ValueError(msg)
        if self.url.scheme not in PATHS and (self.url.path.strip("/") or self.url.query):
            msg = f"url: expected nothing behind the port, got {self.url}"
            raise ValueError(msg)
        if (self.password or self.url.password) and not self.url.username:
            msg = "password: MQTT knows none without a user: url: mqtt://USER@host"
            raise ValueError(msg)
        secured = self.url.scheme in TLS or (self.emqx and self.emqx.url.scheme == "https")
        if self.tls != TLSConfig() and not secured:
            # Nobody means to send a password in the clear who says whom to trust.
            msg = f"tls: only mqtts:// and wss:// speak TLS, and url is {self.url.scheme}://"
            raise ValueError(msg)
        if not 1 <= self.keepalive <= _KEEPALIVE_MAX:
            msg = f"keepalive: must be between 1 s and {_KEEPALIVE_MAX} s, got {self.keepalive:g} s"
            raise ValueError(msg)
        if not self.stale_after:
            msg = "stale_after: must be more than 0 s"
            raise ValueError(msg)
        if self.persistence and self.emqx:
            msg = "persistence, emqx: a broker is mosquitto or EMQX, not both"
            raise ValueError(msg)
        if wrong := "; ".join(rules.check(self.rules)):
            raise ValueError(wrong)
        if "" in self.pipelines:
            msg = "pipelines: each needs a name"
            raise ValueError(msg)


class Mqtt(Collector):
    """An MQTT broker: mosquitto by its `$SYS` topics, any other by whether it lets us in."""

    Config = MqttConfig
    config: MqttConfig

    commands = MappingProxyType({"test": dryrun.COMMAND})

    broker = systopics.METRICS
    backlog = backlog.BACKLOG
    compat = compat.SAPCC
    drops = logtopic.METRICS
    queues = (clientqueues.METRICS, savedsessions.METRICS, emqx.METRICS)
    round_trips = canary.METRICS
    pipelines = pipeline.METRICS
    sys_updated = gauge(
        "mosquitto_sys_last_update_timestamp_seconds",
        "When the broker last gave its uptime, in Unix time; shown also when it is too old.",
    )
    up = gauge(
        "mqtt_up",
        "Whether the network thread runs, is connected and the broker's uptime, or else a canary, is"
        " not older than stale_after.",
    )
    connection = connection.METRICS
    readings = readings.METRICS

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
            protocol=config.protocol,
            tls=config.tls,
        )
        self._drops = DropEpisodes() if config.broker_log else None
        self._canary = config.canary and Canary(config.canary, gethostname(), self._answered)
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

    @classmethod
    def declared_by(cls, config: MqttConfig) -> Iterator[Metric]:
        """Yield the metrics of the rules."""
        return (metric for metric, _ in families.declared(config.rules))

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
        """Emit what the network thread knows; TargetError when the broker gives no fresh values."""
        # At the start only; and never all of the time, since there is something to say afterwards.
        patience = min(self._patience - monotonic(), scrape.remaining() / 2)
        self._answered.wait(max(patience, 0))
        self._values.settle(min(SETTLE_SECONDS, scrape.remaining() / 2))
        age = self._values.age()
        fresh = age is not None and age <= self.config.stale_after
        if fresh:
            self._emit_broker(scrape)
        self._emit_connection(scrape)
        self._emit_messages(scrape)
        heard = fresh or (self._canary and self._canary.age() <= self.config.stale_after)
        up = heard and self._supervisor.alive and self._supervisor.link.connected
        scrape.emit(self.up, int(bool(up)))
        failure = self._why_down() if not up or self._supervisor.link.denied else None
        if self._queues:
            try:
                self._queues.emit(scrape)
            except TargetError as error:
                failure = failure or error
        if failure:
            raise failure

    def _emit_broker(self, scrape: Scrape) -> None:
        readings = self._values.readings()
        for reading in readings.values():
            if reading.metric:
                scrape.emit(reading.metric, reading.value, *reading.labels)
        if self.config.compat_names:
            compat.emit(scrape, readings)
        queued = systopics.queued(readings)
        if queued is not None:
            scrape.emit(systopics.QUEUED, queued)
            scrape.emit(self.backlog, queued, "mqtt", "", "")

    def _emit_connection(self, scrape: Scrape) -> None:
        if self._values.updated is not None:
            scrape.emit(self.sys_updated, self._values.updated)
        connection.emit(scrape, self._supervisor.link, self._supervisor.router)

    def _emit_messages(self, scrape: Scrape) -> None:
        if self._drops:
            self._drops.emit(scrape)
        if self._canary:
            self._canary.emit(scrape)
        for one in self._pipelines:
            one.emit(scrape, connected=self._supervisor.link.connected)
        self._families.emit(scrape, monotonic())
        for rule in self._readings:
            rule.emit(scrape)

    def _why_down(self) -> TargetError:
        if not self._supervisor.alive:
            return TargetError(
                "internal", f"{self.config.url}: the network thread does not run, or hangs"
            )
        return failures.why_down(
            self.config.url,
            self._supervisor.link,
            self._values,
            self.config.stale_after,
            canary=self._canary is not None,
        )


COLLECTOR = Mqtt
