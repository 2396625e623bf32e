"""How to read one metric of a rule from messages; created once per rule, shared by all topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from bts_collectors.mqtt.rules.config import Rule
from bts_collectors.mqtt.rules.payloads import Path, PayloadError, label_text
from bts_collectors.mqtt.rules.series import Family


class Source:
    """The source of the value and the labels of one metric."""

    def __init__(self, rule: Rule, name: str, family: Family) -> None:
        """Take the rule, the metric's name and its family."""
        self.family = family
        self.measure = rule.metrics[name]
        self.names = rule.labels_of(self.measure)
        self.read = rule.reader(self.measure)
        self.convert = self.measure.conversion.convert()
        self.counts = self.measure.counts_messages
        #: Whether it counts events, so that retained messages do not count.
        self.is_event = self.counts or self.measure.type == "histogram"
        self.drops = self.measure.on_error == "drop" and not self.is_event
        self._path = rule.resolve(self.measure.path)
        self._labels = [(n, rule.resolve(path)) for n, path in self.measure.payload_labels.items()]
        fixed = {*rule.topic.labels, *self.measure.const_labels}
        #: Whether some labels come from the payload, so that a topic may have any number of series.
        self.varies = (
            self.measure.type == "info" or self._path.is_wild or not fixed.issuperset(self.names)
        )

    def values(self, data: Any) -> Iterator[tuple[dict[str, str], Any]]:
        """Yield the metric's own labels with each raw value; PayloadError if the payload has none."""
        own = {n: optional_label(path, data) for n, path in self._labels}
        own |= self.measure.const_labels
        if self.measure.type == "info" or self.counts:
            yield own, None
        elif not self._path.is_wild:
            yield own, self._path.find(data)
        else:
            matches = self._path.matches(data)
            texts = [tuple(label_text(label) for label in labels) for labels, _ in matches]
            counts = Counter(texts)
            for wild, (_, raw) in zip(texts, matches, strict=True):
                if counts[wild] > 1 and self.measure.type != "histogram":
                    raise PayloadError(
                        reason="label", why="several values for one series", raw=data
                    )
                yield own | dict(zip(self._path.labels, wild, strict=True)), raw


def optional_label(path: Path, data: Any) -> str:
    """Return a label value from a payload; "" if it is missing, which equals no label."""
    try:
        value = path.find(data)
    except PayloadError:
        return ""
    return label_text(value)
