"""A commented example of a collector's settings, from their types, defaults, docstrings and comments."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
import types
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from bts_exporter.plugin import Collector
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
}
_MISSING: Any = object()


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
        *_lines_of(Common, {"max_series": cls.default_max_series}),
    ]
    summary = (f"# {line}" for line in textwrap.wrap(_first_line(cls), 96))
    return [*summary, f"{type_name}:", *(_INDENT + line for line in keys)]


def _lines_of(
    struct: type[msgspec.Struct], defaults: dict[str, Any] | None = None, *, leave_out: str = ""
) -> Iterator[str]:
    """Yield the lines of the keys of `struct`; those with a default are commented out."""
    for field in msgspec.structs.fields(struct):
        if field.encode_name != leave_out:
            default = (defaults or {}).get(field.name, _default(field))
            for line in _lines_of_key(struct, field, default):
                yield line if field.required or line.startswith("# ") else f"#{line}"


def _lines_of_key(
    struct: type[msgspec.Struct], field: msgspec.structs.FieldInfo, default: Any
) -> Iterator[str]:
    inner = _block_of(field.type)
    comment = _comments(struct).get(field.name, "") or (_first_line(inner) if inner else "")
    yield from (f"# {line}" for line in textwrap.wrap(comment, 96))
    if inner is not None:
        yield f"{field.encode_name}:"
        yield from _lines_of_block(inner, field.type, commented=not field.required)
        return
    kind, sample = _described(field.type)
    if field.required and sample.startswith("!"):
        sample = "CHANGE-ME"  # a variable or a file that does not exist is an error
    shown = None if default is _MISSING else _yaml(default)
    missing = "; required" if field.required else "; no default"
    yield f"{field.encode_name}: {sample if shown is None else shown}  # {kind}{missing if shown is None else ''}"


def _lines_of_block(inner: type[msgspec.Struct], kind: Any, *, commented: bool) -> Iterator[str]:
    """Yield the lines of a block, of a block by name, or of the first block of a list.

    `commented` says that the whole block is commented out, not only its keys that have a default.
    """
    lines = list(_lines_of(inner))
    if commented:
        lines = [
            line
            for field in msgspec.structs.fields(inner)
            for line in _lines_of_key(inner, field, _default(field))
        ]
    origins = {get_origin(kind), *map(get_origin, get_args(kind))}
    if dict in origins:
        lines = ["NAME:", *(_INDENT + line for line in lines)]
    elif origins & {tuple, list}:
        first = next((i for i, line in enumerate(lines) if not line.startswith("#")), -1)
        lines = [f"{'- ' if i == first else _INDENT}{line}" for i, line in enumerate(lines)]
    yield from (_INDENT + line for line in lines)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return _MISSING


def _block_of(kind: Any) -> type[msgspec.Struct] | None:
    """Return the type of the block, or of each block, that `kind` consists of; None if it has none."""
    if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
        return kind
    return next(filter(None, map(_block_of, get_args(kind))), None)


def _described(kind: Any) -> tuple[str, str]:
    """Return what a value of `kind` is, in words, and one such value as YAML."""
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin in {Union, types.UnionType}:
        return _described(next(arm for arm in arguments if arm is not types.NoneType))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}", str(_yaml(arguments[0]))
    if origin in {list, tuple, set, frozenset}:
        words, sample = _described(arguments[0])
        return f"list of: {words}", f"[{sample}]"
    if origin is dict:
        words, sample = _described(arguments[1])
        return f"map from names to: {words}", f"{{NAME: {sample}}}"
    if origin in _SIMPLE:
        return _SIMPLE[origin]
    words = _first_line(origin).partition(". ")[0].removesuffix(".")
    return words[:1].lower() + words[1:], getattr(origin, "example", "VALUE")


def _yaml(value: Any) -> str | None:
    """Return `value` as YAML on one line; None if it has no such form."""
    match value:
        case Duration():
            return f"{float(value):g}s"
        case bool() | int() | float():
            return json.dumps(value)
        case str() | PurePath():
            value = str(value)
            return value if re.fullmatch(r"[A-Za-z/][\w./-]*", value) else json.dumps(value)
        case Url():
            return _address(value)
        case re.Pattern():
            return json.dumps(value.pattern)
        case tuple() | list():
            return _yaml_list(value)
        case set() | frozenset():
            return _yaml_list(sorted(value))
        case dict() if not value:
            return "{}"
        case _ if hasattr(value, "as_setting"):
            return str(value.as_setting())
        case _:
            return None


def _yaml_list(values: Iterable[Any]) -> str | None:
    items = [_yaml(value) for value in values]
    return None if None in items else f"[{', '.join(map(str, items))}]"


def _address(url: Url) -> str:
    """Return a default address; its login is in the documentation, too."""
    if url.username is None:
        return str(url)
    password = f":{url.password.reveal()}" if url.password else ""
    return str(url).replace("://", f"://{url.username}{password}@", 1)


def _first_line(kind: Any) -> str:
    return str(kind.__doc__ or "").strip().partition("\n\n")[0].replace("\n    ", " ")


def _comments(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the comments `#:` above the keys of `struct` and of its bases, by name."""
    found: dict[str, str] = {}
    for cls in reversed(struct.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(cls))
        except (OSError, TypeError):  # made without a source file
            continue
        found |= _comments_in(source)
    return found


def _comments_in(source: str) -> dict[str, str]:
    lines = source.splitlines()
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above: list[str] = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.strip().startswith("#:"):
                    break
                above.insert(0, line.strip().removeprefix("#:").strip())
            found[node.target.id] = " ".join(above)
    return found
