"""A commented example of a collector's settings, from their types, defaults, docstrings and comments."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

import msgspec
import yaml

from bts_exporter.plugin import Collector
from bts_exporter.settings.descriptions import comments_of, summary_of
from bts_exporter.settings.field_types import (
    Key,
    arms_of,
    bare,
    columns_of,
    items_of,
    keys_of,
    list_type,
    map_types,
    tag_of,
)
from bts_exporter.settings.loader import Common, TopLevel
from bts_exporter.settings.value_types import Duration, Secret, Url

_INDENT = "  "
_SIMPLE = {
    Any: ("any value", "VALUE"),
    bool: ("true or false", "true"),
    int: ("whole number", "1"),
    float: ("number", "1.0"),
    str: ("text", "TEXT"),
    Duration: ("duration: seconds, or such as 1m30s", "30s"),
    Secret: ("secret: !env NAME, !file PATH or !credential NAME", "!env NAME"),
    Url: ("address", "http://127.0.0.1:8080"),
    re.Pattern: ("regular expression", "^NAME$"),
    Path: ("path, relative to the settings file", "/PATH"),
    Decimal: ("number", "1.0"),
    dt.date: ("date", "2026-01-31"),
    dt.time: ("time of day", "12:30:00"),
    dt.datetime: ("date and time", "2026-01-31T12:30:00Z"),
    dt.timedelta: ("duration as ISO 8601 has it", "PT30S"),
    UUID: ("UUID", "00000000-0000-0000-0000-000000000000"),
    bytes: ("base64", "YQ=="),
}


def top_level() -> list[str]:
    """Return the lines of the keys of a settings file, `collectors` left out."""
    return list(_lines_of(TopLevel, leave_out="collectors"))


def block(type_name: str, cls: type[Collector]) -> list[str]:
    """Return the lines of a block of settings with every key of `cls`, ready to be loaded.

    Keys that have a default are commented out and show it.
    """
    keys = [
        *_lines_of(cls.Config),
        "# Keys of every collector:",
        *_lines_of(Common, {"max_series": lambda: cls.default_max_series}),
    ]
    summary = (f"# {line}" for line in textwrap.wrap(summary_of(cls), 96))
    return [*summary, f"{type_name}:", *(_INDENT + line for line in keys)]


def _lines_of(
    struct: Any,
    makers: dict[str, Callable[[], Any]] | None = None,
    *,
    outer: tuple[Any, ...] = (),
    leave_out: str = "",
) -> Iterator[str]:
    """Yield the lines of the keys of `struct`; those with a default are commented out.

    `makers` make other defaults than those of `struct`, by key. `outer` are the blocks that it is in.
    """
    for key in keys_of(struct) or ():
        if key.key != leave_out:
            changed = key._replace(make_default=(makers or {}).get(key.name, key.make_default))
            for line in _lines_of_key(struct, changed, outer):
                yield line if key.required or line.startswith("# ") else f"#{line}"


def _lines_of_key(struct: Any, key: Key, outer: tuple[Any, ...]) -> Iterator[str]:
    inner = block_in(key.kind)
    inner = None if inner in outer else inner  # a block can contain itself
    comment = comments_of(struct).get(key.name, "") or (summary_of(inner) if inner else "")
    yield from (f"# {line}" for line in textwrap.wrap(comment, 96))
    if inner is not None:
        yield f"{key.key}:"
        yield from _lines_of_block(inner, key.kind, (*outer, inner), commented=not key.required)
        return
    kind, sample = described(key.kind)
    if key.required and sample.startswith("!"):
        sample = "CHANGE-ME"  # a variable or a file that does not exist is an error
    shown = None if key.required else as_yaml(key.default)
    missing = "; required" if key.required else "; no default"
    yield f"{key.key}: {sample if shown is None else shown}  # {kind}{missing if shown is None else ''}"


def _lines_of_block(
    inner: Any, kind: Any, outer: tuple[Any, ...], *, commented: bool
) -> Iterator[str]:
    """Yield the lines of a block, of a block by name, or of the first block of a list.

    `commented` says that the whole block is commented out, not only its keys that have a default.
    """
    lines = list(_lines_of(inner, outer=outer))
    if commented:
        keys = keys_of(inner) or ()
        lines = [line for key in keys for line in _lines_of_key(inner, key, outer)]
    if (tag := tag_of(inner)) is not None:
        lines.insert(0, f"{tag[0]}: {as_yaml(tag[1])}")
    around = [bare(kind)[0], *(bare(arm)[0] for arm in arms_of(bare(kind)[0]))]
    if any(map(map_types, around)):
        lines = ["NAME:", *(_INDENT + line for line in lines)]
    elif any(map(list_type, around)):
        first = next((i for i, line in enumerate(lines) if not line.startswith("#")), -1)
        lines = [f"{'- ' if i == first else _INDENT}{line}" for i, line in enumerate(lines)]
    yield from (_INDENT + line for line in lines)


def block_in(kind: Any) -> Any:
    """Return the type of the block, or of each block, that `kind` consists of; None if it has none."""
    kind, _ = bare(kind)
    if keys_of(kind) is not None:
        return kind
    return next(filter(None, map(block_in, get_args(kind))), None)


def described(kind: Any) -> tuple[str, str]:
    """Return what a value of `kind` is, in words, and one such value as YAML."""
    kind, _ = bare(kind)
    arguments = get_args(kind)
    if arms := arms_of(kind):
        found = [described(arm) for arm in arms if arm is not types.NoneType]
        return " or ".join(dict.fromkeys(words for words, _ in found)), found[0][1]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, arguments))}", str(as_yaml(arguments[0]))
    if list_type(kind) is not None:
        return _described_list(items_of(kind))
    if (types_ := map_types(kind)) is not None:
        words, sample = described(types_[1])
        name = "NAME" if bare(types_[0])[0] is str else described(types_[0])[1]
        return f"map from names to: {words}", f"{{{name}: {sample}}}"
    if (columns := columns_of(kind)) is not None:
        return _described_list(tuple(column.kind for column in columns))
    if (origin := get_origin(kind) or kind) in _SIMPLE:
        return _SIMPLE[origin]
    if inspect.isclass(kind) and issubclass(kind, Enum):
        values = [member.value for member in kind]
        return f"one of {', '.join(map(str, values))}", str(as_yaml(values[0]))
    words = summary_of(origin).partition(". ")[0].removesuffix(".")
    return words[:1].lower() + words[1:], getattr(origin, "example", "VALUE")


def _described_list(items: Any) -> tuple[str, str]:
    if isinstance(items, tuple):
        found = [described(item) for item in items]
        words = ", ".join(word for word, _ in found)
        return f"list of {len(items)}: {words}", f"[{', '.join(sample for _, sample in found)}]"
    words, sample = described(items)
    return f"list of: {words}", f"[{sample}]"


def as_yaml(value: Any) -> str | None:
    """Return `value` as YAML on one line; None if it has no such form."""
    match value:
        case Enum() | dt.date() | dt.time() | dt.timedelta() | Decimal() | UUID() | bytes():
            return as_yaml(msgspec.to_builtins(value))
        case _ if hasattr(value, "as_setting"):
            return str(value.as_setting())
        case bool() | int():
            return json.dumps(value)
        case float():
            return yaml.safe_dump(float(value)).partition("\n")[0]
        case str() | PurePath():
            return _yaml_text(str(value))
        case re.Pattern():
            return json.dumps(value.pattern)
        case tuple() | list():
            return _yaml_list(value)
        case set() | frozenset():
            return _yaml_list(sorted(value, key=str))
        case dict() if not value:
            return "{}"
        case _:
            return None


def _yaml_text(value: str) -> str:
    """Return a text, in quotes if YAML would read something else: `on`, `null`."""
    plain = re.fullmatch(r"[A-Za-z/][\w./-]*", value) and yaml.safe_load(value) == value
    return value if plain else json.dumps(value)


def _yaml_list(values: Iterable[Any]) -> str | None:
    items = [as_yaml(value) for value in values]
    return None if None in items else f"[{', '.join(map(str, items))}]"
