"""What a client accepts: the lists of the header fields Accept and Accept-Encoding (RFC 9110)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

_PIECES = re.compile(r'"(?:[^"\\]|\\.)*"?|[,;]|[^",;]+')
_QUOTED_PAIR = re.compile(r"\\(.)")
_QUALITY = re.compile(r"[01](?:\.[0-9]*)?|\.[0-9]+")


class Accepted(NamedTuple):
    """One element of a list, in lower case."""

    name: str  # such as text/plain or gzip
    parameters: dict[str, str]
    quality: float  # from 0, not acceptable, to 1


def accepted(field: str) -> Iterator[Accepted]:
    """Yield the elements of a list; nothing that a client can send is an error."""
    parts = [""]
    for piece in (*_PIECES.findall(field.lower()), ","):
        if piece == ",":
            yield _element(parts)
            parts = [""]
        elif piece == ";":
            parts.append("")
        else:
            parts[-1] += piece


@lru_cache(maxsize=64)  # a scraper says the same each time
def accepts_gzip(field: str) -> bool:
    """Return whether an Accept-Encoding field prefers gzip to no encoding."""
    qualities = {element.name: element.quality for element in accepted(field)}
    anything = qualities.get("*", 0.0)
    gzip = qualities.get("gzip", qualities.get("x-gzip", anything))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


def _element(parts: list[str]) -> Accepted:
    name, *pairs = parts
    parameters = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        parameters[key.strip()] = _unquoted(value.strip())
    return Accepted(name.strip(), parameters, _quality(parameters.get("q", "1")))


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    return _QUOTED_PAIR.sub(r"\1", value[1:].removesuffix('"'))


def _quality(text: str) -> float:
    return min(float(text), 1.0) if _QUALITY.fullmatch(text) else 0.0
