"""A rule at work: it takes the messages of its topics, and keeps account of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from bts_collectors.mqtt import eventtime
from bts_collectors.mqtt.eventtime import EventLag
from bts_collectors.mqtt.families import Families, Labels, Series
from bts_collectors.mqtt.patterns import Subscription
from bts_collectors.mqtt.payloads import REASONS, Read, Reason, Unusable, decoder
from bts_collectors.mqtt.router import Handler, Publish
from bts_collectors.mqtt.rules import Measure, Rule
from bts_exporter import Metric, Scrape, counter, gauge

#: Characters of a level of a topic, and of a topic, that become a label at most.
MAX_LABEL = 128
MAX_TOPIC = 256
_SWEEP_SECONDS = 1.0

RECEIVED = counter("mqtt_received_messages_total", "Messages that matched the rule.", "rule")
RECEIVED_BYTES = counter("mqtt_received_bytes_total", "Bytes of their payloads.", "rule")
ERRORS = counter(
    "mqtt_message_errors_total",
    f"Values that messages of the rule did not give, by reason ({', '.join(sorted(REASONS))}).",
    ("rule", "reason"),
)
SERIES = gauge("mqtt_series", "Series that the rule's messages have made.", "rule")
DROPPED = counter(
    "mqtt_series_limit_dropped_total",
    "Values without a series because the rule has max_series already.",
    "rule",
)
EXPIRED = counter(
    "mqtt_series_expired_total", "Series dropped since no message came for `expire`.", "rule"
)
_PER_TOPIC = ("rule", "topic")
TOPIC_MESSAGES = counter("mqtt_topic_messages_total", "Messages of the topic.", _PER_TOPIC)
TOPIC_BYTES = counter("mqtt_topic_bytes_total", "Bytes of their payloads.", _PER_TOPIC)
TOPIC_LAST = gauge(
    "mqtt_topic_last_message_timestamp_seconds",
    "When the last message of the topic came, in Unix time; retained ones do not count.",
    _PER_TOPIC,
)
METRICS: tuple[Metric, ...] = (
    RECEIVED,
    RECEIVED_BYTES,
    ERRORS,
    SERIES,
    DROPPED,
    EXPIRED,
    TOPIC_MESSAGES,
    TOPIC_BYTES,
    TOPIC_LAST,
    *eventtime.METRICS,
)


class Traffic:
    """What came of one topic."""

    __slots__ = ("bytes", "last", "messages", "seen")

    #: Series that it is.
    cost = 3

    def __init__(self, now: float) -> None:
        self.messages = self.bytes = 0
        self.last = 0.0  # Unix time; 0: none but retained ones
        self.seen = now

    def note(self, size: int, now: float) -> None:
        """Count a message of `size` bytes."""
        self.messages += 1
        self.bytes += size
        self.last = time.time()
        self.seen = now


class Readings:
    """What one rule has made of messages; the network thread writes, collections read."""

    def __init__(
        self,
        name: str,
        rule: Rule,
        families: Families,
        report: Callable[[Unusable], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Have `report` told of each value that a message does not give."""
        self.name = name
        self.rule = rule
        self.families = families
        self.clock = clock
        self.expire = rule.expire or float("inf")
        self.subscriptions = (Subscription(rule.topic.filter),)
        self.decode = decoder(rule.format, rule.separator)
        self.lag: EventLag | None = None
        if rule.event_time is not None:
            self.lag = EventLag(rule.event_time, rule.resolve(rule.event_time.path))
        #: How to read each metric that needs a payload.
        self.read = {
            name: rule.reader(m) for name, m in rule.metrics.items() if not m.counts_messages
        }
        #: Whether payloads need to be looked into.
        self.reads = bool(self.read or self.lag)
        self.messages = self.bytes = self.size = self.refused = self.expired = 0
        self.errors: Counter[Reason] = Counter()
        self.topics: dict[str, Traffic] = {}
        self._report = report
        self._swept = clock()

    def begin(self) -> None:
        """Do nothing: series outlive a connection."""

    def route(self, topic: str) -> Handler | None:
        """Return what takes the messages of a topic that the rule is for."""
        values = self.rule.topic.match(topic)
        if values is None:
            return None
        if any(len(value) > MAX_LABEL for value in values):
            return self._refuse
        return _Topic(self, topic, dict(zip(self.rule.topic.labels, values, strict=True))).take

    def tick(self, publish: Publish) -> None:  # noqa: ARG002  # Receiver
        """Remove what is silent for too long."""
        now = self.clock()
        if self.rule.expire and now - self._swept >= _SWEEP_SECONDS:
            self._swept = now
            self._sweep(now)

    def note(self, error: Unusable) -> None:
        """Count a value that a message did not give."""
        self.errors[error.reason] += 1
        if self._report:
            self._report(error)

    def note_lag(self, data: Any) -> None:
        """Count how late a message is, where the rule says when it happened."""
        try:
            if self.lag:
                self.lag.note(data)
        except Unusable as error:
            self.note(error)

    def series(self, metric: str, labels: Labels) -> Series | None:
        """Return a series, a new one if need be; None where there is no room for it."""
        family = self.families[metric]
        found = family.series.get(labels)
        if found is None and self._has_room(family.cost):
            found = family.create(labels, self.name, self.expire, self.clock())
        return found

    def traffic(self, topic: str) -> Traffic | None:
        """Return the account of a topic; None where there is no room for it."""
        found = self.topics.get(topic)
        if found is None and len(topic) <= MAX_TOPIC and self._has_room(Traffic.cost):
            found = self.topics[topic] = Traffic(self.clock())
        return found

    def emit(self, scrape: Scrape) -> None:
        """Emit the account of the rule; its families are emitted once for all rules, its topics apart."""
        scrape.emit(RECEIVED, self.messages, self.name)
        scrape.emit(RECEIVED_BYTES, self.bytes, self.name)
        for reason in REASONS:
            scrape.emit(ERRORS, self.errors[reason], self.name, reason)
        scrape.emit(SERIES, self.size, self.name)
        scrape.emit(DROPPED, self.refused, self.name)
        scrape.emit(EXPIRED, self.expired, self.name)
        if self.lag is not None:
            self.lag.emit(scrape, self.name)

    def emit_topics(self, scrape: Scrape) -> None:
        """Emit the account of each topic, for `per_topic`."""
        now = self.clock()
        for topic, traffic in list(self.topics.items()):
            if now - traffic.seen <= self.expire:
                scrape.emit(TOPIC_MESSAGES, traffic.messages, self.name, topic)
                scrape.emit(TOPIC_BYTES, traffic.bytes, self.name, topic)
                if traffic.last:
                    scrape.emit(TOPIC_LAST, traffic.last, self.name, topic)

    def _refuse(self, payload: bytes, _retained: bool, _properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
        self.messages += 1
        self.bytes += len(payload)
        why = f"a level of the topic has more than {MAX_LABEL} characters"
        self.note(Unusable(reason="label", why=why, raw=payload))

    def _has_room(self, cost: int) -> bool:
        if self.size + cost > self.rule.max_series:
            return False
        self.size += cost
        return True

    def _sweep(self, now: float) -> None:
        gone = 0
        for name in self.rule.metrics:
            family = self.families[name]
            gone += family.drop_silent(self.name, now) * family.cost
        for topic, traffic in list(self.topics.items()):
            if now - traffic.seen > self.expire:
                del self.topics[topic]
                gone += Traffic.cost
        if gone:
            self.size -= gone
            self.expired += gone
            self.families.generation += 1


class _Topic:
    """Takes the messages of one topic; what they need is looked up once, not for each."""

    __slots__ = (
        "_counts",
        "_generation",
        "_labels",
        "_readings",
        "_refused",
        "_slots",
        "_topic",
        "_traffic",
    )

    def __init__(self, readings: Readings, topic: str, labels: Mapping[str, str]) -> None:
        self._readings = readings
        self._topic = topic
        self._labels = labels
        self._link()

    def take(self, payload: bytes, retained: bool, _properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
        """Update what a message has a value for."""
        readings = self._readings
        readings.messages += 1
        readings.bytes += len(payload)
        if self._generation != readings.families.generation:
            self._link()
        if self._refused:
            readings.refused += self._refused
        now = readings.clock()
        if not retained:  # else it is a state, and no event
            for series in self._counts:
                series.update(1)
                series.seen = now
            if self._traffic:
                self._traffic.note(len(payload), now)
        if not readings.reads:
            return
        try:
            data = readings.decode(payload)
        except Unusable as error:
            readings.note(error)
            for _, series, measure in self._slots:
                _fail(series, measure)
        else:
            self._read(data, retained, now)

    def _read(self, data: Any, retained: bool, now: float) -> None:  # noqa: FBT001  # Handler
        readings = self._readings
        if readings.lag and not retained:
            readings.note_lag(data)
        for read, series, measure in self._slots:
            if retained and measure.type == "histogram":
                continue
            try:
                value = read(data)
            except Unusable as error:
                readings.note(error)
                _fail(series, measure)
            else:
                if value is not None:
                    series.update(value)
                    series.seen = now

    def _link(self) -> None:
        """Look up the series of the topic."""
        readings = self._readings
        rule = readings.rule
        self._generation = readings.families.generation
        self._counts: list[Series] = []
        self._slots: list[tuple[Read, Series, Measure]] = []
        self._traffic = readings.traffic(self._topic) if rule.per_topic else None
        self._refused = int(rule.per_topic and self._traffic is None)
        for name, measure in rule.metrics.items():
            labels = tuple(self._labels[label] for label in rule.labels_of(measure))
            series = readings.series(name, labels)
            if series is None:
                self._refused += 1
            elif measure.counts_messages:
                self._counts.append(series)
            else:
                self._slots.append((readings.read[name], series, measure))


def _fail(series: Series, measure: Measure) -> None:
    if measure.on_error == "drop":
        series.value = None
