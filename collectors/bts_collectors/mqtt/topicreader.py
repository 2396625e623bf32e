"""Takes the messages of one topic for one rule; what they need is looked up once, not for each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bts_collectors.mqtt.families import Family, Labels, Series
from bts_collectors.mqtt.payloads import Path, Unusable, label_text
from bts_collectors.mqtt.properties import user_properties
from bts_collectors.mqtt.rules import Measure

if TYPE_CHECKING:
    from bts_collectors.mqtt.readings import Readings


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

    __slots__ = ("family", "is_event", "labels", "measure", "read", "series")

    def __init__(self, readings: Readings, name: str, topic_labels: Mapping[str, str]) -> None:
        self.family: Family = readings.families[name]
        self.measure: Measure = readings.rule.metrics[name]
        self.is_event = self.measure.type == "histogram"
        self.read = readings.rule.reader(self.measure)
        values = topic_labels | self.measure.const_labels  # type: ignore[operator]
        self.labels = tuple(values[label] for label in readings.rule.labels_of(self.measure))
        self.series: Series | None = None


class _Spread:
    """A metric whose labels come from messages, too: any number of series."""

    __slots__ = (
        "convert",
        "family",
        "latest",
        "limit",
        "measure",
        "names",
        "path",
        "paths",
        "series",
        "wild",
    )

    def __init__(self, readings: Readings, name: str) -> None:
        rule = readings.rule
        self.family: Family = readings.families[name]
        self.measure: Measure = rule.metrics[name]
        self.names = rule.labels_of(self.measure)
        self.path = rule.resolve(self.measure.path)
        self.wild = self.path.labels
        self.convert = self.measure.conversion.convert()
        self.paths = [(n, rule.resolve(path)) for n, path in self.measure.payload_labels.items()]
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

    def values(self, data: Any) -> Iterator[tuple[dict[str, str], Any]]:
        """Yield the labels of the metric's own and what is found in the payload; Unusable for nothing."""
        own = {name: _optional(path, data) for name, path in self.paths} | self.measure.const_labels
        if self.measure.type == "info" or self.measure.counts_messages:
            yield own, None
        elif not self.path.is_wild:
            yield own, self.path.find(data)
        else:
            matches = self.path.matches(data)
            texts = [tuple(label_text(label) for label in labels) for labels, _ in matches]
            twice = Counter(texts)
            for wild, (_, raw) in zip(texts, matches, strict=True):
                if twice[wild] > 1 and self.measure.type != "histogram":
                    raise Unusable(reason="label", why="several values for one series", raw=data)
                yield own | dict(zip(self.wild, wild, strict=True)), raw


class TopicReader:
    """The series of one topic, and what updates them."""

    __slots__ = (
        "_counts",
        "_does_more",
        "_labels",
        "_per_topic",
        "_properties",
        "_readings",
        "_shared",
        "_slots",
        "_spreads",
        "_topic",
        "_traffic",
    )

    def __init__(self, readings: Readings, topic: str, labels: Mapping[str, str]) -> None:
        """Give the rule at work, the topic and the labels that it gives."""
        rule = readings.rule
        self._readings = readings
        self._topic = topic
        self._labels = labels
        self._shared = [(n, rule.resolve(path)) for n, path in rule.payload_labels.items()]
        self._properties = rule.property_labels
        self._counts: list[_Slot] = []
        self._slots: list[_Slot] = []
        self._spreads: list[_Spread] = []
        for name, measure in rule.metrics.items():
            fixed = set(labels) | set(measure.const_labels)
            varies = measure.type == "info" or not fixed >= set(rule.labels_of(measure))
            if varies or (measure.path and measure.path.is_wild):
                self._spreads.append(_Spread(readings, name))
            elif measure.counts_messages:
                self._counts.append(_Slot(readings, name, labels))
            else:
                self._slots.append(_Slot(readings, name, labels))
        self._per_topic = rule.per_topic
        self._does_more = bool(self._spreads or self._per_topic)
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
        slot.series = self._readings.series(slot.family, slot.labels, self._topic)
        return slot.series

    def _fail_all(self, error: Unusable) -> None:
        self._readings.note(error)
        for slot in self._slots:
            self._fail(slot)
        for spread in self._spreads:
            self._fail_spread(spread)

    def _fail(self, slot: _Slot) -> None:
        if slot.measure.on_error == "drop" and slot.measure.type != "histogram":
            self._readings.drop(slot.family, slot.labels)

    def _fail_spread(self, spread: _Spread) -> None:
        if spread.measure.on_error == "drop" and spread.measure.type != "histogram":
            for labels in spread.series:
                self._readings.drop(spread.family, labels)
            spread.series.clear()

    def _note_traffic(self, size: int, retained: bool, now: float) -> None:  # noqa: FBT001
        """Keep account of the topic where the rule asks for it."""
        if self._per_topic:
            traffic = self._traffic
            if traffic is None or traffic.gone:
                traffic = self._traffic = self._readings.traffic(self._topic)
            if traffic and not retained:
                traffic.note(size, now)

    def _read_spreads(self, data: Any, retained: bool, now: float, properties: bytes) -> None:  # noqa: FBT001
        """Update the metrics whose labels come from the message."""
        try:
            shared = dict(self._labels)
            shared |= {name: _optional(path, data) for name, path in self._shared}
            if self._properties:
                sent = user_properties(properties)
                shared |= {n: label_text(sent.get(of, "")) for n, of in self._properties.items()}
        except Unusable as error:
            self._readings.note(error)
            return
        for spread in self._spreads:
            event = spread.measure.type == "histogram" or spread.measure.counts_messages
            if retained and event:
                continue
            try:
                for own, raw in spread.values(data):
                    self._update(spread, shared | own, raw, now)
            except Unusable as error:
                self._readings.note(error)
                self._fail_spread(spread)

    def _update(self, spread: _Spread, texts: Mapping[str, str], raw: Any, now: float) -> None:
        """Update one series; what its value lacks costs no other."""
        labels = tuple(texts[name] for name in spread.names)
        try:
            value = 1.0 if raw is None else spread.convert(raw)
        except Unusable as error:
            self._readings.note(error)
            if spread.measure.on_error == "drop" and labels in spread.series:
                del spread.series[labels]
                self._readings.drop(spread.family, labels)
            return
        if value is None:
            return
        if spread.measure.type == "info" and spread.latest and spread.latest != labels:
            self._forget(spread, spread.latest)
        series = spread.series.get(labels)
        if series is None or series.gone:
            series = self._readings.series(spread.family, labels, self._topic)
            if series is None:
                return
            spread.keep(labels, series)
        spread.latest = labels
        series.update(value)
        series.seen = now

    def _forget(self, spread: _Spread, labels: Labels) -> None:
        spread.series.pop(labels, None)
        self._readings.remove(spread.family, labels, self._topic)

    def _remove(self) -> None:
        """Remove all series of the topic alone: its retained message was deleted."""
        for slot in (*self._counts, *self._slots):
            self._readings.remove(slot.family, slot.labels, self._topic)
        for spread in self._spreads:
            for labels in list(spread.series):
                self._forget(spread, labels)
        self._readings.remove_traffic(self._topic)


def _optional(path: Path, data: Any) -> str:
    """Return a label from a payload; "" where there is nothing, which is as if the label was not there."""
    try:
        found = path.find(data)
    except Unusable:
        return ""
    return label_text(found)
