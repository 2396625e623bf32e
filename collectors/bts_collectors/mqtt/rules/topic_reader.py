"""Handles the messages of one topic for one rule: series are looked up once per topic, not per message."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bts_collectors.mqtt.rules.payloads import PayloadError, label_text
from bts_collectors.mqtt.rules.series import Labels, Series
from bts_collectors.mqtt.rules.user_properties import user_properties
from bts_collectors.mqtt.rules.value_sources import Source, optional_label

if TYPE_CHECKING:
    from bts_collectors.mqtt.rules.engine import RuleEngine


#: Series of one metric and topic from which on removed ones are searched for.
_CLEAN_UP_FROM = 100


class Traffic:
    """Counts of one topic."""

    __slots__ = ("bytes", "gone", "last", "messages", "seen")

    #: Number of Prometheus series.
    cost = 3

    def __init__(self, now: float) -> None:
        self.gone = False
        self.messages = self.bytes = 0
        self.last = 0.0  # Unix time; 0 if all messages were retained
        self.seen = now

    def note(self, size: int, now: float) -> None:
        """Count a message of `size` bytes."""
        self.messages += 1
        self.bytes += size
        self.last = time.time()
        self.seen = now


class _FixedSeries:
    """The only series of a metric whose labels all come from the topic."""

    __slots__ = ("is_event", "labels", "read", "series", "source")

    def __init__(self, source: Source, labels: Labels) -> None:
        self.source = source
        self.labels = labels
        self.read = source.read
        self.is_event = source.is_event
        self.series: Series | None = None


class _VaryingSeries:
    """The series of a metric with labels from the payload: any number."""

    __slots__ = ("latest", "limit", "series", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        #: The series of this topic, so that they can be removed with it.
        self.series: dict[Labels, Series] = {}
        #: The current labels of an info metric: new ones replace them.
        self.latest: Labels | None = None
        self.limit = _CLEAN_UP_FROM

    def keep(self, labels: Labels, series: Series) -> None:
        """Remember a series of this topic; sometimes forget removed ones."""
        self.series[labels] = series
        if len(self.series) > self.limit:
            self.series = {known: kept for known, kept in self.series.items() if not kept.gone}
            self.limit = max(_CLEAN_UP_FROM, 2 * len(self.series))


class TopicReader:
    """Updates the series of one topic; there may be fifty thousand readers."""

    __slots__ = (
        "_counts",
        "_does_more",
        "_engine",
        "_fixed",
        "_labels",
        "_topic",
        "_traffic",
        "_varying",
    )

    def __init__(self, engine: RuleEngine, topic: str, labels: Mapping[str, str]) -> None:
        """Take the rule's engine, the topic and the labels that the topic gives."""
        series = [
            _FixedSeries(source, _topic_labels(source, labels))
            for source in engine.sources
            if not source.varies
        ]
        self._engine = engine
        self._topic = topic
        self._counts = tuple(fixed for fixed in series if fixed.source.counts)
        self._fixed = tuple(fixed for fixed in series if not fixed.source.counts)
        self._varying = tuple(_VaryingSeries(source) for source in engine.sources if source.varies)
        self._labels = labels if self._varying else {}
        self._does_more = bool(self._varying or engine.rule.per_topic)
        self._traffic: Traffic | None = None

    @property
    def varies(self) -> bool:
        """Return whether some labels come from the payload, so that there may be any number of series."""
        return bool(self._varying)

    @property
    def idle(self) -> bool:
        """Return whether none of these series exists any more."""
        return all(series.gone for varying in self._varying for series in varying.series.values())

    def take(self, payload: bytes, retained: bool, properties: bytes = b"") -> None:  # noqa: C901, FBT001  # the hot path: a call costs as much as three lines
        """Update the series with a message."""
        engine = self._engine
        engine.messages += 1
        engine.bytes += len(payload)
        data, readable = None, engine.reads
        if readable:
            if not payload and engine.deletes:
                self._remove()
                return
            try:
                data = engine.decode(payload)
            except PayloadError as error:
                readable = False
                self._fail_all(error)
            if engine.conditions and not (readable and engine.wants(data)):
                engine.filtered += readable
                return
        now = engine.clock()
        for fixed in self._counts:
            series = fixed.series
            if series is None or series.gone:
                series = self._find(fixed)
            if series and not retained:  # a retained message is a state, not an event
                series.value += 1  # type: ignore[operator]
                series.seen = now
        if readable:
            self._read(data, retained, now)
        if self._does_more:
            self._note_traffic(len(payload), retained, now)
            if readable and self._varying:
                self._read_varying(data, retained, now, properties)

    def _read(self, data: Any, retained: bool, now: float) -> None:  # noqa: FBT001  # Handler
        """Update the metrics whose labels all come from the topic."""
        engine = self._engine
        if engine.lag and not retained:
            engine.note_lag(data)
        for fixed in self._fixed:
            try:
                value = fixed.read(data)
            except PayloadError as error:
                engine.note(error)
                self._fail(fixed)
                continue
            if value is None:
                continue
            series = fixed.series
            if series is None or series.gone:
                series = self._find(fixed)
            if series is None:
                continue
            if not fixed.is_event:
                series.value = value
                series.seen = now
            elif not retained:
                series.update(value)
                series.seen = now

    def _find(self, fixed: _FixedSeries) -> Series | None:
        fixed.series = self._engine.series(fixed.source.family, fixed.labels, self._topic)
        return fixed.series

    def _fail_all(self, error: PayloadError) -> None:
        self._engine.note(error)
        for fixed in self._fixed:
            self._fail(fixed)
        for varying in self._varying:
            self._fail_varying(varying)

    def _fail(self, fixed: _FixedSeries) -> None:
        if fixed.source.drops:
            self._engine.drop(fixed.source.family, fixed.labels)

    def _fail_varying(self, varying: _VaryingSeries) -> None:
        if varying.source.drops:
            for labels in varying.series:
                self._engine.drop(varying.source.family, labels)
            varying.series.clear()

    def _note_traffic(self, size: int, retained: bool, now: float) -> None:  # noqa: FBT001
        """Count the message for its topic, with `per_topic`."""
        if self._engine.rule.per_topic:
            traffic = self._traffic
            if traffic is None or traffic.gone:
                traffic = self._traffic = self._engine.traffic(self._topic)
            if traffic and not retained:
                traffic.note(size, now)

    def _read_varying(self, data: Any, retained: bool, now: float, properties: bytes) -> None:  # noqa: FBT001
        """Update the metrics with labels from the message."""
        rule = self._engine.rule
        try:
            shared = dict(self._labels)
            shared |= {n: optional_label(path, data) for n, path in self._engine.shared_labels}
            if rule.property_labels:
                sent = user_properties(properties)
                shared |= {n: label_text(sent.get(p, "")) for n, p in rule.property_labels.items()}
        except PayloadError as error:
            self._engine.note(error)
            return
        for varying in self._varying:
            if retained and varying.source.is_event:
                continue
            try:
                for own, raw in varying.source.values(data):
                    self._update(varying, shared | own, raw, now)
            except PayloadError as error:
                self._engine.note(error)
                self._fail_varying(varying)

    def _update(
        self, varying: _VaryingSeries, texts: Mapping[str, str], raw: Any, now: float
    ) -> None:
        """Update one series; an invalid value affects no other."""
        source = varying.source
        labels = tuple(texts[name] for name in source.names)
        try:
            value = 1.0 if raw is None else source.convert(raw)
        except PayloadError as error:
            self._engine.note(error)
            if source.drops and labels in varying.series:
                del varying.series[labels]
                self._engine.drop(source.family, labels)
            return
        if value is None:
            return
        if source.measure.type == "info" and varying.latest and varying.latest != labels:
            self._forget(varying, varying.latest)
        series = varying.series.get(labels)
        if series is None or series.gone:
            series = self._engine.series(source.family, labels, self._topic)
            if series is None:
                return
            varying.keep(labels, series)
        varying.latest = labels
        series.update(value)
        series.seen = now

    def _forget(self, varying: _VaryingSeries, labels: Labels) -> None:
        varying.series.pop(labels, None)
        self._engine.remove(varying.source.family, labels, self._topic)

    def _remove(self) -> None:
        """Remove all series of only this topic: its retained message was deleted."""
        for fixed in (*self._counts, *self._fixed):
            self._engine.remove(fixed.source.family, fixed.labels, self._topic)
        for varying in self._varying:
            for labels in list(varying.series):
                self._forget(varying, labels)
        self._engine.remove_traffic(self._topic)


def _topic_labels(source: Source, labels: Mapping[str, str]) -> Labels:
    """Return the label values of a metric that needs no label from the payload."""
    known = {**labels, **source.measure.const_labels}
    return tuple(known[name] for name in source.names)
