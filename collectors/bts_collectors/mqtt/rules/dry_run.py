"""Applies rules to a message without a broker: the command `bts-exporter mqtt-test`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import NamedTuple, Protocol

from bts_collectors.mqtt.client.router import MAX_PAYLOAD_BYTES
from bts_collectors.mqtt.rules.config import Rule
from bts_collectors.mqtt.rules.engine import RuleEngine
from bts_collectors.mqtt.rules.event_time import SKEWED
from bts_collectors.mqtt.rules.series import SeriesStore
from bts_exporter import Command, Scrape, Url

#: Special values of the arguments RULE and PAYLOAD.
ALL = "all"
STDIN = "-"


class Target(Protocol):
    """The settings of a broker."""

    @property
    def url(self) -> Url:
        """Return the broker's address."""

    @property
    def rules(self) -> Mapping[str, Rule]:
        """Return its rules by name."""


class _Known(NamedTuple):
    """A rule, and its title, which has the broker's address if there are several targets."""

    title: str
    name: str
    rule: Rule


def run(targets: Sequence[Target], name: str, topic: str, payload: str) -> Iterator[str]:
    """Yield the samples that the rule `name` makes of a message, and the cause of missing values.

    `all` applies the rules of all targets, and yields why a rule does not match the topic.
    ValueError if there is no such rule, it does not match the topic, or there are no samples.
    """
    known = [
        _Known(f"{target.url} {title}" if len(targets) > 1 else title, title, rule)
        for target in targets
        for title, rule in target.rules.items()
    ]
    chosen = [candidate for candidate in known if name in {candidate.name, ALL}]
    if not chosen:
        names = ", ".join(sorted({candidate.name for candidate in known})) or "none"
        msg = f"unknown rule {name!r}, known rules: {names} ({ALL} for all of them)"
        raise ValueError(msg)
    raw = _payload(payload)
    if name != ALL and all(candidate.rule.match(topic) is None for candidate in chosen):
        raise ValueError(_mismatch(topic, chosen[0].rule, known))
    yield from _all(chosen, topic, raw, headings=len(chosen) > 1)


def _payload(text: str) -> bytes:
    """Return the payload of the argument; ValueError if it is larger than the collector accepts."""
    if text == STDIN:
        raw = sys.stdin.buffer.read(MAX_PAYLOAD_BYTES + 1)
    else:
        # Restore the bytes that Python could not decode.
        raw = text.encode("utf-8", "surrogateescape")
    if len(raw) > MAX_PAYLOAD_BYTES:
        msg = f"the payload is larger than {MAX_PAYLOAD_BYTES >> 20} MiB: the collector discards such messages"
        raise ValueError(msg)
    return raw


def _mismatch(topic: str, rule: Rule, known: Sequence[_Known]) -> str:
    fitting = [candidate.title for candidate in known if candidate.rule.match(topic) is not None]
    others = f"; rules that match it: {', '.join(fitting)}" if fitting else "; no rule matches it"
    return f"topic {topic!r} does not match {rule.topic}: {rule.why_not(topic)}{others}"


def _all(chosen: Sequence[_Known], topic: str, payload: bytes, *, headings: bool) -> Iterator[str]:
    given, missing = False, []
    for title, name, rule in chosen:
        if why_not := rule.why_not(topic):
            if headings:
                yield f"# {title}: does not match the topic: {why_not}"
            continue
        lines, problems = _try(name, rule, topic, payload)
        if headings:
            yield f"# {title}:"
        yield from lines
        given = given or bool(lines)
        missing += problems
        if headings or lines:
            yield from (f"# {problem}" for problem in problems)
    if not given:
        raise ValueError("; ".join(missing) or "no rule matches the topic")


def _try(name: str, rule: Rule, topic: str, payload: bytes) -> tuple[list[str], list[str]]:
    """Return the samples that a rule makes of a message, and the problems."""
    problems: list[str] = []
    store = SeriesStore({name: rule})
    engine = RuleEngine(
        name, rule, store, lambda error: problems.append(f"{error.reason}: {error}")
    )
    handle = engine.route(topic)
    if handle:
        handle(payload, False)
    if engine.filtered:
        problems.append(f"excluded by where: {engine.unmet(engine.decode(payload))}")
    lines = list(_lines(engine, store))
    if not lines and not problems:
        deleted = not payload and engine.deletes
        problems.append(
            "an empty payload removes the topic's series"
            if deleted
            else "the map has no number for this value"
        )
    return lines, problems


def _lines(engine: RuleEngine, store: SeriesStore) -> Iterator[str]:
    """Yield samples in the text format; of histograms only the buckets that count the message."""
    scrape = Scrape(monotonic() + 1)
    store.emit(scrape, monotonic())
    if engine.lag:
        engine.lag.emit(scrape, engine.name)
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


#: For authors of rules.
COMMAND = Command(
    "show the samples that a rule makes of a message, or why there are none",
    {
        "RULE": f"name of a rule in the settings; {ALL}: the rules of all targets",
        "TOPIC": "topic of the message",
        "PAYLOAD": f"payload of the message; {STDIN}: standard input",
    },
    run,
)
