"""The exposition formats: text 0.0.4 by default, OpenMetrics 1.0 on request."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from bts_exporter.metric import Kind, Metric
from bts_exporter.web.accept import Accepted, accepted

#: The suffixes of a distribution's sample names.
_PARTS = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count"), Kind.SUMMARY: ("_sum", "_count")}


class Format(Enum):
    """An exposition format, by its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


_MEDIA_TYPES = {form: form.value.partition(";")[0] for form in Format}
#: The versions that a page is valid in, the one for clients that name none first: those of the text
#: formats differ in names that we do not have.
_VERSIONS = {Format.TEXT: ("0.0.4", "1.0.0"), Format.OPENMETRICS: ("1.0.0", "0.0.1")}
#: Escapings that leave our names as they are, all of letters, digits and underscores.
_UNCHANGED = frozenset({"allow-utf-8", "underscores", "values"})


class _Offer(NamedTuple):
    """A format in the version that a client accepts, with the escaping of names that it asks for."""

    quality: float
    form: Format
    version: str
    escaping: str = ""


def negotiate(accept: str) -> Format:
    """Return the format that an Accept header prefers; text where it names none that we have."""
    return _best(accept).form


def content_type(accept: str) -> str:
    """Return the content type of the format that an Accept header prefers."""
    best = _best(accept)
    escaping = f"; escaping={best.escaping}" if best.escaping and best.version == "1.0.0" else ""
    return f"{_MEDIA_TYPES[best.form]}; version={best.version}; charset=utf-8{escaping}"


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


@lru_cache(maxsize=64)  # a scraper says the same each time
def _best(accept: str) -> _Offer:
    offers = [offer for element in accepted(accept) for offer in _offers(element)]
    refused = {offer.form for offer in offers if not offer.quality}
    acceptable = [offer for offer in offers if offer.form not in refused]
    return max(acceptable, key=itemgetter(0), default=_Offer(0.0, Format.TEXT, "0.0.4"))


def _offers(element: Accepted) -> Iterator[_Offer]:
    """Yield what we have of a media range."""
    for form, media in _MEDIA_TYPES.items():
        if element.name == media:
            known = _VERSIONS[form]
            version = element.parameters.get("version", known[0])
            if version in known:
                yield _Offer(element.quality, form, version, _escaping(element))
        elif element.name in {"*/*", media.partition("/")[0] + "/*"} and element.quality:
            yield _Offer(element.quality, form, _VERSIONS[form][0])


def _escaping(element: Accepted) -> str:
    """Return the escaping of names that we say to have; empty where the client names none."""
    asked = element.parameters.get("escaping", "")
    # "dots" would double the underscores of every name.
    return asked if not asked or asked in _UNCHANGED else "underscores"
