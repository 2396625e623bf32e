"""The parts of a page that do not change, rendered once: a collector's names and labels, without values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bts_exporter.exposition.formats import Format, family_of, header, sample_names
from bts_exporter.metric import METRIC_NAME, Key, Kind, Metric, is_label_name, label_problem, number

#: A number beyond it may be an integer that floating point cannot hold.
_LARGE = 1e300
#: Texts that a sample consists of: name, tail and value.
_TEXTS = 3


class MetricSpan(NamedTuple):
    """The position of a metric's samples in a template."""

    metric: Metric
    begin: int
    end: int


class _RenderedSeries(NamedTuple):
    """Series of a metric in the order of its samples."""

    keys: list[Key]
    #: What stands between name and value of each; a compound's suffix in front.
    tails: list[str]


class SeriesTemplate:
    """The samples of one collector as texts, without their values."""

    def __init__(self, form: Format, found: Mapping[Metric, _RenderedSeries]) -> None:
        """Render the headers for `form`."""
        self.form = form
        self._metrics = list(found)
        self._keys = [series.keys for series in found.values()]
        #: Of each sample a line's end and its name, with the header in between where it is the metric's first one.
        self._names: list[str] = []
        #: What stands between name and value of each, such as `{path="/"} `.
        self._tails: list[str] = []
        #: The metrics that have samples, by place.
        self.metric_spans: list[MetricSpan] = []
        self.size = 0
        for metric, series in found.items():
            if series.keys:
                _check(metric)
                self._append(metric, series)
        names = [
            name for metric_span in self.metric_spans for name in sample_names(metric_span.metric)
        ]
        self.names = frozenset(names)
        #: How many there are, with those that two metrics have.
        self.named = len(names)

    def fits(self, metrics: list[Metric], keys: list[list[Key]]) -> bool:
        """Return whether samples with these keys are those of this template."""
        return metrics == self._metrics and keys == self._keys

    def filled(
        self, values: Sequence[float], begin: int, end: int, first: str | None = None
    ) -> list[str]:
        """Return the texts of the samples from `begin` to `end`; `values` are those of all.

        `first` is what stands in place of the first one's name.
        """
        texts = [""] * (_TEXTS * (end - begin))
        texts[0::_TEXTS] = self._names[begin:end]
        texts[1::_TEXTS] = self._tails[begin:end]
        texts[2::_TEXTS] = _spelled(values[begin:end])
        if first is not None:
            texts[0] = first
        return texts

    def series(self, index: int) -> str:
        """Return name and labels of a sample."""
        return self._names[index].rpartition("\n")[2] + self._tails[index][:-1]

    def known(self) -> dict[Metric, _RenderedSeries]:
        """Return the rendered part of each metric."""
        keys = dict(zip(self._metrics, self._keys, strict=True))
        return {
            m: _RenderedSeries(keys[m], self._tails[begin:end])
            for m, begin, end in self.metric_spans
        }

    def clashes(self, names: Iterable[str]) -> bool:
        """Return whether one of `names` is that of a counter's family, and so another metric's."""
        if self.form is Format.TEXT:
            return False
        metrics = [metric_span.metric for metric_span in self.metric_spans]
        families = {family for m in metrics if (family := family_of(m)) != m.name}
        return not families.isdisjoint(names)

    def _append(self, metric: Metric, series: _RenderedSeries) -> None:
        name, size = f"\n{metric.name}", len(series.keys)
        self._names.append(f"\n{header(metric, self.form)}{name}")
        self._names += [name] * (size - 1)
        self._tails += series.tails
        self.metric_spans.append(MetricSpan(metric, self.size, self.size + size))
        self.size += size


class TemplateCache:
    """Keeps the template of one collector from one page to the next; one for each format in use.

    Metrics with the same labels share their rendered text, which is most of the memory of many series.
    """

    def __init__(self, constant: Mapping[str, str] | None = None) -> None:
        """Give the labels that every series of the collector gets."""
        self._constant = dict(constant or {})
        self._templates: dict[Format, SeriesTemplate] = {}

    def of(self, samples: Mapping[Metric, Mapping[Key, float]], form: Format) -> SeriesTemplate:
        """Return the template of `samples`; series that are gone are forgotten."""
        template = self._templates.get(form)
        metrics, keys = list(samples), list(map(list, samples.values()))
        if template is None or not template.fits(metrics, keys):
            known = next(iter(self._templates.values())).known() if self._templates else {}
            template = SeriesTemplate(
                form, self._found(dict(zip(metrics, keys, strict=True)), known)
            )
            others = {f: o for f, o in self._templates.items() if f is not form}
            self._templates = {f: o for f, o in others.items() if o.fits(metrics, keys)}
            self._templates[form] = template
        return template

    def _found(
        self, keys: Mapping[Metric, list[Key]], known: Mapping[Metric, _RenderedSeries]
    ) -> dict[Metric, _RenderedSeries]:
        """Return the series of each metric, rendered as far as they were not `known`."""
        found: dict[Metric, _RenderedSeries] = {}
        #: What there is now of the last metric with these labels.
        alike: dict[tuple[str, ...], _RenderedSeries] = {}
        for metric, own in keys.items():
            like = alike.get(metric.labels) if not metric.compound else None
            series = found[metric] = self._series(metric, own, like, known.get(metric))
            if not metric.compound:
                alike[metric.labels] = series
        return found

    def _series(
        self, metric: Metric, keys: list[Key], *others: _RenderedSeries | None
    ) -> _RenderedSeries:
        """Return the series of `keys`, rendered as far as none of the `others` has them."""
        known: dict[Key, str] = {}
        for series in filter(None, others):
            if series.keys == keys:
                return series
            known.update(zip(*series, strict=True))
        return _RenderedSeries(keys, [known.get(key) or self._tail(metric, key) for key in keys])

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


def _check(metric: object) -> None:
    """Refuse a metric that would make the whole page unreadable; ValueError."""
    sound = (
        type(metric) is Metric
        and type(metric.name) is str
        and METRIC_NAME.fullmatch(metric.name)
        and type(metric.labels) is tuple
        and all(map(is_label_name, metric.labels))
        and type(metric.kind) is Kind
    )
    if not sound:
        msg = f"{metric!r} is not a metric, or was changed after its declaration"
        raise ValueError(msg)


def _spelled(values: Sequence[float]) -> list[str]:
    try:
        # From 0.0, so that integers beyond floating point cannot cancel each other out.
        finite = math.isfinite(sum(values, 0.0))
    except OverflowError:
        finite = False
    texts = map(repr, values) if finite else map(_text, values)
    # Whole numbers without Python's .0, for all values at once.
    return ("\n".join(texts) + "\n").replace(".0\n", "\n")[:-1].split("\n")


def _text(value: float) -> str:
    if -_LARGE < value < _LARGE:
        return repr(value)
    try:
        return number(value) if math.isfinite(value) else number(float(value))
    except OverflowError:  # an integer beyond floating point
        return "+Inf" if value > 0 else "-Inf"


def with_text_labels(
    samples: Mapping[Metric, Mapping[Key, float]],
) -> tuple[dict[Metric, dict[Key, float]], str]:
    """Return the samples whose label values are texts, and the errors of the others."""
    problems: dict[str, None] = {}
    sound: dict[Metric, dict[Key, float]] = {}
    for metric, series in samples.items():
        kept = sound[metric] = {}
        for key, value in series.items():
            if problem := label_problem(metric, key):
                problems[problem] = None
            else:
                kept[key] = value
    return sound, "; ".join(problems)


def _label_value(value: str) -> str:
    # The conversion of a plug-in's own class may hang, and every scrape waits for the page: this one
    # raises TypeError for a value that is not a str. Lone surrogates are how Python holds the invalid UTF-8 of
    # file names; no page may hold them. Spelled out they stay distinct, as two names with one
    # replacement character would not.
    text = str.encode(value, "utf-8", "backslashreplace").decode()
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
