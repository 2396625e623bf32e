"""Applies a rule to the messages of its topics, and counts messages, bytes and errors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from bts_collectors.mqtt.client.router import Handler, Publish
from bts_collectors.mqtt.client.topics import Subscription
from bts_collectors.mqtt.rules import event_time
from bts_collectors.mqtt.rules.config import Rule
from bts_collectors.mqtt.rules.event_time import EventLag
from bts_collectors.mqtt.rules.payloads import (
    MAX_LABEL,
    REASONS,
    PayloadError,
    Reason,
    as_text,
    decoder,
)
from bts_collectors.mqtt.rules.series import Family, Labels, Series, SeriesStore
from bts_collectors.mqtt.rules.topic_reader import TopicReader, Traffic
from bts_collectors.mqtt.rules.value_sources import Source
from bts_exporter import Metric, Scrape, counter, gauge

#: Characters of a topic that becomes a label.
MAX_TOPIC = 256
_SWEEP_SECONDS = 1.0

RECEIVED = counter("mqtt_received_messages_total", "Messages received that match the rule.", "rule")
RECEIVED_BYTES = counter(
    "mqtt_received_bytes_total", "Payload bytes of messages received that match the rule.", "rule"
)
ERRORS = counter(
    "mqtt_message_errors_total",
    f"Values that could not be read from messages of the rule, by reason ({', '.join(sorted(REASONS))}).",
    ("rule", "reason"),
)
FILTERED = counter(
    "mqtt_filtered_messages_total",
    "Messages of the rule excluded by its `where`.",
    "rule",
)
SERIES = gauge("mqtt_series", "Current series of the rule.", "rule")
DROPPED = counter(
    "mqtt_series_limit_dropped_total",
    "Values dropped because the rule already had max_series.",
    "rule",
)
EXPIRED = counter(
    "mqtt_series_expired_total", "Series of the rule dropped after no message for `expire`.", "rule"
)
_PER_TOPIC = ("rule", "topic")
TOPIC_MESSAGES = counter(
    "mqtt_topic_messages_total", "Messages received on the topic (per_topic).", _PER_TOPIC
)
TOPIC_BYTES = counter(
    "mqtt_topic_bytes_total", "Payload bytes received on the topic (per_topic).", _PER_TOPIC
)
TOPIC_LAST = gauge(
    "mqtt_topic_last_message_timestamp_seconds",
    "Unix time of the last message on the topic that was not retained (per_topic).",
    _PER_TOPIC,
)
METRICS: tuple[Metric, ...] = (
    RECEIVED,
    RECEIVED_BYTES,
    ERRORS,
    FILTERED,
    SERIES,
    DROPPED,
    EXPIRED,
    TOPIC_MESSAGES,
    TOPIC_BYTES,
    TOPIC_LAST,
    *event_time.METRICS,
)


class RuleEngine:
    """One rule with its state; the network thread writes, collections read."""

    def __init__(
        self,
        name: str,
        rule: Rule,
        store: SeriesStore,
        report: Callable[[PayloadError], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the rule; `report` is called for each value that cannot be read."""
        self.name = name
        self.rule = rule
        self.store = store
        self.clock = clock
        self.expire_seconds = rule.expire or float("inf")
        self.subscriptions = (Subscription(rule.topic.filter, rule.qos),)
        self.decode = decoder(rule.format, rule.separator)
        self.lag: EventLag | None = None
        if rule.event_time is not None:
            self.lag = EventLag(rule.event_time, rule.resolve(rule.event_time.path))
        #: How to read each metric, and the labels from payloads that all of them have.
        self.sources = [Source(rule, metric, store[metric]) for metric in rule.metrics]
        self.shared_labels = [(n, rule.resolve(path)) for n, path in rule.payload_labels.items()]
        self.conditions = rule.conditions()
        #: Whether payloads must be decoded.
        self.reads = bool(self.lag or self.conditions or rule.payload_labels) or any(
            not m.counts_messages or m.payload_labels for m in rule.metrics.values()
        )
        #: Whether an empty payload, which deletes a retained message, removes the topic's series.
        self.deletes = self.reads and not any("" in m.map for m in rule.metrics.values())
        self.messages = self.bytes = self.size = self.refused = self.expired = self.filtered = 0
        self.errors: Counter[Reason] = Counter()
        self.topics: dict[str, Traffic] = {}
        # Readers that must remember their series; others can be created again at any time.
        self._readers: dict[str, TopicReader] = {}
        self._report = report
        self._swept = clock()

    def begin(self) -> None:
        """Do nothing: series are kept across connections."""

    def route(self, topic: str) -> Handler | None:
        """Return the handler for a topic that the rule matches."""
        labels = self.rule.match(topic)
        if labels is None:
            return None
        if any(len(value) > MAX_LABEL for value in labels.values()):
            return self._reject
        reader = self._readers.get(topic)
        if reader is None:
            reader = TopicReader(self, topic, labels)
            if (
                reader.varies
                and len(topic) <= MAX_TOPIC
                and len(self._readers) < self.rule.max_series
            ):
                self._readers[topic] = reader
        return reader.take

    def tick(self, publish: Publish) -> None:  # noqa: ARG002  # Receiver
        """Drop series without a message for `expire`."""
        now = self.clock()
        if self.rule.expire and now - self._swept >= _SWEEP_SECONDS:
            self._swept = now
            self._sweep(now)

    def note(self, error: PayloadError) -> None:
        """Count a value that could not be read."""
        self.errors[error.reason] += 1
        if self._report:
            self._report(error)

    def note_lag(self, data: Any) -> None:
        """Count the lag of a message, if the rule has event_time."""
        try:
            if self.lag:
                self.lag.note(data)
        except PayloadError as error:
            self.note(error)

    def wants(self, data: Any) -> bool:
        """Return whether a payload meets `where`."""
        return not self.unmet(data)

    def unmet(self, data: Any) -> str:
        """Return the condition of `where` that a payload does not meet; "" if it meets all."""
        for path, choice in self.conditions:
            try:
                value = path.find(data)
            except PayloadError:
                return f"nothing at {path}"
            if isinstance(value, dict | list) or as_text(value) not in choice.texts:
                return f"{path} is {value!r:.60}, but must be {choice}"
        return ""

    def series(self, family: Family, labels: Labels, topic: str) -> Series | None:
        """Return a series, creating it if needed; None, and counted, beyond max_series."""
        series = family.series.get(labels)
        if series is None:
            if not self._has_room(family.cost):
                self.refused += 1
                return None
            series = family.create(labels, self.name, self.expire_seconds, self.clock())
        series.add_topic(topic)
        return series

    def remove(self, family: Family, labels: Labels, topic: str) -> None:
        """Remove a series that this rule made from this topic only."""
        series = family.series.get(labels)
        if series and series.owner == self.name and series.topic == topic:
            family.remove(labels)
            self.size -= family.cost

    def drop(self, family: Family, labels: Labels) -> None:
        """Drop a series until its next value; a series of another rule only loses its value."""
        series = family.series.get(labels)
        if series and series.owner == self.name:
            family.remove(labels)
            self.size -= family.cost
        elif series:
            series.value = None

    def traffic(self, topic: str) -> Traffic | None:
        """Return the counts of a topic; None, and counted, beyond max_series."""
        traffic = self.topics.get(topic)
        if traffic is None:
            if len(topic) > MAX_TOPIC or not self._has_room(Traffic.cost):
                self.refused += 1
                return None
            traffic = self.topics[topic] = Traffic(self.clock())
        return traffic

    def remove_traffic(self, topic: str) -> None:
        """Remove the counts of a topic."""
        if traffic := self.topics.pop(topic, None):
            traffic.gone = True
            self.size -= Traffic.cost

    def emit(self, scrape: Scrape) -> None:
        """Emit the counts of the rule; the store emits the series, emit_topics those by topic."""
        scrape.emit(RECEIVED, self.messages, self.name)
        scrape.emit(RECEIVED_BYTES, self.bytes, self.name)
        for reason in REASONS:
            scrape.emit(ERRORS, self.errors[reason], self.name, reason)
        scrape.emit(FILTERED, self.filtered, self.name)
        scrape.emit(SERIES, self.size, self.name)
        scrape.emit(DROPPED, self.refused, self.name)
        scrape.emit(EXPIRED, self.expired, self.name)
        if self.lag is not None:
            self.lag.emit(scrape, self.name)

    def emit_topics(self, scrape: Scrape) -> None:
        """Emit the counts by topic, for `per_topic`."""
        now = self.clock()
        for topic, traffic in list(self.topics.items()):
            if now - traffic.seen <= self.expire_seconds:
                scrape.emit(TOPIC_MESSAGES, traffic.messages, self.name, topic)
                scrape.emit(TOPIC_BYTES, traffic.bytes, self.name, topic)
                if traffic.last:
                    scrape.emit(TOPIC_LAST, traffic.last, self.name, topic)

    def _reject(self, payload: bytes, _retained: bool, _properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
        self.messages += 1
        self.bytes += len(payload)
        why = f"a level of the topic has more than {MAX_LABEL} characters"
        self.note(PayloadError(reason="label", why=why, raw=payload))

    def _has_room(self, cost: int) -> bool:
        if self.size + cost > self.rule.max_series:
            return False
        self.size += cost
        return True

    def _sweep(self, now: float) -> None:
        gone = 0
        for name in self.rule.metrics:
            family = self.store[name]
            gone += family.drop_expired(self.name, now) * family.cost
        self.size -= gone
        for topic, traffic in list(self.topics.items()):
            if now - traffic.seen > self.expire_seconds:
                self.remove_traffic(topic)
                gone += Traffic.cost
        self.expired += gone
        self._readers = {
            topic: reader for topic, reader in self._readers.items() if not reader.idle
        }
