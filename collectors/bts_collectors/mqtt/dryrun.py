"""What a rule would make of a message, without any broker: `bts-exporter mqtt-test`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from time import monotonic

from bts_collectors.mqtt.eventtime import SKEWED
from bts_collectors.mqtt.families import Families
from bts_collectors.mqtt.readings import Readings
from bts_collectors.mqtt.rules import Rule
from bts_exporter import Command, Scrape


def run(rules: Iterable[Mapping[str, Rule]], name: str, topic: str, payload: str) -> Iterator[str]:
    """Yield the samples that a message gives to the rule `name`, and why a value is missing.

    ValueError where there is no such rule, its topic is another, or the message gives nothing.
    """
    known = {title: rule for block in rules for title, rule in block.items()}
    if name not in known:
        msg = f"there is no rule {name!r}; there are: {', '.join(sorted(known)) or 'none'}"
        raise ValueError(msg)
    problems: list[str] = []
    families = Families(known)
    readings = Readings(
        name, known[name], families, lambda error: problems.append(f"{error.reason}: {error}")
    )
    handle = readings.route(topic)
    if handle is None:
        msg = f"topic {topic!r} does not match {known[name].topic}"
        raise ValueError(msg)
    # What the shell could not decode goes back to what it was.
    handle(payload.encode("utf-8", "surrogateescape"), False)
    lines = list(_lines(readings, families))
    if not lines:
        msg = "; ".join(problems) or "the map has no number for it"
        raise ValueError(msg)
    yield from lines
    for problem in problems:
        yield f"# {problem}"


def _lines(readings: Readings, families: Families) -> Iterator[str]:
    """Yield the samples as a page of metrics has them; of histograms those that the message is in."""
    scrape = Scrape(monotonic() + 1)
    families.emit(scrape, monotonic())
    if readings.lag:
        readings.lag.emit(scrape, readings.name)
    for metric, samples in scrape.samples.items():
        for key, value in samples.items():
            suffix, labels = (key[0], key[1:]) if metric.compound else ("", key)
            names = (*metric.labels, *(["le"] if suffix == "_bucket" else []))
            pairs = ",".join(
                f"{label}={json.dumps(text, ensure_ascii=False)}"
                for label, text in zip(names, labels, strict=True)
            )
            if value or not (metric.compound or metric is SKEWED):
                yield f"{metric.name}{suffix}{f'{{{pairs}}}' if pairs else ''} {value:.15g}"


#: For people who write rules.
COMMAND = Command(
    "show what samples a message gives, or why none",
    {
        "RULE": "name of a rule in the settings",
        "TOPIC": "topic of the message",
        "PAYLOAD": "its payload",
    },
    lambda configs, *words: run((config.rules for config in configs), *words),
)
