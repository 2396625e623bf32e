"""Samples become bytes: all of a metric together, whichever collectors have them.

A page is laid out again only when series come or go; otherwise only values are filled in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from isal import isal_zlib

from bts_exporter.exposition.formats import Format, family_of, header, sample_names
from bts_exporter.exposition.templates import MetricSpan, SeriesTemplate, TemplateCache
from bts_exporter.metric import Key, Metric

#: As many samples become bytes before there are more, since they take several times as much as text.
_MANY = 1000


@dataclass(slots=True)
class Source:
    """What one collector has to expose."""

    samples: Mapping[Metric, Mapping[Key, float]]
    templates: TemplateCache = field(default_factory=TemplateCache)
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
        self._templates: tuple[SeriesTemplate, ...] = ()

    def arrange(self, templates: tuple[SeriesTemplate, ...]) -> None:
        """Find the place of every sample; nothing is to be done while the templates are the same."""
        if templates == self._templates:
            return
        self._templates = ()  # until all places are found
        self.spans, self.conflicts = [], {}
        names = frozenset(chain.from_iterable(template.names for template in templates))
        shared = len(names) < sum(template.named for template in templates)
        if shared or any(template.clashes(names) for template in templates):
            self._gather(templates)
        else:
            sizes = enumerate(template.size for template in templates)
            self.spans = [_Span(index, 0, size) for index, size in sizes if size]
        self._templates = templates

    def _gather(self, templates: Sequence[SeriesTemplate]) -> None:
        """Bring each metric's samples together under one header."""
        members: dict[str, list[tuple[int, MetricSpan]]] = {}
        for index, template in enumerate(templates):
            for metric_span in template.metric_spans:
                members.setdefault(metric_span.metric.name, []).append((index, metric_span))
        parts = {
            part: found[0][1].metric
            for found in members.values()
            for part in sample_names(found[0][1].metric)[1:]
        }
        for name, found in members.items():
            if name in parts:
                message = f"{name} is a part of the {parts[name].kind} {parts[name].name}, which is served"
                self.conflicts.update((index, message) for index, _ in found)
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
        """Add what several sources have of one metric, each series once."""
        first = members[0][1].metric
        seen: set[str] = set()
        for index, (metric, begin, end) in members:
            if metric.kind is not first.kind:
                message = f"{metric.name} is served as a {first.kind} by another collector"
                self.conflicts[index] = message
                continue
            for place in range(begin, end):
                series = templates[index].series(place)
                if series in seen:
                    self.conflicts[index] = f"{series} is served by another collector too"
                    continue
                name = f"\n{first.name}" if seen else head
                seen.add(series)
                # Names are alike but for the first one, which may have a header.
                self._add(_Span(index, place, place + 1, name), joins=place > begin)

    def _add(self, span: _Span, *, joins: bool = False) -> None:
        """Append samples, to the last span if they follow it and begin as their template has it."""
        last = self.spans[-1] if self.spans else None
        follows = last is not None and (last.source, last.end) == (span.source, span.begin)
        if last is not None and follows and (joins or span.first is None):
            self.spans[-1] = last._replace(end=span.end)
        else:
            self.spans.append(span)


def render(sources: Sequence[Source], form: Format) -> bytes:
    """Return the page of `parts_of`."""
    return b"".join(parts_of(sources, form, Layout()))


def parts_of(sources: Sequence[Source], form: Format, layout: Layout) -> Iterator[bytes]:
    """Yield the parts of the page of all samples, each metric's together under one header.

    A metric that another source serves with another kind, and a series that another source serves
    already, are left out and named in the source's `conflict`, before the first part. `layout` is
    that of the page before.
    """
    templates = tuple([source.templates.of(source.samples, form) for source in sources])
    layout.arrange(templates)
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
