"""Feeds messages to rules without a broker, for the tests of this folder."""

from __future__ import annotations

import json
from typing import Any

from bts_collectors.mqtt.client.topics import Pattern
from bts_collectors.mqtt.rules.config import Measure, Rule
from bts_collectors.mqtt.rules.engine import RuleEngine
from bts_collectors.mqtt.rules.payloads import Path
from bts_collectors.mqtt.rules.series import SeriesStore
from bts_exporter import Scrape

VALUE = Path.from_setting("value")


class Bench:
    """Several rules that share a store and a clock that the test moves."""

    def __init__(self, **rules: Rule) -> None:
        self.now = 1000.0
        self.store = SeriesStore(rules)
        self.rules = {
            name: RuleEngine(name, rule, self.store, clock=lambda: self.now)
            for name, rule in rules.items()
        }
        self.taken = 0

    def send(self, topic: str, payload: object, *, retained: bool = False) -> None:
        """Deliver a message to all rules, as JSON unless it is bytes."""
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        for rule in self.rules.values():
            handler = rule.route(topic)
            if handler:
                handler(raw, retained)

    def tick(self, seconds: float) -> None:
        """Advance the clock and run the rules' periodic work."""
        self.now += seconds
        for rule in self.rules.values():
            rule.tick(lambda *_: None)

    def shown(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Return the samples by metric."""
        scrape = Scrape(float("inf"))
        self.store.emit(scrape, self.now)
        for rule in self.rules.values():
            rule.emit(scrape)
            rule.emit_topics(scrape)
        assert scrape.losses == []
        return {metric.name: dict(samples) for metric, samples in scrape.samples.items()}


def rule(topic: str = "bts/{station}/{parameter}", **settings: Any) -> Rule:
    """Return a rule; keyword arguments that are a Measure become its metrics."""
    measures = {name: value for name, value in settings.items() if isinstance(value, Measure)}
    others = {name: value for name, value in settings.items() if name not in measures}
    return Rule(topic=Pattern.from_setting(topic), metrics=measures, **others)


def measure(**settings: Any) -> Measure:
    """Return a measure of `value` in the payload."""
    return Measure(path=VALUE, **settings)


COUNT = Measure(type="counter")
