"""Takes the messages of one topic for one rule; what they need is looked up once, not for each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bts_collectors.mqtt.rules.payloads import Unusable, label_text
from bts_collectors.mqtt.rules.series import Labels, Series
from bts_collectors.mqtt.rules.user_properties import user_properties
from bts_collectors.mqtt.rules.value_sources import Source, optional_label

if TYPE_CHECKING:
    from bts_collectors.mqtt.rules.engine import Readings


#: Series of one metric and topic before those that are gone are looked for.
_FEW = 100


class Traffic:
    """What came of one topic."""

    __slots__ = ("bytes", "gone", "last", "messages", "seen")

    #: Series that it is.
    cost = 3

    def __init__(self, now: float) -> None:
        self.gone = False
        self.messages = self.bytes = 0
        self.last = 0.0  # Unix time; 0: none but retained ones
        self.seen = now

    def note(self, size: int, now: float) -> None:
        """Count a message of `size` bytes."""
        self.messages += 1
        self.bytes += size
        self.last = time.time()
        self.seen = now


class _Slot:
    """A metric whose labels the topic alone gives: one series."""

    __slots__ = ("is_event", "labels", "read", "series", "source")

    def __init__(self, source: Source, labels: Labels) -> None:
        self.source = source
        self.labels = labels
        self.read = source.read
        self.is_event = source.is_event
        self.series: Series | None = None


class _Spread:
    """A metric whose labels come from messages, too: any number of series."""

    __slots__ = ("latest", "limit", "series", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        #: Those of this topic, so that they can be removed with it.
        self.series: dict[Labels, Series] = {}
        #: The labels of an info: new ones take their place.
        self.latest: Labels | None = None
        self.limit = _FEW

    def keep(self, labels: Labels, series: Series) -> None:
        """Remember a series of this topic, and forget those that are gone now and then."""
        self.series[labels] = series
        if len(self.series) > self.limit:
            self.series = {known: one for known, one in self.series.items() if not one.gone}
            self.limit = max(_FEW, 2 * len(self.series))


class TopicReader:
    """The series of one topic, and what updates them; there may be fifty thousand."""

    __slots__ = (
        "_counts",
        "_does_more",
        "_labels",
        "_readings",
        "_slots",
        "_spreads",
        "_topic",
        "_traffic",
    )

    def __init__(self, readings: Readings, topic: str, labels: Mapping[str, str]) -> None:
        """Give the rule at work, the topic and the labels that it gives."""
        slots = [
            _Slot(one, tuple((labels | one.measure.const_labels)[name] for name in one.names))  # type: ignore[operator]
            for one in readings.sources
            if not one.varies
        ]
        self._readings = readings
        self._topic = topic
        self._counts = tuple(slot for slot in slots if slot.source.counts)
        self._slots = tuple(slot for slot in slots if not slot.source.counts)
        self._spreads = tuple(_Spread(one) for one in readings.sources if one.varies)
        self._labels = labels if self._spreads else {}
        self._does_more = bool(self._spreads or readings.rule.per_topic)
        self._traffic: Traffic | None = None

    @property
    def varies(self) -> bool:
        """Return whether messages give labels, so that there may be any number of series."""
        return bool(self._spreads)

    @property
    def idle(self) -> bool:
        """Return whether none of those series exists."""
        return all(one.gone for spread in self._spreads for one in spread.series.values())

    def take(self, payload: bytes, retained: bool, properties: bytes = b"") -> None:  # noqa: C901, FBT001  # a call costs as much as three lines
        """Update what a message has a value for."""
        readings = self._readings
        readings.messages += 1
        readings.bytes += len(payload)
        data, readable = None, readings.reads
        if readable:
            if not payload and readings.deletes:
                self._remove()
                return
            try:
                data = readings.decode(payload)
            except Unusable as error:
                readable = False
                self._fail_all(error)
            if readings.conditions and not (readable and readings.wants(data)):
                readings.filtered += readable
                return
        now = readings.clock()
        for slot in self._counts:
            series = slot.series
            if series is None or series.gone:
                series = self._find(slot)
            if series and not retained:  # else it is a state, and no event
                series.value += 1  # type: ignore[operator]
                series.seen = now
        if readable:
            self._read(data, retained, now)
        if self._does_more:
            self._note_traffic(len(payload), retained, now)
            if readable and self._spreads:
                self._read_spreads(data, retained, now, properties)

    def _read(self, data: Any, retained: bool, now: float) -> None:  # noqa: FBT001  # Handler
        """Update the metrics whose labels the topic alone gives."""
        readings = self._readings
        if readings.lag and not retained:
            readings.note_lag(data)
        for slot in self._slots:
            try:
                value = slot.read(data)
            except Unusable as error:
                readings.note(error)
                self._fail(slot)
                continue
            if value is None:
                continue
            series = slot.series
            if series is None or series.gone:
                series = self._find(slot)
            if series is None:
                continue
            if not slot.is_event:
                series.value = value
                series.seen = now
            elif not retained:
                series.update(value)
                series.seen = now

    def _find(self, slot: _Slot) -> Series | None:
        slot.series = self._readings.series(slot.source.family, slot.labels, self._topic)
        return slot.series

    def _fail_all(self, error: Unusable) -> None:
        self._readings.note(error)
        for slot in self._slots:
            self._fail(slot)
        for spread in self._spreads:
            self._fail_spread(spread)

    def _fail(self, slot: _Slot) -> None:
        if slot.source.drops:
            self._readings.drop(slot.source.family, slot.labels)

    def _fail_spread(self, spread: _Spread) -> None:
        if spread.source.drops:
            for labels in spread.series:
                self._readings.drop(spread.source.family, labels)
            spread.series.clear()

    def _note_traffic(self, size: int, retained: bool, now: float) -> None:  # noqa: FBT001
        """Keep account of the topic where the rule asks for it."""
        if self._readings.rule.per_topic:
            traffic = self._traffic
            if traffic is None or traffic.gone:
                traffic = self._traffic = self._readings.traffic(self._topic)
            if traffic and not retained:
                traffic.note(size, now)

    def _read_spreads(self, data: Any, retained: bool, now: float, properties: bytes) -> None:  # noqa: FBT001
        """Update the metrics whose labels come from the message."""
        rule = self._readings.rule
        try:
            shared = dict(self._labels)
            shared |= {n: optional_label(path, data) for n, path in self._readings.shared_labels}
            if rule.property_labels:
                sent = user_properties(properties)
                shared |= {n: label_text(sent.get(p, "")) for n, p in rule.property_labels.items()}
        except Unusable as error:
            self._readings.note(error)
            return
        for spread in self._spreads:
            if retained and spread.source.is_event:
                continue
            try:
                for own, raw in spread.source.values(data):
                    self._update(spread, shared | own, raw, now)
            except Unusable as error:
                self._readings.note(error)
                self._fail_spread(spread)

    def _update(self, spread: _Spread, texts: Mapping[str, str], raw: Any, now: float) -> None:
        """Update one series; what its value lacks costs no other."""
        source = spread.source
        labels = tuple(texts[name] for name in source.names)
        try:
            value = 1.0 if raw is None else source.convert(raw)
        except Unusable as error:
            self._readings.note(error)
            if source.drops and labels in spread.series:
                del spread.series[labels]
                self._readings.drop(source.family, labels)
            return
        if value is None:
            return
        if source.measure.type == "info" and spread.latest and spread.latest != labels:
            self._forget(spread, spread.latest)
        series = spread.series.get(labels)
        if series is None or series.gone:
            series = self._readings.series(source.family, labels, self._topic)
            if series is None:
                return
            spread.keep(labels, series)
        spread.latest = labels
        series.update(value)
        series.seen = now

    def _forget(self, spread: _Spread, labels: Labels) -> None:
        spread.series.pop(labels, None)
        self._readings.remove(spread.source.family, labels, self._topic)

    def _remove(self) -> None:
        """Remove all series of the topic alone: its retained message was deleted."""
        for slot in (*self._counts, *self._slots):
            self._readings.remove(slot.source.family, slot.labels, self._topic)
        for spread in self._spreads:
            for labels in list(spread.series):
                self._forget(spread, labels)
        self._readings.remove_traffic(self._topic)
