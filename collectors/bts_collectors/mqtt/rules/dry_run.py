"""What rules would make of a message, without any broker: `bts-exporter mqtt-test`."""

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

#: In place of a rule's name, and of a payload.
ALL = "all"
STDIN = "-"


class Target(Protocol):
    """A broker in the settings."""

    @property
    def url(self) -> Url:
        """Return where it is."""

    @property
    def rules(self) -> Mapping[str, Rule]:
        """Return its rules by name."""


class _Known(NamedTuple):
    """A rule, and how it is called where there are several targets."""

    title: str
    name: str
    rule: Rule


def run(targets: Sequence[Target], name: str, topic: str, payload: str) -> Iterator[str]:
    """Yield the samples that a message gives to the rule `name`, and why a value is missing.

    `all` stands for the rules of all targets: of those that do not take the topic, it says why.
    ValueError where there is no such rule, its topic is another, or the message gives nothing.
    """
    known = [
        _Known(f"{target.url} {title}" if len(targets) > 1 else title, title, rule)
        for target in targets
        for title, rule in target.rules.items()
    ]
    chosen = [one for one in known if name in {one.name, ALL}]
    if not chosen:
        names = ", ".join(sorted({one.name for one in known})) or "none"
        msg = f"there is no rule {name!r}; there are: {names} ({ALL} stands for all of them)"
        raise ValueError(msg)
    raw = _payload(payload)
    if name != ALL and all(one.rule.match(topic) is None for one in chosen):
        raise ValueError(_mismatch(topic, chosen[0].rule, known))
    yield from _all(chosen, topic, raw, headings=len(chosen) > 1)


def _payload(text: str) -> bytes:
    """Return the bytes that an argument means; ValueError for more than the collector takes."""
    if text == STDIN:
        raw = sys.stdin.buffer.read(MAX_PAYLOAD_BYTES + 1)
    else:
        # What the shell could not decode goes back to what it was.
        raw = text.encode("utf-8", "surrogateescape")
    if len(raw) > MAX_PAYLOAD_BYTES:
        msg = f"a payload of more than {MAX_PAYLOAD_BYTES >> 20} MiB: such messages are left out"
        raise ValueError(msg)
    return raw


def _mismatch(topic: str, rule: Rule, known: Sequence[_Known]) -> str:
    fitting = [one.title for one in known if one.rule.match(topic) is not None]
    others = f"; rules that take it: {', '.join(fitting)}" if fitting else "; no rule takes it"
    return f"topic {topic!r} does not match {rule.topic}: {rule.why_not(topic)}{others}"


def _all(chosen: Sequence[_Known], topic: str, payload: bytes, *, headings: bool) -> Iterator[str]:
    given, missing = False, []
    for title, name, rule in chosen:
        if why_not := rule.why_not(topic):
            if headings:
                yield f"# {title}: does not take the topic: {why_not}"
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
        raise ValueError("; ".join(missing) or "no rule takes the topic")


def _try(name: str, rule: Rule, topic: str, payload: bytes) -> tuple[list[str], list[str]]:
    """Return the samples that a rule makes of a message, and what is missing."""
    problems: list[str] = []
    store = SeriesStore({name: rule})
    engine = RuleEngine(
        name, rule, store, lambda error: problems.append(f"{error.reason}: {error}")
    )
    handle = engine.route(topic)
    if handle:
        handle(payload, False)
    if engine.filtered:
        problems.append(f"left out by where: {engine.unmet(engine.decode(payload))}")
    lines = list(_lines(engine, store))
    if not lines and not problems:
        deleted = not payload and engine.deletes
        problems.append(
            "an empty payload removes the series of the topic"
            if deleted
            else "the map has no number for it"
        )
    return lines, problems


def _lines(engine: RuleEngine, store: SeriesStore) -> Iterator[str]:
    """Yield the samples as a page of metrics has them; of histograms those that the message is in."""
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


#: For people who write rules.
COMMAND = Command(
    "show what samples a message gives, or why none",
    {
        "RULE": f"name of a rule in the settings; {ALL}: those of all targets",
        "TOPIC": "topic of the message",
        "PAYLOAD": f"its payload; {STDIN}: standard input",
    },
    run,
)
