"""Collects what the network thread received between scrapes: statistics, rules, probes, sessions."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from socket import gethostname
from threading import Event
from time import monotonic
from types import MappingProxyType

import msgspec

from bts_collectors.mqtt import metrics
from bts_collectors.mqtt.client.network_thread import NetworkThread
from bts_collectors.mqtt.client.session import Target
from bts_collectors.mqtt.client.state import Failure
from bts_collectors.mqtt.config import MqttConfig
from bts_collectors.mqtt.diagnosis import Health
from bts_collectors.mqtt.probes import canary, pipeline
from bts_collectors.mqtt.probes.canary import Canary
from bts_collectors.mqtt.probes.pipeline import Pipeline, PipelineState
from bts_collectors.mqtt.rules import dry_run, engine, series
from bts_collectors.mqtt.rules.engine import RuleEngine
from bts_collectors.mqtt.rules.series import SeriesStore
from bts_collectors.mqtt.sessions import emqx, mosquitto
from bts_collectors.mqtt.sessions import metrics as client_queues
from bts_collectors.mqtt.sessions.emqx import Emqx
from bts_collectors.mqtt.sessions.mosquitto import SavedSessions
from bts_collectors.mqtt.sys import log_topic, sapcc_names
from bts_collectors.mqtt.sys import topics as systopics
from bts_collectors.mqtt.sys.log_topic import DropEpisodes
from bts_collectors.mqtt.sys.topics import SysValue
from bts_collectors.mqtt.sys.values import SysValues
from bts_exporter import Collector, Match, Metric, Scrape, TargetError, backlog

#: Seconds after the start during which a collection waits for the broker's first reply.
FIRST_REPLY_SECONDS = 2.0
#: Seconds that a collection waits, at most, for a burst of $SYS messages to end.
SETTLE_SECONDS = 0.5
#: Seconds that a collection waits, at most, for the network thread after a pause of the process.
WAKE_SECONDS = 1.0


class MqttState(msgspec.Struct, frozen=True):
    """What is kept across restarts of the exporter."""

    #: By the name of the pipeline.
    pipelines: dict[str, PipelineState]


class Mqtt(Collector):
    """An MQTT broker: mosquitto by its `$SYS` topics, EMQX by its API, any other by its connection."""

    Config = MqttConfig
    State = MqttState
    config: MqttConfig

    commands = MappingProxyType({"test": dry_run.COMMAND})

    up = metrics.UP
    connection = metrics.CONNECTION
    sys_updated = metrics.SYS_UPDATED
    broker = systopics.METRICS
    backlog = backlog.BACKLOG
    compat = sapcc_names.SAPCC
    drops = log_topic.METRICS
    queues = (client_queues.METRICS, mosquitto.METRICS, emqx.METRICS)
    round_trips = canary.METRICS
    pipelines = pipeline.METRICS
    rules = engine.METRICS

    def __init__(self, config: MqttConfig) -> None:
        """Keep the settings; no I/O here."""
        super().__init__(config)
        self._replied = Event()
        self._first_reply_deadline = 0.0
        self._values = SysValues(self._replied) if config.sys else None
        self._drops = DropEpisodes() if config.broker_log else None
        self._canary: Canary | None = None
        if config.canary:
            self._canary = Canary(config.canary, gethostname(), self._replied)
        self._pipelines = [Pipeline(name, block) for name, block in config.pipelines.items()]
        self._queues: SavedSessions | Emqx | None = None
        if config.persistence:
            self._queues = SavedSessions(config.persistence)
        elif config.emqx:
            self._queues = Emqx(config.emqx, config.tls)
        self._store = SeriesStore(config.rules)
        self._rules = [RuleEngine(name, rule, self._store) for name, rule in config.rules.items()]
        receivers = [self._values, self._drops, self._canary, *self._pipelines, *self._rules]
        self._network = NetworkThread(_target(config), [r for r in receivers if r], self._replied)
        self._health = Health(
            config.url,
            config.stale_after,
            self._network,
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

    def matches(self, samples: object) -> Iterator[Match]:  # noqa: ARG002  # rules count messages
        """Yield how many messages each rule has received."""
        for rule in self._rules:
            topic = rule.rule.topic.filter
            yield Match(f"rules.{rule.name}", topic, rule.messages, "messages", complete=False)

    def start(self) -> None:
        """Start the network thread."""
        self._restore_pipelines()
        self._first_reply_deadline = monotonic() + FIRST_REPLY_SECONDS
        self._network.start()

    def save_state(self) -> tuple[str, MqttState] | None:
        """Return the pending messages of the pipelines; None before the first connection."""
        found = {measured.name: measured.save() for measured in self._pipelines}
        states = {name: state for name, state in found.items() if state is not None}
        if not states or len(states) < len(found):
            return None
        return self._broker(), MqttState(states)

    def _restore_pipelines(self) -> None:
        stored = self.restore(self._broker())
        if stored is None:
            return
        for measured in self._pipelines:
            if measured.name in stored.state.pipelines:
                state = stored.state.pipelines[measured.name]
                measured.restore(state, stored.downtime, stored.shift)

    def _broker(self) -> str:
        """Return the address of the broker, which has no other identity."""
        return f"broker {self.config.url.host}:{self.config.url.port or ''}"

    def stop(self) -> None:
        """End the connections."""
        self._network.stop()
        if isinstance(self._queues, Emqx):
            self._queues.close()

    def collect(self, scrape: Scrape) -> None:
        """Emit the current values; TargetError lists everything that is missing, with its cause."""
        self._wait(scrape)
        down = self._health.why_down()
        # The metrics that alerts use come first: `max_series` drops from the end.
        scrape.emit(metrics.UP, int(down is None))
        self._emit_connection(scrape)
        self._emit_messages(scrape)
        if self._values and self._health.fresh():
            self._emit_broker(scrape, self._values.latest())
        errors = [down or self._health.why_incomplete(), self._emit_queues(scrape)]
        self._emit_series(scrape)
        if failures := [Failure(error.reason, str(error)) for error in errors if error]:
            raise TargetError(failures[0].reason, "; ".join(message for _, message in failures))

    def _wait(self, scrape: Scrape) -> None:
        """Wait for values that are about to arrive."""
        # Each wait takes half of the time at most: the next ones, and the API of EMQX, need the rest.
        # A broker that is back must not wait for the next attempt of the network thread.
        if self._network.reconnect(min(FIRST_REPLY_SECONDS, scrape.remaining() / 2)) and (
            self._values or self._canary
        ):
            self._first_reply_deadline = monotonic() + FIRST_REPLY_SECONDS
        timeout_seconds = min(self._first_reply_deadline - monotonic(), scrape.remaining() / 2)
        self._replied.wait(max(timeout_seconds, 0))
        self._network.wake(min(WAKE_SECONDS, scrape.remaining() / 2))
        if self._values:
            self._values.settle(min(SETTLE_SECONDS, scrape.remaining() / 2))

    def _emit_broker(self, scrape: Scrape, values: Mapping[str, SysValue]) -> None:
        queued = systopics.queued(values)
        if queued is not None:
            scrape.emit(backlog.BACKLOG, queued, "mqtt", "", "")
            scrape.emit(systopics.QUEUED, queued)
        for value in values.values():
            if value.metric:
                scrape.emit(value.metric, value.value, *value.labels)
        if self.config.compat_names:
            sapcc_names.emit(scrape, values)

    def _emit_connection(self, scrape: Scrape) -> None:
        if self._values and self._values.updated is not None:
            scrape.emit(metrics.SYS_UPDATED, self._values.updated)
        metrics.emit_connection(scrape, self._network.state, self._network.router)

    def _emit_messages(self, scrape: Scrape) -> None:
        for rule in self._rules:
            rule.emit(scrape)
        if self._canary:
            self._canary.emit(scrape)
        for measured in self._pipelines:
            measured.emit(scrape, connected=self._network.state.connected)

    def _emit_queues(self, scrape: Scrape) -> TargetError | None:
        """Emit the queues of clients; return the error if they cannot be read."""
        if self._queues:
            try:
                self._queues.emit(scrape)
            except TargetError as error:
                # A copy: the traceback's frames would keep the reply in memory.
                return TargetError(error.reason, str(error))
        return None

    def _emit_series(self, scrape: Scrape) -> None:
        """Emit the series that publishers can multiply; last, so that `max_series` drops these."""
        if self._drops:
            self._drops.emit(scrape)
        self._store.emit(scrape, monotonic())
        for rule in self._rules:
            rule.emit_topics(scrape)


def _target(config: MqttConfig) -> Target:
    return Target(
        url=config.url,
        password=config.password or config.url.password,
        # The same for every connection: a new one replaces one that hangs.
        client_id=config.client_id or f"bts-exporter-{secrets.token_hex(4)}",
        keepalive_seconds=int(config.keepalive),
        protocol=config.protocol,
        tls=config.tls,
        alpn=config.alpn,
    )


COLLECTOR = Mqtt
