"""Samples become bytes: text 0.0.4 for everybody, OpenMetrics 1.0 for who asks.

What makes it fast: the `{labels} ` in front of a value is rendered once in a series' life.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from bts_exporter.plugin import Key, Kind, Metric, number

#: A number beyond it may be an integer that floating point cannot hold.
_LARGE = 1e300
#: As many become bytes before there are more, since they take several times as much as text.
_MANY_LINES = 1000


class Format(Enum):
    """An exposition format, by its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class _Series(NamedTuple):
    """Series of a metric in the order of its samples."""

    keys: list[Key]
    #: What stands between name and value, such as `{path="/"} `; a compound's suffix in front.
    tails: list[str]


class Prefixes:
    """What is rendered of every series that one collector exposes, from one page to the next.

    Metrics with the same labels share it: it is most of the memory that many series take.
    """

    def __init__(self, constant: Mapping[str, str] | None = None) -> None:
        """Give the labels that every series of the collector gets."""
        self._constant = dict(constant or {})
        self._by_metric: dict[Metric, _Series] = {}
        #: What this page had last of the metrics with these labels.
        self._by_labels: dict[tuple[str, ...], _Series] = {}

    def lines(self, metric: Metric, samples: Mapping[Key, float]) -> list[str]:
        """Return a line a sample; series that are gone are forgotten."""
        keys = list(samples)
        series = self._by_metric.get(metric)
        if series is None or series.keys != keys:
            series = self._by_metric[metric] = self._series(metric, keys, series)
        if not metric.compound:
            self._by_labels[metric.labels] = series
        return _lines(metric.name, series.tails, samples.values())

    def keep_only(self, metrics: Mapping[Metric, object]) -> None:
        """Begin a page: forget the series of every metric that is not among `metrics`."""
        self._by_labels.clear()
        if self._by_metric.keys() != metrics.keys():
            for gone in self._by_metric.keys() - metrics.keys():
                del self._by_metric[gone]

    def _series(self, metric: Metric, keys: list[Key], before: _Series | None) -> _Series:
        """Return the series of `keys`, rendered as far as neither the last page nor this one did."""
        alike = self._by_labels.get(metric.labels)
        if alike is not None and alike.keys == keys:
            return alike
        known: dict[Key, str] = {}
        for series in (before, alike):
            if series is not None:
                known.update(zip(*series, strict=True))
        return _Series(keys, [known.get(key) or self._tail(metric, key) for key in keys])

    def _tail(self, metric: Metric, key: Key) -> str:
        suffix, values, bound = "", key, ""
        if metric.compound:
            suffix, values = key[0], key[1 : metric.width + 1]
            bound = key[-1] if len(key) > metric.width + 1 else ""
        pairs = list(zip(metric.labels, values, strict=True))
        # Of two labels with one name Prometheus would refuse the whole page.
        pairs += [pair for pair in self._constant.items() if pair[0] not in metric.labels]
        if bound:
            pairs.append(("le" if metric.kind is Kind.HISTOGRAM else "quantile", bound))
        if not pairs:
            return f"{suffix} "
        labels = ",".join([f'{name}="{_label_value(value)}"' for name, value in pairs])
        return f"{suffix}{{{labels}}} "


@dataclass(slots=True)
class Source:
    """What one collector has to expose."""

    samples: Mapping[Metric, Mapping[Key, float]]
    prefixes: Prefixes = field(default_factory=Prefixes)
    #: Set by `render`: what could not be served, because another source serves it already.
    conflict: str = ""


def render(sources: Iterable[Source], form: Format) -> bytes:
    """Return the page of all samples, each metric's together under one header.

    A metric that another source serves with another kind, and a series that another source serves
    already, are left out and named in the source's `conflict`.
    """
    families: dict[str, list[tuple[Metric, Source]]] = {}
    for source in sources:
        there = {metric: found for metric, found in source.samples.items() if found}
        source.prefixes.keep_only(there)
        for metric in there:
            families.setdefault(metric.name, []).append((metric, source))
    parts: list[bytes] = []
    lines: list[str] = []
    for members in families.values():
        first, source = members[0]
        if form is Format.TEXT:
            lines.append(_text_header(first))
        else:
            lines.append(_om_header(first, clash=first.name.removesuffix("_total") in families))
        if len(members) == 1:
            lines += source.prefixes.lines(first, source.samples[first])
        else:
            lines += _family(members)
        if len(lines) > _MANY_LINES:
            parts.append(_encoded(lines))
            lines.clear()
    if form is Format.OPENMETRICS:
        lines.append("# EOF")
    return b"".join((*parts, _encoded(lines)))


def compress(page: bytes) -> bytes:
    """Return `page` as gzip, level 1: a tenth of level 9's time for a seventh more bytes."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(page) + packer.flush()


def negotiate(accept: str) -> Format:
    """Return the format that an Accept header prefers; text where it names none that we have."""
    best = max(map(_offer, accept.split(",")), key=itemgetter(0))
    return best[1] if best[0] > 0 else Format.TEXT


def _offer(media: str) -> tuple[float, Format]:
    kind, *pairs = (part.strip() for part in media.lower().split(";"))
    parameters = dict(pair.partition("=")[::2] for pair in pairs)
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        quality = 0.0
    if kind == "application/openmetrics-text":
        known = parameters.get("version", "1.0.0") in {"1.0.0", "0.0.1"}
        return (quality if known else 0.0), Format.OPENMETRICS
    return (quality if kind in {"text/plain", "text/*", "*/*"} else 0.0), Format.TEXT


def _family(members: list[tuple[Metric, Source]]) -> list[str]:
    """Return the lines of a metric that several sources serve, each series once."""
    first = members[0][0]
    lines: list[str] = []
    seen: set[str] = set()
    for metric, source in members:
        if metric.kind is not first.kind:
            source.conflict = f"{metric.name} is served as a {first.kind} by another collector"
            continue
        for line in source.prefixes.lines(metric, source.samples[metric]):
            series = line.rpartition(" ")[0]
            if series in seen:
                source.conflict = f"{series} is served by another collector too"
            else:
                seen.add(series)
                lines.append(line)
    return lines


def _lines(name: str, tails: list[str], values: Collection[float]) -> list[str]:
    if len(tails) == 1:
        [value] = values
        usual = -_LARGE < value < _LARGE
        return [f"{name}{tails[0]}{value!r}" if usual else name + tails[0] + _special(value)]
    try:
        # From 0.0, so that integers beyond floating point cannot cancel each other out.
        finite = math.isfinite(sum(values, 0.0))
    except OverflowError:
        finite = False
    if finite:
        return [f"{name}{tail}{value!r}" for tail, value in zip(tails, values, strict=True)]
    return [name + tail + _special(value) for tail, value in zip(tails, values, strict=True)]


def _encoded(lines: list[str]) -> bytes:
    # Whole numbers without Python's .0; headers end otherwise.
    text = "\n".join([*lines, ""]).replace(".0\n", "\n")
    return text.encode("utf-8", "replace")


def _special(value: float) -> str:
    try:
        return number(value) if math.isfinite(value) else number(float(value))
    except OverflowError:  # an integer beyond floating point
        return "+Inf" if value > 0 else "-Inf"


@lru_cache(maxsize=4096)
def _text_header(metric: Metric) -> str:
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    return _header(metric.name, text, metric.kind)


@lru_cache(maxsize=4096)
def _om_header(metric: Metric, *, clash: bool) -> str:
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    name, kind = metric.name, str(metric.kind)
    if metric.kind is Kind.COUNTER:
        # A counter's family is named without _total. One that does not end so, or whose family's
        # name is another metric's, is of unknown type: no name may change with the format.
        name, kind = (name, "unknown") if clash else (name.removesuffix("_total"), kind)
    elif metric.kind is Kind.UNTYPED:
        kind = "unknown"
    return _header(name, text, kind)


def _header(name: str, text: str, kind: str) -> str:
    # A space keeps the end of a help from being taken for a whole number's.
    end = " " if text.endswith(".0") else ""
    return f"# HELP {name} {text}{end}\n# TYPE {name} {kind}"


def _label_value(value: object) -> str:
    # Lone surrogates are how Python holds the invalid UTF-8 of file names; no page may hold them.
    # Spelled out they stay distinct, as two names with one replacement character would not.
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
