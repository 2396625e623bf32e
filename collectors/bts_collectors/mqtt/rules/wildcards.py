"""Steps of paths into payloads, and the values that a path with wildcards matches.

Pure functions. `{name}` in a key matches any text and makes it a label; `*` matches without a label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_NAME = r"[a-zA-Z_][a-zA-Z0-9_]*"
_STEP = re.compile(
    rf"""
    \.?(?P<key>[^.\[\]"]+)
    | \["(?P<quoted>[^"]+)"\]
    | \[(?P<index>-?\d+)\]
    | \[(?P<all>\*)\]
    | \[\{{(?P<position>{_NAME})\}}\]
    | \[\{{(?P<label>{_NAME})=(?P<from>[^\]}}]+)\}}\]
    | \[(?P<where>[^=\]{{}}"*]+)=(?P<text>[^\]]*)\]
    """,
    re.VERBOSE,
)
_WILD = re.compile(rf"\*|\{{({_NAME})\}}")
_EXAMPLES = 'examples: a.b, list[0].b, list[-1], ["a.b"].c, {sensor}.tC, list[{sensor=id}].value, list[id=7].value'


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys that match a pattern; the part that matches the wildcard is the label."""

    pattern: re.Pattern[str]
    label: str


@dataclass(frozen=True, slots=True)
class Each:
    """All elements of a list; the label is one of their fields, or their index."""

    label: str
    field: str


@dataclass(frozen=True, slots=True)
class Select:
    """The first element of a list with a certain text in a field."""

    field: str
    text: str

    def of(self, data: Any) -> Any:
        """Return the element, or None if there is no match."""
        if isinstance(data, list):
            for element in data:
                if isinstance(element, dict) and _as_text(element.get(self.field)) == self.text:
                    return element
        return None


Step = str | int | Keys | Each | Select
#: Labels of the wildcards in order, and the value; a label may have any type.
Matches = list[tuple[tuple[Any, ...], Any]]


def parse_steps(text: str) -> tuple[Step, ...]:
    """Parse a path; ValueError names the part that is invalid."""
    steps: list[Step] = []
    rest = "" if text == "$" else text.removeprefix("$.")
    rest = rest.removeprefix("$") if rest.startswith("$[") else rest
    while rest:
        step = _STEP.match(rest)
        if step is None:
            msg = f"{text!r} is not a valid path from {rest!r} on; {_EXAMPLES}"
            raise ValueError(msg)
        steps.append(_step(step, text))
        rest = rest[step.end() :]
    return tuple(steps)


def matches_of(steps: tuple[Step, ...], data: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the labels and the value of each match."""
    if not steps:
        yield (), data
        return
    step, rest = steps[0], steps[1:]
    for label, value in _next(step, data):
        for labels, match in matches_of(rest, value):
            yield (*label, *labels), match


def _step(match: re.Match[str], text: str) -> Step:
    if match["index"]:
        return int(match["index"])
    if match["all"]:
        return Each("", "")
    if match["position"]:
        return Each(match["position"], "")
    if match["label"]:
        return Each(match["label"], match["from"])
    if match["where"]:
        return Select(match["where"], match["text"])
    return match["quoted"] or _key(match["key"], text)


def _key(key: str, text: str) -> str | Keys:
    wild = list(_WILD.finditer(key))
    if not wild:
        return key
    if len(wild) > 1:
        msg = f"{text!r}: a key may have one wildcard, got {key!r}"
        raise ValueError(msg)
    before, after = key[: wild[0].start()], key[wild[0].end() :]
    pattern = re.compile(f"{re.escape(before)}(.*){re.escape(after)}", re.DOTALL)
    return Keys(pattern, wild[0][1] or "")


def _next(step: Step, data: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the label, if any, and the value of each match of one step."""
    match step:
        case Keys():
            for key, value in data.items() if isinstance(data, dict) else ():
                if match := step.pattern.fullmatch(key):
                    yield (match[1],) if step.label else (), value
        case Each():
            yield from _elements(step, data)
        case Select():
            yield (), step.of(data)
        case _:
            with suppress(LookupError, TypeError):
                yield (), None if isinstance(data, str) else data[step]


def _elements(step: Each, data: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for index, value in enumerate(data if isinstance(data, list) else ()):
        label: Any = index
        if step.field:
            label = value.get(step.field) if isinstance(value, dict) else None
        if not step.label:
            yield (), value
        elif label is not None:
            yield (label,), value


def _as_text(raw: Any) -> str | None:
    if isinstance(raw, bool):
        return str(raw).lower()
    return str(raw) if isinstance(raw, str | int | float) else None
