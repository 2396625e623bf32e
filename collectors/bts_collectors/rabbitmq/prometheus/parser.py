"""The text format as RabbitMQ writes it.

Older ones escape no quotes in names of queues: a strict reader would refuse a page for one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from bts_exporter import Kind

#: A sample; the labels end where a value follows, since a name may hold what ends them otherwise.
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
#: A label; its value ends where the next label or nothing follows, for the same reason. Possessive, so
#: that no line takes time in proportion to the square of its length.
_LABEL = re.compile(r'(\w++)="(.*?)"(?:,(?=\w++=")|$)', re.DOTALL)
_ESCAPED = re.compile(r'(?:[^"\\]|\\[\\"n])*')
_ESCAPE = re.compile(r"\\(.)")
_KINDS = {str(kind): kind for kind in Kind}
_ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}


class Sample(NamedTuple):
    """One value: its full name, its labels, the value."""

    name: str
    labels: dict[str, str]
    value: float


class Family(NamedTuple):
    """A metric, and its samples as they stand on the page."""

    name: str
    kind: Kind
    help: str
    lines: str


def families(page: str) -> Iterator[Family]:
    """Yield the families of a page, in its order; what comes before the first type is no family."""
    for block in page.split("# TYPE ")[1:]:
        head, _, rest = block.partition("\n")
        name, _, kind = head.partition(" ")
        words = ""
        if rest.startswith("# HELP "):
            first, _, rest = rest.partition("\n")
            words = first.removeprefix(f"# HELP {name} ")
        if kind in _KINDS:
            yield Family(name, _KINDS[kind], words, rest)


def samples(lines: str) -> Iterator[Sample]:
    """Yield the samples in lines of a page; a line that is none, or has no number, is passed over."""
    for name, labels, text in _SAMPLE.findall(lines):
        try:
            value = float(text)
        except ValueError:
            continue
        yield Sample(name, read_labels(labels), value)


def read_labels(text: str) -> dict[str, str]:
    """Return the labels that stand between the braces."""
    labels: dict[str, str] = {}
    place = 0
    while text.endswith('"') and (found := _LABEL.match(text, place)):
        labels[found[1]] = _unescape(found[2])
        place = found.end()
    return labels


def _unescape(value: str) -> str:
    # What cannot have been escaped was not.
    if "\\" not in value or not _ESCAPED.fullmatch(value):
        return value
    return _ESCAPE.sub(lambda found: _ESCAPES[found[1]], value)
