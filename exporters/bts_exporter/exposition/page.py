"""Samples become bytes: all of a metric together, whichever collectors have them.

A page is laid out again only when series come or go; otherwise only values are filled in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import NamedTuple

from isal import isal_zlib

from bts_exporter.exposition.formats import Format, family_of, header, sample_names
from bts_exporter.exposition.templates import MetricSpan, SeriesTemplate, TemplateCache
from bts_exporter.metric import Key, Kind, Metric

#: As many samples become bytes before there are more, since they take several times as much as text.
_MANY = 1000
#: How many conflicts of one source are listed; the others are only counted.
_MOST_CONFLICTS = 10
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_BOUNDS = {Kind.HISTOGRAM: "le", Kind.SUMMARY: "quantile"}


@dataclass(slots=True)
class Source:
    """What one collector has to expose."""

    samples: Mapping[Metric, Mapping[Key, float]]
    templates: TemplateCache = field(default_factory=TemplateCache)
    #: The collector, for messages about conflicts.
    name: str = ""
    #: Metric names that no other source may serve.
    reserved: frozenset[str] = frozenset()
    #: Set by `render`: what could not be served, because another source serves it already.
    conflict: str = ""


class _Span(NamedTuple):
    """Samples that follow each other, in the template of the source with this index and on the page."""

    source: int
    begin: int
    end: int
    #: What stands in place of the first one's name.
    first: str | None = None


class Layout:
    """What stands where on a page of several sources; kept from one page to the next."""

    def __init__(self) -> None:
        """Begin without a page."""
        self.spans: list[_Span] = []
        #: By source: what was left out of it.
        self.conflicts: dict[int, str] = {}
        self._refused: dict[int, list[str]] = {}
        self._names: list[str] = []
        self._templates: tuple[SeriesTemplate, ...] = ()

    def arrange(self, templates: tuple[SeriesTemplate, ...], sources: Sequence[Source]) -> None:
        """Find the place of every sample; nothing is to be done while the templates are the same."""
        if templates == self._templates:
            return
        self._templates = ()  # until all places are found
        self.spans, self._refused = [], {}
        self._names = [source.name or "another collector" for source in sources]
        names = frozenset(chain.from_iterable(template.names for template in templates))
        shared = len(names) < sum(template.named for template in templates)
        reserved = {name: i for i, source in enumerate(sources) for name in source.reserved}
        taken = any(reserved.get(name, i) != i for i, t in enumerate(templates) for name in t.names)
        if shared or taken or any(template.clashes(names) for template in templates):
            self._gather(templates, reserved)
        else:
            sizes = enumerate(template.size for template in templates)
            self.spans = [_Span(index, 0, size) for index, size in sizes if size]
        self.conflicts = {index: _listed(refused) for index, refused in self._refused.items()}
        self._templates = templates

    def _gather(self, templates: Sequence[SeriesTemplate], reserved: Mapping[str, int]) -> None:
        """Bring each metric's samples together under one header."""
        members: dict[str, list[tuple[int, MetricSpan]]] = {}
        for index, template in enumerate(templates):
            for metric_span in template.metric_spans:
                name = metric_span.metric.name
                if reserved.get(name, index) == index:
                    members.setdefault(name, []).append((index, metric_span))
                else:
                    self._refuse(
                        index, name, f"the name is reserved for {self._names[reserved[name]]}"
                    )
        parts = {
            part: found[0]
            for found in members.values()
            for part in sample_names(found[0][1].metric)[1:]
        }
        for name, found in members.items():
            if name in parts:
                owner, (whole, *_) = parts[name]
                why = (
                    f"it is a part of the {whole.kind} {whole.name}, served by {self._names[owner]}"
                )
                for index, _ in found:
                    self._refuse(index, name, why)
                continue
            (index, (metric, begin, end)), *others = found
            family = family_of(metric)
            clash = family != name and family in members
            head = f"\n{header(metric, templates[index].form, clash=clash)}\n{name}"
            if others:
                self._merge(templates, head, found)
            else:
                self._add(_Span(index, begin, end, head if clash else None))

    def _merge(
        self,
        templates: Sequence[SeriesTemplate],
        head: str,
        members: Sequence[tuple[int, MetricSpan]],
    ) -> None:
        """Add what several sources have of one metric, each series once.

        A histogram or summary comes from one source as a whole.
        """
        first_index, (first, *_) = members[0]
        identify = _identity_of(templates, members)
        #: The member that has a series, and the source of that member.
        seen: dict[object, tuple[int, int]] = {}
        for number, (index, (metric, begin, end)) in enumerate(members):
            if metric.kind is not first.kind:
                why = f"served as a {first.kind} by {self._names[first_index]}"
                self._refuse(index, metric.name, why)
                continue
            for place in range(begin, end):
                series = templates[index].series(place)
                name = f"\n{first.name}" if seen else head
                owner = seen.setdefault(identify(series), (number, index))
                if owner[0] != number:
                    what = _distribution(first, series) if first.compound else series
                    self._refuse(index, what, f"served by {self._names[owner[1]]} already")
                    continue
                # Names are alike but for the first one, which may have a header.
                self._add(_Span(index, place, place + 1, name), joins=place > begin)

    def _refuse(self, index: int, what: str, why: str) -> None:
        """Note that `what` of the source with this index is left out."""
        message = f"{what} of {self._names[index]}: {why}"
        refused = self._refused.setdefault(index, [])
        if refused[-1:] != [message]:  # a distribution has many samples
            refused.append(message)

    def _add(self, span: _Span, *, joins: bool = False) -> None:
        """Append samples, to the last span if they follow it and begin as their template has it."""
        last = self.spans[-1] if self.spans else None
        follows = last is not None and (last.source, last.end) == (span.source, span.begin)
        if last is not None and follows and (joins or span.first is None):
            self.spans[-1] = last._replace(end=span.end)
        else:
            self.spans.append(span)


def _identity_of(
    templates: Sequence[SeriesTemplate], members: Sequence[tuple[int, MetricSpan]]
) -> Callable[[str], object]:
    """Return a function that maps the text of a series to its identity: equal for equal series."""
    metric = members[0][1].metric
    if metric.compound:
        return partial(_labels_of, without=_BOUNDS[metric.kind])
    names = {
        tuple(name for name, _ in _LABEL.findall(templates[index].series(span.begin)))
        for index, span in members
    }
    # With the same labels in the same order the texts are equal, which saves time.
    return str if len(names) == 1 else _labels_of


def _labels_of(series: str, without: str = "") -> frozenset[tuple[str, str]]:
    """Return the labels in the text of a series; an empty label is left out."""
    return frozenset(
        (name, value) for name, value in _LABEL.findall(series) if value and name != without
    )


def _distribution(metric: Metric, series: str) -> str:
    """Return name and labels of the histogram or summary that a series is a part of."""
    labels = sorted(_labels_of(series, _BOUNDS[metric.kind]))
    pairs = ",".join(f'{name}="{value}"' for name, value in labels)
    return f"{metric.kind} {metric.name}{{{pairs}}}"


def _listed(messages: Sequence[str]) -> str:
    """Return the first of the messages, and the number of the others."""
    more = len(messages) - _MOST_CONFLICTS
    text = "; ".join(messages[:_MOST_CONFLICTS])
    return f"{text}; and {more} more" if more > 0 else text


def render(sources: Sequence[Source], form: Format) -> bytes:
    """Return the page of `parts_of`."""
    return b"".join(parts_of(sources, form, Layout()))


def parts_of(sources: Sequence[Source], form: Format, layout: Layout) -> Iterator[bytes]:
    """Yield the parts of the page of all samples, each metric's together under one header.

    A metric whose name is reserved or that another source serves with another kind, and a series
    that another source serves already, are left out and named in the source's `conflict`, before the
    first part. `layout` is that of the page before.
    """
    templates = tuple([source.templates.of(source.samples, form) for source in sources])
    layout.arrange(templates, sources)
    for index, conflict in layout.conflicts.items():
        sources[index].conflict = conflict
    values = [list(chain.from_iterable(map(_values, s.samples.values()))) for s in sources]
    texts: list[str] = []
    size = 0
    for index, begin, end, first in layout.spans:
        for start in range(begin, end, _MANY):
            stop = min(start + _MANY, end)
            name = first if start == begin else None
            texts += templates[index].filled(values[index], start, stop, name)
            size += stop - start
            if size >= _MANY:
                yield _encoded(texts)
                texts.clear()
                size = 0
    if texts:
        yield _encoded(texts)
    if form is Format.OPENMETRICS:
        yield b"# EOF\n"


def compress(parts: Iterable[bytes]) -> bytes:
    """Return a page as gzip, level 1: as small as zlib's, for a sixth of the time."""
    packer = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    return b"".join([*map(packer.compress, parts), packer.flush()])


def _values(samples: Mapping[Key, float]) -> Iterable[float]:
    return samples.values()


def _encoded(texts: list[str]) -> bytes:
    # The first line's end is that of the part before.
    return ("".join(texts)[1:] + "\n").encode("utf-8", "replace")
