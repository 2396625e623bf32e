"""Steps of a path into a payload, and the several values that a path with wildcards leads to.

Pure. `{name}` in a key matches any text there and makes it a label, `*` matches it without one.
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
    | \[\{{(?P<place>{_NAME})\}}\]
    | \[\{{(?P<label>{_NAME})=(?P<from>[^\]}}]+)\}}\]
    | \[(?P<where>[^=\]{{}}"*]+)=(?P<text>[^\]]*)\]
    """,
    re.VERBOSE,
)
_WILD = re.compile(rf"\*|\{{({_NAME})\}}")
_EXAMPLES = 'as in a.b, list[0].b, list[-1], ["a.b"].c, {sensor}.tC, list[{sensor=id}].value, list[id=7].value'


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys that match a pattern, what stands for the wildcard being the label."""

    pattern: re.Pattern[str]
    label: str


@dataclass(frozen=True, slots=True)
class Each:
    """All elements of a list, with a label from one of their fields, or else their place."""

    label: str
    field: str


@dataclass(frozen=True, slots=True)
class Select:
    """The first element of a list that has a text in a field."""

    field: str
    text: str

    def of(self, data: Any) -> Any:
        """Return the element; None if there is none."""
        if isinstance(data, list):
            for element in data:
                if isinstance(element, dict) and _spelled(element.get(self.field)) == self.text:
                    return element
        return None


Step = str | int | Keys | Each | Select
#: The labels of the wildcards, in their order, and what is there; a label may be of any type.
Matches = list[tuple[tuple[Any, ...], Any]]


def parse_steps(text: str) -> tuple[Step, ...]:
    """Return the steps that `text` spells; ValueError where it is not understood."""
    steps: list[Step] = []
    rest = "" if text == "$" else text.removeprefix("$.")
    rest = rest.removeprefix("$") if rest.startswith("$[") else rest
    while rest:
        step = _STEP.match(rest)
        if step is None:
            msg = f"{text!r}: not understood from {rest!r} on; {_EXAMPLES}"
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
        for labels, found in matches_of(rest, value):
            yield (*label, *labels), found


def _step(found: re.Match[str], text: str) -> Step:
    if found["index"]:
        return int(found["index"])
    if found["all"]:
        return Each("", "")
    if found["place"]:
        return Each(found["place"], "")
    if found["label"]:
        return Each(found["label"], found["from"])
    if found["where"]:
        return Select(found["where"], found["text"])
    return found["quoted"] or _key(found["key"], text)


def _key(key: str, text: str) -> str | Keys:
    wild = list(_WILD.finditer(key))
    if not wild:
        return key
    if len(wild) > 1:
        msg = f"{text!r}: one wildcard in a key, got {key!r}"
        raise ValueError(msg)
    before, behind = key[: wild[0].start()], key[wild[0].end() :]
    pattern = re.compile(f"{re.escape(before)}(.*){re.escape(behind)}", re.DOTALL)
    return Keys(pattern, wild[0][1] or "")


def _next(step: Step, data: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the label, if there is one, and the value of each match of one step."""
    match step:
        case Keys():
            for key, value in data.items() if isinstance(data, dict) else ():
                if found := step.pattern.fullmatch(key):
                    yield (found[1],) if step.label else (), value
        case Each():
            yield from _elements(step, data)
        case Select():
            yield (), step.of(data)
        case _:
            with suppress(LookupError, TypeError):
                yield (), None if isinstance(data, str) else data[step]


def _elements(step: Each, data: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for place, value in enumerate(data if isinstance(data, list) else ()):
        label: Any = place
        if step.field:
            label = value.get(step.field) if isinstance(value, dict) else None
        if not step.label:
            yield (), value
        elif label is not None:
            yield (label,), value


def _spelled(raw: Any) -> str | None:
    if isinstance(raw, bool):
        return str(raw).lower()
    return str(raw) if isinstance(raw, str | int | float) else None
