"""Paths into a JSON document, such as `outputs[0].data[0]`: a small subset of JSONPath."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Self

#: A key behind a dot or at the beginning, an index, or a quoted key: `["a.b"]`.
_STEP = re.compile(r"""\.?([^.\[\]'"\s]+)|\[([0-9]{1,9})\]|\[("(?:[^"\\]|\\.)*"|'[^'\\]*')\]""")
_FORM = 'expected keys and indexes, such as predictions[0].value or a["key with . in it"]'


@dataclass(frozen=True, slots=True)
class JsonPath:
    """Keys and indexes that lead to a value."""

    text: str
    steps: tuple[str | int, ...]

    @classmethod
    def setting_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what may be a path; the grammar is left out."""
        return {"type": "string", "minLength": 1}

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the path that `raw` spells; ValueError if it spells none."""
        if not isinstance(raw, str):
            msg = f"{_FORM}, got {type(raw).__name__}"
            raise ValueError(msg)  # noqa: TRY004  # the contract of from_setting
        # JSONPath begins with $, which is the whole document.
        rest = raw[1:] if raw == "$" or raw.startswith(("$.", "$[")) else raw
        steps: list[str | int] = []
        start = 0
        while start < len(rest):
            found = _STEP.match(rest, start)
            if found is None or (
                found[1] and bool(steps or rest != raw) != rest.startswith(".", start)
            ):
                msg = f"{raw!r} is not a valid path ({_FORM})"
                raise ValueError(msg)
            steps.append(_step(found))
            start = found.end()
        if not steps and raw != "$":
            msg = f"the path is empty ({_FORM}; $ is the whole response)"
            raise ValueError(msg)
        return cls(raw, tuple(steps))

    def find(self, document: object) -> object:
        """Return the value in `document`; LookupError says which part is missing."""
        value = document
        for step in self.steps:
            match value:
                case dict() if isinstance(step, str) and step in value:
                    value = value[step]
                case list() if isinstance(step, int) and step < len(value):
                    value = value[step]
                case _:
                    msg = f"{self.text} is missing ({_missing(value, step)})"
                    raise LookupError(msg)
        return value

    def __str__(self) -> str:
        return self.text


def _step(found: re.Match[str]) -> str | int:
    key, index, quoted = found.groups()
    if index is not None:
        return int(index)
    if quoted is not None:
        return str(json.loads(quoted)) if quoted.startswith('"') else str(quoted[1:-1])
    return str(key)


def _missing(value: object, step: str | int) -> str:
    match value:
        case dict() if isinstance(step, str):
            return f"no key {step!r}"
        case list() if isinstance(step, int):
            return f"no index {step} in a list of {len(value)}"
        case _:
            kinds = {dict: "an object", list: "a list", str: "a text", type(None): "null"}
            return f"{step!r} of {kinds.get(type(value), 'a number or truth value')}"
