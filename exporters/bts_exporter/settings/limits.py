"""Limits of a value that its annotation gives: `Annotated[int, msgspec.Meta(ge=1)]`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

#: The names of lengths in JSON Schema, by the type that has them.
_LENGTHS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}


class Limits(NamedTuple):
    """The limits of one value."""

    metas: tuple[msgspec.Meta, ...]

    def problems(self, value: Any) -> Iterator[str]:
        """Yield how `value` is beyond a limit, in words."""
        for meta in self.metas:
            if isinstance(value, int | float):
                yield from _of_number(meta, value)
            elif isinstance(value, str | list | tuple | set | frozenset | dict):
                yield from _of_length(meta, value)

    def as_schema(self, json_type: str) -> dict[str, Any]:
        """Return the limits as keywords of JSON Schema, for a value of this type."""
        least, most = _LENGTHS[json_type]
        found: dict[str, Any] = {}
        for meta in self.metas:
            keywords = {
                "minimum": meta.ge,
                "exclusiveMinimum": meta.gt,
                "maximum": meta.le,
                "exclusiveMaximum": meta.lt,
                "multipleOf": meta.multiple_of,
                "pattern": meta.pattern,
                least: meta.min_length,
                most: meta.max_length,
                "description": meta.description,
                "examples": meta.examples,
            }
            found |= {key: limit for key, limit in keywords.items() if limit is not None}
            found |= meta.extra_json_schema or {}
        return found


def _of_number(meta: msgspec.Meta, value: float) -> Iterator[str]:
    if meta.ge is not None and not value >= meta.ge:
        yield f"must be at least {meta.ge:g}, got {value:g}"
    if meta.gt is not None and not value > meta.gt:
        yield f"must be more than {meta.gt:g}, got {value:g}"
    if meta.le is not None and not value <= meta.le:
        yield f"must be at most {meta.le:g}, got {value:g}"
    if meta.lt is not None and not value < meta.lt:
        yield f"must be less than {meta.lt:g}, got {value:g}"
    if meta.multiple_of is not None and value % meta.multiple_of:
        yield f"must be a multiple of {meta.multiple_of:g}, got {value:g}"


def _of_length(meta: msgspec.Meta, value: Any) -> Iterator[str]:
    if meta.min_length is not None and len(value) < meta.min_length:
        yield f"must have at least {_counted(meta.min_length, value)}, got {len(value)}"
    if meta.max_length is not None and len(value) > meta.max_length:
        yield f"must have at most {_counted(meta.max_length, value)}, got {len(value)}"
    if meta.pattern is not None and isinstance(value, str) and not re.search(meta.pattern, value):
        yield f"does not match {meta.pattern}"


def _counted(number: int, value: Any) -> str:
    """Return a number of what `value` consists of."""
    one, several = ("character", "characters") if isinstance(value, str) else ("entry", "entries")
    return f"{number} {one if number == 1 else several}"
