"""Converts plain values to typed settings, and collects all problems."""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, Literal, get_args, get_origin

import msgspec

from bts_exporter.errors import Problem, line_in, text_of, words_of
from bts_exporter.settings import misplaced_keys
from bts_exporter.settings.field_types import (
    DECIMAL,
    NUMBER_KEYS,
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
from bts_exporter.settings.limits import Limits
from bts_exporter.settings.tls import TLSConfig
from bts_exporter.settings.value_types import Secret, Url
from bts_exporter.settings.yaml_document import UNREADABLE, Document, Hidden, Path_, format_path

#: Stands for a value that could not be converted; the problem says why.
INVALID: Any = object()

#: Shortest key that is suggested because it is part of the unknown one, in letters.
_SHORTEST_PART = 4


class Schema:
    """Converts the values of one document and collects the problems."""

    def __init__(self, document: Document) -> None:
        """Start with the problems of the document itself."""
        self.document = document
        self.problems: list[Problem] = list(document.problems)
        #: Settings of TLS and their places, for `check`.
        self.tls: list[tuple[TLSConfig, Problem]] = []

    def add_problem(self, path: Path_, message: str) -> Any:
        """Add a problem, and return INVALID."""
        self.problems.append(self.document.problem(path, message))
        return INVALID

    def convert(self, raw: Any, kind: Any, path: Path_) -> Any:
        """Return `raw` as `kind`, or INVALID after adding every problem in it."""
        if raw is UNREADABLE:
            return INVALID
        kind, limits = bare(kind)
        value = self._typed(raw, kind, path)
        return value if value is INVALID else self._within(limits, value, raw, path)

    def _typed(self, raw: Any, kind: Any, path: Path_) -> Any:
        """Return `raw` as a type without annotations, or INVALID."""
        if (keys := keys_of(kind)) is not None:
            return self._block(raw, kind, keys, path)
        if arms := arms_of(kind):
            return self._union(raw, arms, path)
        if get_origin(kind) is Literal:
            return self._literal(raw, get_args(kind), path)
        if (made_of := list_type(kind)) is not None and isinstance(raw, list):
            return self._sequence(raw, made_of, items_of(kind), path)
        if (types_ := map_types(kind)) is not None and isinstance(raw, dict):
            return self._mapping(raw, *types_, path)
        if (columns := columns_of(kind)) is not None and isinstance(raw, list):
            return self._row(raw, kind, columns, path)
        return self._leaf(raw, kind, path)

    def _within(self, limits: Limits, value: Any, raw: Any, path: Path_) -> Any:
        """Return `value`, or INVALID after adding the problems with its limits."""
        problems = list(limits.problems(value))
        if isinstance(raw, Hidden):  # a value from outside of the file is not shown
            problems = [problem.partition(", got ")[0] for problem in problems]
        for problem in problems:
            self.add_problem(path, problem)
        return INVALID if problems else value

    def unknown(
        self, key: str, known: Iterable[str], path: Path_, *, what: str = "key", advice: str = ""
    ) -> None:
        """Add a problem for an unknown `key`, with `advice`, the nearest known key, or all."""
        known = sorted(known)
        near = nearest(key, known)
        cure = f"did you mean {near}?" if near else f"known: {', '.join(known) or 'none'}"
        cure = advice or cure
        name, colon, _ = key.partition(":")
        if colon:  # {password:x} lacks a space, and is a key that holds a password
            cure = "a space is missing behind the colon"
        elif name.startswith("-"):
            cure = "a space is missing behind the hyphen"
        problem = self.document.problem(path, f"unknown {what} {name!r}; {cure}")
        self.problems.append(problem._replace(path=format_path((*path[:-1], name))))

    def _block(self, raw: Any, kind: Any, keys: Sequence[Key], path: Path_) -> Any:
        raw = {} if raw is None else raw  # a key without a value
        if not isinstance(raw, dict):
            return self.add_problem(
                path, f"expected a block of keys, got {_name(raw)}{_block(raw)}"
            )
        before = len(self.problems)
        known = {key.key: key for key in keys}
        for word in raw.keys() - known.keys() - self._tag_of_block(raw, kind, path):
            advice = misplaced_keys.advice(word, known, kind)
            self.unknown(word, known, (*path, word), advice=advice)
        values = {}
        for word, key in known.items():
            if word in raw:
                values[key.name] = self.convert(raw[word], key.kind, (*path, word))
            elif key.required:
                self.add_problem(path, f"{word} is missing")
        self._check_passwords(values, path)
        if len(self.problems) > before or any(value is INVALID for value in values.values()):
            return INVALID
        try:
            made = kind(**values)
        except Exception as error:  # noqa: BLE001  # __post_init__, a plug-in's own code
            return self._add_problem_of_block(raw, path, _words(error, kind))
        if isinstance(made, TLSConfig):
            made = made.below(Path(self.document.file).parent)
            self.tls.append((made, self.document.problem(path, "")))
        return made

    def _tag_of_block(self, raw: dict[str, Any], kind: Any, path: Path_) -> set[str]:
        """Return the key that says which block of a union this is, after checking its value."""
        tag = tag_of(kind)
        if tag is None:
            return set()
        key, value = tag
        if key not in raw:
            self.add_problem(path, f"{key} is missing")
        else:
            self._literal(raw[key], (value,), (*path, key))
        return {key}

    def _add_problem_of_block(self, raw: dict[str, Any], path: Path_, message: str) -> Any:
        """Add a problem that a block reports itself, at the key that the message begins with."""
        key = message.partition(":")[0]
        problem = self.document.problem((*path, key) if key in raw else path, message)
        self.problems.append(problem._replace(path=format_path(path)))
        return INVALID

    def _check_passwords(self, values: dict[str, Any], path: Path_) -> None:
        """Add a problem for a password that is in the address as well: only one has an effect."""
        found = values.get("url"), values.get("addresses")
        urls = [found[0], *found[1]] if isinstance(found[1], tuple | list) else [found[0]]
        if isinstance(values.get("password"), Secret):
            for url in urls:
                if isinstance(url, Url) and url.password is not None:
                    message = (
                        f"given twice, here and in the address of {url}: leave one of them out"
                    )
                    self.add_problem((*path, "password"), message)

    def _union(self, raw: Any, arms: tuple[Any, ...], path: Path_) -> Any:
        arms_left = [arm for arm in arms if arm is not types.NoneType]
        if raw is None and len(arms_left) < len(arms):
            if Secret in [
                bare(arm)[0] for arm in arms_left
            ]:  # such as an empty variable of a template
                message = (
                    "nothing stands behind the colon: leave the key out, or write !env NAME;"
                    " text that begins with # or & needs quotes"
                )
                return self.add_problem(path, message)
            return None
        if len(arms_left) == 1:
            return self.convert(raw, arms_left[0], path)
        problems = self.problems
        for arm in arms_left:
            self.problems = []
            value = self.convert(raw, arm, path)
            failed, self.problems = bool(self.problems), problems
            if not failed:
                return value
        expected = " or ".join(getattr(arm, "__name__", str(arm)) for arm in arms_left)
        return self.add_problem(path, f"expected {expected}, got {_name(raw)}")

    def _sequence(self, raw: list[Any], made_of: Any, kinds: Any, path: Path_) -> Any:
        if isinstance(kinds, tuple):
            if len(raw) != len(kinds):
                return self.add_problem(
                    path, f"expected a list of {len(kinds)} values, got {len(raw)}"
                )
        else:
            kinds = (kinds,) * len(raw)
        values = [
            self.convert(item, kind, (*path, i))
            for i, (item, kind) in enumerate(zip(raw, kinds, strict=True))
        ]
        return made_of(values)

    def _row(self, raw: list[Any], kind: Any, columns: Sequence[Key], path: Path_) -> Any:
        least = sum(column.required for column in columns)
        if not least <= len(raw) <= len(columns):
            names = ", ".join(column.name for column in columns)
            return self.add_problem(path, f"expected a list of {names}, got {len(raw)} values")
        values = [
            self.convert(item, column.kind, (*path, i))
            for i, (item, column) in enumerate(zip(raw, columns, strict=False))
        ]
        return INVALID if any(value is INVALID for value in values) else kind(*values)

    def _mapping(self, raw: dict[str, Any], of_keys: Any, kind: Any, path: Path_) -> dict[Any, Any]:
        return {
            self._map_key(key, of_keys, (*path, key)): self.convert(item, kind, (*path, key))
            for key, item in raw.items()
        }

    def _map_key(self, key: str, kind: Any, path: Path_) -> Any:
        """Return the key of a map; in YAML it is a text, such as `5` of a map from numbers."""
        pattern = NUMBER_KEYS.get(bare(kind)[0])
        number = pattern is not None and re.search(pattern, key)
        return self.convert(msgspec.json.decode(key) if number else key, kind, path)

    def _literal(self, raw: Any, allowed: tuple[Any, ...], path: Path_) -> Any:
        for value in allowed:  # True equals 1
            if raw == value and isinstance(raw, bool) == isinstance(value, bool):
                return value
        return self._not_among(raw, allowed, path)

    def _not_among(self, raw: Any, allowed: tuple[Any, ...], path: Path_) -> Any:
        near = nearest(str(raw), list(map(str, allowed)))
        cure = f"; did you mean {near}?" if near else ""
        return self.add_problem(
            path, f"expected one of {', '.join(map(str, allowed))}, got {raw!r}{cure}"
        )

    def _leaf(self, raw: Any, kind: Any, path: Path_) -> Any:
        if isinstance(raw, Hidden) and inspect.isclass(kind) and issubclass(kind, int | float):
            raw = _unquoted(raw)
        try:
            if hasattr(kind, "from_setting"):
                return kind.from_setting(raw)
            if kind is re.Pattern or get_origin(kind) is re.Pattern:
                return _pattern(raw)
            if inspect.isclass(kind) and issubclass(kind, PurePath) and isinstance(raw, str):
                # Relative to the settings, as every path in them.
                return kind(Path(self.document.file).parent, raw)
            if kind is Decimal and isinstance(raw, str) and not re.search(DECIMAL, raw):
                return self.add_problem(path, f"expected a number, got {raw!r}")
            if isinstance(raw, float) and raw.is_integer() and kind is not float:
                raw = _whole(raw, kind)
            return msgspec.convert(raw, _shape(kind))
        except msgspec.ValidationError as error:
            return self.add_problem(path, _reword(str(error), raw))
        except Exception as error:  # noqa: BLE001  # from_setting, a plug-in's own code
            return self.add_problem(path, _words(error, kind))


def _shape(kind: Any) -> Any:
    """Return what a value of another shape is compared with: msgspec does not support every type of item."""
    if map_types(kind) is not None:
        return dict
    if list_type(kind) is not None:
        return list
    return Any if kind is object else kind


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the one of `known` that `word` is most likely meant to be."""
    import difflib  # noqa: PLC0415  # only errors need it

    if word.lower() in known:
        return word.lower()
    close = difflib.get_close_matches(word, known, n=1)
    parts = (name for name in known if len(name) >= _SHORTEST_PART and name in word)
    return next(iter((*close, *parts)), None)


def _pattern(raw: Any) -> re.Pattern[str]:
    if not isinstance(raw, str):
        several = "; several are one, with | between them: ^(a|b)$" if isinstance(raw, list) else ""
        msg = f"expected a regular expression, got {_name(raw)}{several}"
        raise ValueError(msg)  # noqa: TRY004  # as from_setting
    try:
        return re.compile(raw)
    except (re.error, OverflowError, RecursionError) as error:
        glob = "; where a glob has * it has .*" if raw.startswith("*") else ""
        msg = f"not a regular expression: {error}{glob}"
        raise ValueError(msg) from error


def _unquoted(raw: Hidden) -> Any:
    """Return what an environment variable would mean as a YAML number or truth value."""
    try:
        return msgspec.json.decode(raw.encode("utf-8", "replace"))
    except msgspec.DecodeError:
        return raw


def _whole(raw: float, kind: Any) -> Any:
    """Return 5.0 as 5 where a whole number is expected: to JSON Schema they are the same."""
    wanted = inspect.isclass(kind) and issubclass(kind, int | Enum) and kind is not bool
    return int(raw) if wanted else raw


def _reword(message: str, raw: Any) -> str:
    message = re.sub(r" - at `\$[^`]*`$", "", message).replace("`", "")
    message = message.replace("Expected", "expected", 1)
    for their, our in (("array", "a list"), ("object", "a block of keys")):
        message = re.sub(rf"\b{their}\b", our, message)
    if message == "expected a list, got str":
        shown = "VALUE" if isinstance(raw, Hidden) else json.dumps(str(raw), ensure_ascii=False)
        message += f"; write it in brackets: [{shown}]"
    elif message.startswith("expected bool, got"):
        message += "; write true or false, without quotes"
    elif message in {"expected int, got str", "expected float, got str"}:
        if ":" in raw and not isinstance(raw, Hidden):
            message = (
                f"{message.removesuffix('str')}{raw!r}; write a number without colons, such as 90"
            )
        else:
            message += "; write a number, without quotes or a unit"
    elif message.startswith("expected a block of keys, got"):
        message += _block(raw)
    if message.startswith("expected str, got"):
        message += f" (put it in quotes: {str(raw)!r})" if isinstance(raw, int | float) else ""
    return message


def _block(raw: Any) -> str:
    """Return how to write a block of keys instead of `raw`."""
    if isinstance(raw, list):
        return "; write its keys without hyphens and brackets, key: value"
    if isinstance(raw, bool):
        return "; write {key: value}, or leave it out"
    return "; write its keys below it, indented, or {key: value}" if isinstance(raw, str) else ""


def _words(error: Exception, kind: Any) -> str:
    """Return what a plug-in's own check says; a defect in it with its place."""
    if isinstance(error, ValueError | re.error):
        return text_of(error)
    words = text_of(error) if isinstance(error, TypeError) else words_of(error)
    return words + line_in(str(getattr(kind, "__module__", "")).partition(".")[0], error)


def _name(raw: Any) -> str:
    return {dict: "a block of keys", list: "a list", type(None): "nothing"}.get(
        type(raw), f"{type(raw).__name__.replace('Hidden', 'str')} {raw!r}"
    )
