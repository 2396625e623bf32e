"""The text format as RabbitMQ writes it.

Old versions do not escape quotes in queue names: a strict parser would reject the whole page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from bts_exporter import Kind

#: A sample. The labels end where a value follows, since a label value may contain a brace.
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
#: A label. Its value ends where the next label or nothing follows, since it may contain quotes.
#: Possessive, so that the time is linear in the length of the line.
_LABEL = re.compile(r'(\w++)="(.*?)"(?:,(?=\w++=")|$)', re.DOTALL)
_ESCAPED = re.compile(r'(?:[^"\\]|\\[\\"n])*')
_ESCAPE = re.compile(r"\\(.)")
_KINDS = {str(kind): kind for kind in Kind}
_ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}


class Sample(NamedTuple):
    """One sample."""

    name: str
    labels: dict[str, str]
    value: float


class Family(NamedTuple):
    """A metric family, with its samples as text."""

    name: str
    kind: Kind
    help: str
    lines: str


def families(page: str) -> Iterator[Family]:
    """Yield the families of a page in its order; lines before the first TYPE are ignored."""
    for block in page.split("# TYPE ")[1:]:
        head, _, rest = block.partition("\n")
        name, _, kind = head.partition(" ")
        help_text = ""
        if rest.startswith("# HELP "):
            first, _, rest = rest.partition("\n")
            help_text = first.removeprefix(f"# HELP {name} ")
        if kind in _KINDS:
            yield Family(name, _KINDS[kind], help_text, rest)


def samples(lines: str) -> Iterator[Sample]:
    """Yield the samples in `lines`; invalid lines are ignored."""
    for name, labels, text in _SAMPLE.findall(lines):
        try:
            value = float(text)
        except ValueError:
            continue
        yield Sample(name, read_labels(labels), value)


def read_labels(text: str) -> dict[str, str]:
    """Return the labels in the text between the braces."""
    labels: dict[str, str] = {}
    position = 0
    while text.endswith('"') and (found := _LABEL.match(text, position)):
        labels[found[1]] = _unescape(found[2])
        position = found.end()
    return labels


def _unescape(value: str) -> str:
    # A value that is not validly escaped was not escaped at all.
    if "\\" not in value or not _ESCAPED.fullmatch(value):
        return value
    return _ESCAPE.sub(lambda found: _ESCAPES[found[1]], value)
