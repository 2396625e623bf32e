"""Readers of the Prometheus text formats, for collectors that serve metrics of another program.

prometheus_client's parser is not strict enough for files (it accepts truncated ones), refuses the pages of
old RabbitMQ versions, and renames counters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bts_exporter.metric import Kind

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL_VALUE = r'"((?:[^"\\]|\\[\\"n])*)"'
_SAMPLE = re.compile(
    rf'({_NAME})(?:[ \t]*\{{((?:[^"}}]|"(?:[^"\\]|\\.)*")*)\}}[ \t]*|[ \t]+)'
    r"([^ \t]+)(?:[ \t]+(-?[0-9]+))?"
)
#: As above, with what other programs may add: a time in any format, and an exemplar.
_TOLERANT_SAMPLE = re.compile(
    rf'({_NAME})(?:[ \t]*\{{((?:[^"}}]++|"(?:[^"\\]++|\\.)*+")*+)\}}[ \t]*|[ \t]+)'
    r"([^ \t]+)(?:[ \t]+-?[0-9.]+(?:e[+-]?[0-9]+)?)?(?:[ \t]+#[ \t].*)?"
)
#: What invalid UTF-8 became.
_SURROGATE = re.compile("[\udc80-\udcff]")
_LABEL = re.compile(rf"[ \t]*((?!__)[a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*{_LABEL_VALUE}[ \t]*(,|$)")
_COMMENT = re.compile(r"#[ \t]*(HELP|TYPE)[ \t]+([^ \t]+)(?:[ \t]+(.*))?")
_NUMBER = re.compile(
    r"[+-]?((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE
)

#: A sample, read leniently. The labels end at the last brace: a value with unescaped quotes may hold one, too.
_LENIENT_SAMPLE = re.compile(r"^([\w:]+)(?:\{(.*)\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?$", re.MULTILINE)
#: A label, read leniently: its value ends where the next label begins, or at the end.
#: Possessive, and only at the beginning of a word: a hostile line must not take time quadratic in its length.
_LENIENT_LABEL = re.compile(r'\b(\w++)="(.*?)"(?:,(?=\w++=")|$)')
_WELL_ESCAPED = re.compile(r'(?:[^"\\]|\\[\\"n])*')

_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}

#: Suffixes of the names of a metric's samples, with the label that samples with this suffix need.
_SUFFIXES = {
    Kind.HISTOGRAM: {"_bucket": "le", "_sum": "", "_count": ""},
    Kind.SUMMARY: {"": "quantile", "_sum": "", "_count": ""},
}
_PLAIN = {"": ""}
_KINDS = {str(kind): kind for kind in Kind}

#: Types of OpenMetrics whose samples have other names than the family, with our kinds and the suffixes.
_OPENMETRICS_KINDS = {
    "counter": (Kind.COUNTER, ("_total",)),
    "gaugehistogram": (Kind.GAUGE, ("_bucket", "_gcount", "_gsum")),
    "info": (Kind.GAUGE, ("_info",)),
    "stateset": (Kind.GAUGE, ("",)),
}
#: Kinds whose families may have a sample with the time of creation of each series.
_WITH_CREATION_TIME = {Kind.COUNTER, Kind.HISTOGRAM, Kind.SUMMARY}
#: Values that are a Unix time, and hardly anything else: since September 2001.
_FIRST_CREATION_TIME = 1e9

#: Whole numbers of fewer digits than this are never too large.
_MAX_DIGITS = 300
#: Characters of a line that an error shows.
_SHOWN = 60
#: Characters that a line may have in a page that is read tolerantly.
MAX_LINE = 100_000
#: How many errors of a page are kept.
MAX_ERRORS = 5
#: What a page may have that is read tolerantly; the rest of it is not read. Each takes memory and time.
MAX_FAMILIES = 10_000
MAX_SAMPLES = 200_000
MAX_LOST_LINES = 10_000
MAX_LINES = 500_000


class Sample(NamedTuple):
    """One sample: the part of its name after the metric's (`_bucket`, or empty), labels, value.

    A strict reader omits labels with an empty value: they mean the same as no label.
    """

    suffix: str
    labels: dict[str, str]
    value: float


class Family(NamedTuple):
    """A metric and its samples; `help` is empty if the page has none.

    The samples are a list if the page was read strictly. Otherwise each iteration parses them, so that
    families that are not needed cost nothing, and a long page does not take memory for all samples at once.
    """

    name: str
    kind: Kind
    help: str
    samples: Iterable[Sample]


def parse(text: str, *, strict: bool = True) -> list[Family]:
    """Return the families of a page, in its order.

    Strict, for files that people and scripts write: ValueError with the number of the first line that
    breaks a rule. Timestamps, repeated samples and a last line without its end are such, too. Families
    without a sample are left out.

    Lenient, for pages of exporters: skips lines that cannot be read, samples before the first HELP or TYPE
    line, and families of an unknown type; ignores timestamps; accepts unescaped quotes in label values.
    """
    return _read_strictly(text) if strict else list(_read_leniently(text))


class Page(NamedTuple):
    """The families of a page, and what was left out of it."""

    families: list[Family]
    #: The first errors, with the number of the line.
    errors: list[str]
    #: How many errors there are.
    error_count: int


def read(text: str, *, openmetrics: bool = False) -> Page:
    """Return the families of another program's page, in text format 0.0.4 or as OpenMetrics 1.0.

    A line that breaks a rule is left out, and becomes an error. Timestamps, exemplars, units and
    creation times (`*_created`) are dropped. Families of OpenMetrics have the names and types that they
    have in the text format. Invalid UTF-8 has to be escaped as surrogates. A page that is too large is
    read up to the limit (MAX_SAMPLES and others), and the limit is an error.
    """
    page = _TolerantPage(openmetrics=openmetrics)
    errors: list[str] = []
    count = 0
    problems: list[str] = []
    for number, line in enumerate(_lines(text), 1):
        if limit := page.limit_reached(number, count):
            problems.append(f"the page is not read from line {number} on: {limit}")
            break
        try:
            page.add(line.strip(" \t\r"))
        except ValueError as error:
            count += 1
            if count <= MAX_ERRORS:
                errors.append(f"line {number}: {error}: {_shown(line)}")
    problems += page.finish(is_complete=not problems)
    return Page(page.families(), [*problems, *errors][:MAX_ERRORS], count + len(problems))


def _lines(text: str) -> Iterator[str]:
    """Yield the lines one by one: a list of them takes several times the memory of the text."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


@dataclass(slots=True)
class _Entry:
    """A family while the page is read strictly."""

    kind: Kind = Kind.UNTYPED
    help: str | None = None
    typed: bool = False
    samples: list[Sample] = field(default_factory=list)


def _read_strictly(text: str) -> list[Family]:
    *lines, rest = text.split("\n")
    if rest:
        msg = f"the last line has no end, the file may be truncated: {_shown(rest)}"
        raise ValueError(msg)
    page = _Page()
    for number, line in enumerate(lines, 1):
        try:
            page.add(line.strip(" \t"))
        except ValueError as error:
            msg = f"line {number}: {error}: {_shown(line)}"
            raise ValueError(msg) from None
    return page.families()


class _Page:
    """The families of the lines that were added so far."""

    def __init__(self) -> None:
        self.entries: dict[str, _Entry] = {}
        self._seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()

    def families(self) -> list[Family]:
        """Return the families that have samples."""
        return [
            Family(name, entry.kind, entry.help or "", entry.samples)
            for name, entry in self.entries.items()
            if entry.samples
        ]

    def add(self, line: str) -> None:
        if line.startswith("#"):
            self._add_comment(line)
        elif line:
            self._add_sample(line)

    def _add_comment(self, line: str) -> None:
        found = _COMMENT.fullmatch(line)
        if found is None:
            return
        keyword, name, rest = found.groups("")
        if not re.fullmatch(_NAME, name):
            msg = f"{name} is not a valid metric name"
            raise ValueError(msg)
        self._describe(keyword, name, rest)

    def _describe(self, keyword: str, name: str, rest: str) -> None:
        entry = self.entries.setdefault(name, _Entry())
        if keyword == "HELP":
            if entry.help is not None:
                msg = f"second HELP line for {name}"
                raise ValueError(msg)
            entry.help = _unescape(rest)
            return
        if entry.typed or entry.samples:
            msg = f"second TYPE line for {name}, or a TYPE line after its samples"
            raise ValueError(msg)
        entry.kind, entry.typed = _kind(rest.strip().lower()), True

    def _add_sample(self, line: str) -> None:
        name, labels, value = self._split(line)
        entry, suffix, label = self._entry_of(name)
        sample = Sample(suffix, dict(_labels(labels)), _number(value))
        if label:
            _number(sample.labels.get(label, ""))
        identity = (name, frozenset(sample.labels.items()))
        if identity in self._seen:
            msg = "duplicate sample"
            raise ValueError(msg)
        self._seen.add(identity)
        entry.samples.append(sample)

    def _split(self, line: str) -> tuple[str, str, str]:
        """Return name, labels and value of a sample."""
        found = _SAMPLE.fullmatch(line)
        if found is None:
            msg = "neither a comment nor a sample"
            raise ValueError(msg)
        name, labels, value, timestamp = found.groups("")
        if timestamp:
            msg = "timestamps are not supported"
            raise ValueError(msg)
        return name, labels, value

    def _entry_of(self, name: str) -> tuple[_Entry, str, str]:
        """Return the family of a sample, the suffix of the sample's name, and the label that it needs."""
        for suffix in ("", "_bucket", "_sum", "_count"):
            entry = self.entries.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
            if entry is not None and suffix in _SUFFIXES.get(entry.kind, _PLAIN):
                return entry, suffix, _SUFFIXES.get(entry.kind, _PLAIN)[suffix]
        if name in self.entries:
            msg = f"a {self.entries[name].kind} has no sample with this name"
            raise ValueError(msg)
        return self.entries.setdefault(name, _Entry()), "", ""


class _TolerantPage(_Page):
    """The same for a page of another program; `add` raises ValueError only for a line that is left out."""

    def __init__(self, *, openmetrics: bool) -> None:
        super().__init__()
        self._openmetrics = openmetrics
        self._ended = False
        self._helps: dict[str, str] = {}
        #: The family that a name was declared for, which has the help.
        self._origins: dict[str, str] = {}

    def add(self, line: str) -> None:
        if len(line) > MAX_LINE:
            msg = f"the line has {len(line)} characters (at most {MAX_LINE})"
            raise ValueError(msg)
        if not line.isascii() and _SURROGATE.search(line):
            msg = "not valid UTF-8"
            raise ValueError(msg)
        if self._ended and line:
            msg = "a line after # EOF"
            raise ValueError(msg)
        self._ended = self._ended or (self._openmetrics and line == "# EOF")
        super().add(line)

    def limit_reached(self, line: int, lost: int) -> str:
        """Return why the page is too large to go on with the line of this number; empty if it is not."""
        if len(self._seen) > MAX_SAMPLES:
            return f"more than {MAX_SAMPLES} samples"
        if len(self.entries) > MAX_FAMILIES or len(self._helps) > MAX_FAMILIES:
            return f"more than {MAX_FAMILIES} metrics"
        if lost > MAX_LOST_LINES:
            return f"more than {MAX_LOST_LINES} lines that cannot be read"
        return f"more than {MAX_LINES} lines" if line > MAX_LINES else ""

    def finish(self, *, is_complete: bool) -> list[str]:
        """Give families their helps and drop creation times; return what is wrong with the page as a whole."""
        problems = []
        if self._openmetrics and is_complete and not self._ended:
            problems.append("the page has no # EOF at its end, so the rest of it may be missing")
        for name, entry in list(self.entries.items()):
            entry.help = self._helps.get(self._origins.get(name, name))
            created = name.removesuffix("_total") + "_created"
            if entry.kind in _WITH_CREATION_TIME and created in self.entries:
                samples = self.entries.pop(created).samples
                if not all(sample.value >= _FIRST_CREATION_TIME for sample in samples):
                    problems.append(f"{created} is left out: it is the creation time of {name}")
        return problems

    def _describe(self, keyword: str, name: str, rest: str) -> None:
        if keyword == "HELP":
            self._helps.setdefault(name, _unescape(rest))
            return
        kind, suffixes = self._kind(rest.strip().lower())
        for full in (name + suffix for suffix in suffixes):
            entry = self.entries.setdefault(full, _Entry())
            if entry.kind is not kind and (entry.typed or entry.samples):
                msg = f"second TYPE line for {name}, or a TYPE line after its samples"
                raise ValueError(msg)
            entry.kind, entry.typed = kind, True
            self._origins[full] = name

    def _kind(self, text: str) -> tuple[Kind, tuple[str, ...]]:
        """Return kind and suffixes of the names of a type's families."""
        if self._openmetrics and text in _OPENMETRICS_KINDS:
            return _OPENMETRICS_KINDS[text]
        return (Kind.UNTYPED if text == "unknown" else _kind(text)), ("",)

    def _split(self, line: str) -> tuple[str, str, str]:
        found = _TOLERANT_SAMPLE.fullmatch(line)
        if found is None:
            msg = "neither a comment nor a sample"
            raise ValueError(msg)
        name, labels, value = found.groups("")
        return name, labels, value


def _kind(text: str) -> Kind:
    if text not in _KINDS:
        msg = f"{_shown(text)} is not a valid type (expected {', '.join(_KINDS)})"
        raise ValueError(msg)
    return _KINDS[text]


def _labels(text: str) -> Iterator[tuple[str, str]]:
    """Yield the labels that are not empty."""
    start, end = 0, len(text.rstrip(" \t"))
    names = set()
    while start < end:
        found = _LABEL.match(text, start)
        if found is None or found[1] in names:
            msg = "invalid or repeated label"
            raise ValueError(msg)
        names.add(found[1])
        if found[2]:
            yield found[1], _unescape(found[2]) if "\\" in found[2] else found[2]
        start = found.end()


def _number(text: str) -> float:
    if text.isdecimal() and text.isascii() and len(text) < _MAX_DIGITS:
        return float(text)
    found = _NUMBER.fullmatch(text)
    value = float(text) if found else math.nan
    if found is None or (math.isinf(value) and "i" not in text.lower()):
        msg = f"{_shown(text)} is not a number, or too large"
        raise ValueError(msg)
    return value


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), text)


def _shown(text: str) -> str:
    return f"{text[:_SHOWN]!r}{'...' if len(text) > _SHOWN else ''}"


def _read_leniently(text: str) -> Iterator[Family]:
    kinds: dict[str, str] = {}
    helps: dict[str, str] = {}
    lines_of: dict[str, list[str]] = {}
    lines: list[str] = []  # those before the first HELP or TYPE line belong to no family
    for block in f"\n{text}".split("\n# "):
        head, _, rest = block.partition("\n")
        keyword, _, head = head.partition(" ")
        name, _, value = head.partition(" ")
        if keyword in {"HELP", "TYPE"}:
            (helps if keyword == "HELP" else kinds)[name] = value
            lines = lines_of.setdefault(name, [])
        if rest:
            lines.append(rest)
    for name, lines in lines_of.items():
        kind = _KINDS.get(kinds.get(name, Kind.UNTYPED))
        if kind is not None:
            yield Family(name, kind, _unescape(helps.get(name, "")), _Samples(name, kind, lines))


class _Samples:
    """The samples of a family, parsed at each iteration."""

    __slots__ = ("_kind", "_lines", "_name")

    def __init__(self, name: str, kind: Kind, lines: Sequence[str]) -> None:
        self._name = name
        self._kind = kind
        self._lines = lines

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples."""
        # Bound once: a page may have hundreds of thousands of samples.
        find_labels = _LENIENT_LABEL.findall
        suffixes = {self._name + suffix: suffix for suffix in _SUFFIXES.get(self._kind, _PLAIN)}
        for lines in self._lines:
            for name, labels, number in _LENIENT_SAMPLE.findall(lines):
                suffix = suffixes.get(name)
                if suffix is None:
                    continue  # of a family without HELP and TYPE lines
                try:
                    value = float(number)
                except ValueError:
                    continue
                # Without a quote at the end, each label would be searched for its end in vain.
                text = labels.rstrip(", \t")
                pairs = dict(find_labels(text)) if text.endswith('"') else {}
                if "\\" in labels:
                    _unescape_values(pairs)
                yield Sample(suffix, pairs, value)


def _unescape_values(labels: dict[str, str]) -> None:
    for name, value in labels.items():
        # In a value with unescaped quotes a backslash is one, too.
        if "\\" in value and _WELL_ESCAPED.fullmatch(value):
            labels[name] = _unescape(value)
