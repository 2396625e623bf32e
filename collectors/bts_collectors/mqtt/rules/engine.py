"""A rule at work: it takes the messages of its topics, and keeps account of them."""

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
    decoder,
    spelled,
)
from bts_collectors.mqtt.rules.series import Family, Labels, Series, SeriesStore
from bts_collectors.mqtt.rules.topic_reader import TopicReader, Traffic
from bts_collectors.mqtt.rules.value_sources import Source
from bts_exporter import Metric, Scrape, counter, gauge

#: Characters of a topic that becomes a label.
MAX_TOPIC = 256
_SWEEP_SECONDS = 1.0

RECEIVED = counter("mqtt_received_messages_total", "Messages that matched the rule.", "rule")
RECEIVED_BYTES = counter("mqtt_received_bytes_total", "Bytes of their payloads.", "rule")
ERRORS = counter(
    "mqtt_message_errors_total",
    f"Values that messages of the rule did not give, by reason ({', '.join(sorted(REASONS))}).",
    ("rule", "reason"),
)
FILTERED = counter(
    "mqtt_filtered_messages_total",
    "Messages that the rule left out since they do not have what `where` asks for.",
    "rule",
)
SERIES = gauge("mqtt_series", "Series that the rule's messages have made, and that exist.", "rule")
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
    """What one rule has made of messages; the network thread writes, collections read."""

    def __init__(
        self,
        name: str,
        rule: Rule,
        store: SeriesStore,
        report: Callable[[PayloadError], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Have `report` told of each value that a message does not give."""
        self.name = name
        self.rule = rule
        self.store = store
        self.clock = clock
        self.expire = rule.expire or float("inf")
        self.subscriptions = (Subscription(rule.topic.filter, rule.qos),)
        self.decode = decoder(rule.format, rule.separator)
        self.lag: EventLag | None = None
        if rule.event_time is not None:
            self.lag = EventLag(rule.event_time, rule.resolve(rule.event_time.path))
        #: How to read each metric, and the labels that all of them have from payloads.
        self.sources = [Source(rule, metric, store[metric]) for metric in rule.metrics]
        self.shared_labels = [(n, rule.resolve(path)) for n, path in rule.payload_labels.items()]
        self.conditions = rule.conditions()
        #: Whether payloads need to be looked into.
        self.reads = bool(self.lag or self.conditions or rule.payload_labels) or any(
            not m.counts_messages or m.payload_labels for m in rule.metrics.values()
        )
        #: Whether an empty payload means that the topic is gone: the way to delete a retained message.
        self.deletes = self.reads and not any("" in m.map for m in rule.metrics.values())
        self.messages = self.bytes = self.size = self.refused = self.expired = self.filtered = 0
        self.errors: Counter[Reason] = Counter()
        self.topics: dict[str, Traffic] = {}
        # Those that have to know which series they made; others can be made again at any time.
        self._readers: dict[str, TopicReader] = {}
        self._report = report
        self._swept = clock()

    def begin(self) -> None:
        """Do nothing: series outlive a connection."""

    def route(self, topic: str) -> Handler | None:
        """Return what takes the messages of a topic that the rule is for."""
        labels = self.rule.match(topic)
        if labels is None:
            return None
        if any(len(value) > MAX_LABEL for value in labels.values()):
            return self._refuse
        found = self._readers.get(topic)
        if found is None:
            found = TopicReader(self, topic, labels)
            if (
                found.varies
                and len(topic) <= MAX_TOPIC
                and len(self._readers) < self.rule.max_series
            ):
                self._readers[topic] = found
        return found.take

    def tick(self, publish: Publish) -> None:  # noqa: ARG002  # Receiver
        """Remove what is silent for too long."""
        now = self.clock()
        if self.rule.expire and now - self._swept >= _SWEEP_SECONDS:
            self._swept = now
            self._sweep(now)

    def note(self, error: PayloadError) -> None:
        """Count a value that a message did not give."""
        self.errors[error.reason] += 1
        if self._report:
            self._report(error)

    def note_lag(self, data: Any) -> None:
        """Count how late a message is, where the rule says when it happened."""
        try:
            if self.lag:
                self.lag.note(data)
        except PayloadError as error:
            self.note(error)

    def wants(self, data: Any) -> bool:
        """Return whether a payload has what `where` asks for."""
        return not self.unmet(data)

    def unmet(self, data: Any) -> str:
        """Return what of `where` a payload does not have; "" for nothing."""
        for path, choice in self.conditions:
            try:
                found = path.find(data)
            except PayloadError:
                return f"nothing at {path}"
            if isinstance(found, dict | list) or spelled(found) not in choice.texts:
                return f"{path} is {found!r:.60}, and has to be {choice}"
        return ""

    def series(self, family: Family, labels: Labels, topic: str) -> Series | None:
        """Return a series, a new one if need be; None, and counted, where there is no room for it."""
        found = family.series.get(labels)
        if found is None:
            if not self._has_room(family.cost):
                self.refused += 1
                return None
            found = family.create(labels, self.name, self.expire, self.clock())
        found.belong(topic)
        return found

    def remove(self, family: Family, labels: Labels, topic: str) -> None:
        """Remove a series that this rule has made from one topic only."""
        found = family.series.get(labels)
        if found and found.owner == self.name and found.topic == topic:
            family.remove(labels)
            self.size -= family.cost

    def drop(self, family: Family, labels: Labels) -> None:
        """Remove a series until there is a value again; one of another rule has none until then."""
        found = family.series.get(labels)
        if found and found.owner == self.name:
            family.remove(labels)
            self.size -= family.cost
        elif found:
            found.value = None

    def traffic(self, topic: str) -> Traffic | None:
        """Return the account of a topic; None, and counted, where there is no room for it."""
        found = self.topics.get(topic)
        if found is None:
            if len(topic) > MAX_TOPIC or not self._has_room(Traffic.cost):
                self.refused += 1
                return None
            found = self.topics[topic] = Traffic(self.clock())
        return found

    def remove_traffic(self, topic: str) -> None:
        """Remove the account of a topic."""
        if found := self.topics.pop(topic, None):
            found.gone = True
            self.size -= Traffic.cost

    def emit(self, scrape: Scrape) -> None:
        """Emit the account of the rule; its families are emitted once for all rules, its topics apart."""
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
            gone += family.drop_silent(self.name, now) * family.cost
        self.size -= gone
        for topic, traffic in list(self.topics.items()):
            if now - traffic.seen > self.expire:
                self.remove_traffic(topic)
                gone += Traffic.cost
        self.expired += gone
        self._readers = {topic: one for topic, one in self._readers.items() if not one.idle}
