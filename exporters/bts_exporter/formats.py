"""The exposition formats: text 0.0.4 for everybody, OpenMetrics 1.0 for who asks."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from operator import itemgetter

from bts_exporter.plugin import Kind, Metric

#: What the samples of a distribution are called beside it.
_PARTS = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count"), Kind.SUMMARY: ("_sum", "_count")}


class Format(Enum):
    """An exposition format, by its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@lru_cache(maxsize=64)  # a scraper says the same each time
def negotiate(accept: str) -> Format:
    """Return the format that an Accept header prefers; text where it names none that we have."""
    best = max(map(_offer, accept.split(",")), key=itemgetter(0))
    return best[1] if best[0] > 0 else Format.TEXT


def header(metric: Metric, form: Format, *, clash: bool = False) -> str:
    """Return the lines in front of a metric's samples, without the last one's end.

    `clash` says that another metric has the name that OpenMetrics would give the counter's family.
    """
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    name, kind = metric.name, str(metric.kind)
    if form is Format.OPENMETRICS:
        text = text.replace('"', r"\"")
        if metric.kind is Kind.COUNTER:
            # A counter's family is named without _total. One that does not end so, or whose family's
            # name is another metric's, is of unknown type: no name may change with the format.
            family = family_of(metric)
            name, kind = (name, "unknown") if clash or family == name else (family, kind)
        elif metric.kind is Kind.UNTYPED:
            kind = "unknown"
    return f"# HELP {name} {text}\n# TYPE {name} {kind}"


def family_of(metric: Metric) -> str:
    """Return the name of the family that a metric is in OpenMetrics."""
    counter = metric.kind is Kind.COUNTER
    return (metric.name.removesuffix("_total") if counter else "") or metric.name


def sample_names(metric: Metric) -> list[str]:
    """Return the names that samples of a metric may have, its own first."""
    return [metric.name, *(metric.name + part for part in _PARTS.get(metric.kind, ()))]


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
