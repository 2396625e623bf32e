"""The text format 0.0.4, read strictly: a file written half, or by a script gone wrong, is an error.

The parser of prometheus_client takes much of that for metrics, and renames counters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from bts_exporter import Kind

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_VALUE_OF_LABEL = r'"((?:[^"\\]|\\[\\"n])*)"'
_SAMPLE = re.compile(
    rf'({_NAME})(?:[ \t]*\{{((?:[^"}}]|"(?:[^"\\]|\\.)*")*)\}}[ \t]*|[ \t]+)'
    r"([^ \t]+)(?:[ \t]+(-?[0-9]+))?"
)
_LABEL = re.compile(
    rf"[ \t]*((?!__)[a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*{_VALUE_OF_LABEL}[ \t]*(,|$)"
)
_COMMENT = re.compile(r"#[ \t]*(HELP|TYPE)[ \t]+([^ \t]+)(?:[ \t]+(.*))?")
_NUMBER = re.compile(
    r"[+-]?((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE
)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}

#: What the names of samples have behind their metric's, and the label that some of them need.
_SUFFIXES = {
    Kind.HISTOGRAM: {"_bucket": "le", "_sum": "", "_count": ""},
    Kind.SUMMARY: {"": "quantile", "_sum": "", "_count": ""},
}
_PLAIN = {"": ""}

#: Characters of a line that an error shows.
_SHOWN = 60


class Sample(NamedTuple):
    """One value: the end of its name, the labels that are not empty, and the value."""

    suffix: str
    labels: dict[str, str]
    value: float


@dataclass(slots=True)
class Family:
    """A metric with its samples; help is None where there is no line for it."""

    name: str
    kind: Kind = Kind.UNTYPED
    help: str | None = None
    samples: list[Sample] = field(default_factory=list)
    typed: bool = False


def parse(text: str) -> list[Family]:
    """Return the families of a page; ValueError naming the line where it breaks a rule.

    Samples with a time of their own, and two with the same labels, break one too.
    """
    *lines, rest = text.split("\n")
    if rest:
        msg = f"the last line does not end, it may be cut off: {_shown(rest)}"
        raise ValueError(msg)
    page = _Page()
    for number, line in enumerate(lines, 1):
        try:
            page.take(line.strip(" \t"))
        except ValueError as error:
            msg = f"line {number}: {error}: {_shown(line)}"
            raise ValueError(msg) from None
    return [family for family in page.families.values() if family.samples]


class _Page:
    """The families found so far."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}
        self._seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()

    def take(self, line: str) -> None:
        if line.startswith("#"):
            self._take_comment(line)
        elif line:
            self._take_sample(line)

    def _take_comment(self, line: str) -> None:
        found = _COMMENT.fullmatch(line)
        if found is None:
            return
        keyword, name, rest = found.groups("")
        if not re.fullmatch(_NAME, name):
            msg = f"{name} is not the name of a metric"
            raise ValueError(msg)
        family = self.families.setdefault(name, Family(name))
        if keyword == "HELP":
            if family.help is not None:
                msg = f"a second help for {name}"
                raise ValueError(msg)
            family.help = _unescaped(rest)
            return
        if family.typed or family.samples:
            msg = f"the type of {name} is given twice, or behind a sample"
            raise ValueError(msg)
        family.kind, family.typed = Kind(rest.strip().lower()), True

    def _take_sample(self, line: str) -> None:
        found = _SAMPLE.fullmatch(line)
        if found is None:
            msg = "neither a comment nor a sample"
            raise ValueError(msg)
        name, labels, value, timestamp = found.groups("")
        if timestamp:
            msg = "a time of its own: samples are of the time they are scraped at"
            raise ValueError(msg)
        family, suffix = self._family_of(name)
        sample = Sample(suffix, dict(_labels(labels)), _number(value))
        _check_bound(family, sample)
        identity = (name, frozenset(sample.labels.items()))
        if identity in self._seen:
            msg = "there is such a sample already"
            raise ValueError(msg)
        self._seen.add(identity)
        family.samples.append(sample)

    def _family_of(self, name: str) -> tuple[Family, str]:
        """Return the family that a sample belongs to, and the rest of the sample's name."""
        for suffix in ("", "_bucket", "_sum", "_count"):
            family = self.families.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
            if family and suffix in _SUFFIXES.get(family.kind, _PLAIN):
                return family, suffix
        if name in self.families:
            msg = f"a {self.families[name].kind} has no sample of this name"
            raise ValueError(msg)
        return self.families.setdefault(name, Family(name)), ""


def _check_bound(family: Family, sample: Sample) -> None:
    label = _SUFFIXES.get(family.kind, _PLAIN)[sample.suffix]
    if label:
        _number(sample.labels.get(label, ""))


def _labels(text: str) -> Iterator[tuple[str, str]]:
    """Yield the labels that are not empty: an empty one is the same as none."""
    at = 0
    names = set()
    while at < len(text.rstrip(" \t")):
        found = _LABEL.match(text, at)
        if found is None or found[1] in names:
            msg = "labels that cannot be read, or one of them twice"
            raise ValueError(msg)
        names.add(found[1])
        if found[2]:
            yield found[1], _unescaped(found[2])
        at = found.end()


def _number(text: str) -> float:
    found = _NUMBER.fullmatch(text)
    value = float(text) if found else math.nan
    if found is None or (math.isinf(value) and "i" not in text.lower()):
        msg = f"{_shown(text)} is no number, or too large for one"
        raise ValueError(msg)
    return value


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), text)


def _shown(text: str) -> str:
    return f"{text[:_SHOWN]!r}{'...' if len(text) > _SHOWN else ''}"
