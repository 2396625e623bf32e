"""Reads numbers and labels from payloads: formats, paths, maps, scales.

Pure functions. Every payload results in a number or in `PayloadError`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, ClassVar, Literal, Self, get_args

import msgspec

from bts_collectors.mqtt.rules.lenient_json import decode_leniently
from bts_collectors.mqtt.rules.wildcards import (
    Each,
    Keys,
    Matches,
    Select,
    Step,
    matches_of,
    parse_steps,
)

Format = Literal["json", "csv", "number", "text"]
#: Why a value could not be read, as values of the `reason` label.
Reason = Literal[
    "malformed",  # the payload does not have the rule's format
    "missing",  # nothing at the path, or null
    "wrong_type",  # neither a number nor a text that is one
    "unmapped",  # a text that is not in the map
    "not_finite",  # NaN, infinity, or too large for a float
    "negative",  # a counter value below 0
    "event_time",  # the event time cannot be read
    "label",  # a label value is too long, or neither text nor number
]
REASONS: tuple[Reason, ...] = get_args(Reason)

#: Maximum length of a label value, in characters.
MAX_LABEL = 128
#: Characters of a text that a regular expression searches.
MAX_SEARCHED = 1024
#: Characters of a payload that error messages quote.
_SHOWN = 60
#: Byte order mark, which devices with Windows put before a payload.
_BOM = "\ufeff"
#: Part of the csv module's error for a text that ends within quotes.
_CUT_OFF = "unexpected end"

_YAML_WORDS = {
    "True": ("true", "TRUE", "on", "On", "ON", "yes", "Yes", "YES"),
    "False": ("false", "FALSE", "off", "Off", "OFF", "no", "No", "NO"),
    "None": ("null", "Null", "NULL", "~"),
}

_decode_json = msgspec.json.Decoder().decode

Decode = Callable[[bytes], Any]
Read = Callable[[Any], float | None]


class PayloadError(Exception):
    """Raised when a value cannot be read; its text is formatted only when it is used."""

    def __init__(self, *, reason: Reason, why: object, raw: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self._why = why
        self._raw = raw

    def __str__(self) -> str:
        try:
            shown = repr(self._raw)
        except RecursionError:
            shown = "a deeply nested value"
        return f"{self._why}: {shown if len(shown) <= _SHOWN else f'{shown[:_SHOWN]}...'}"


@dataclass(frozen=True, slots=True)
class Path:
    """The path of a value: `a.b`, `list[-1].b`, `["a.b"].c`, `$` for the payload itself, a CSV column.

    With wildcards, the path of several values: `{sensor}.tC`, `list[{sensor=id}].value`.
    """

    text: str
    steps: tuple[Step, ...]

    example: ClassVar[str] = "value"

    @classmethod
    def setting_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what may be a path; the grammar is left out."""
        return {"type": ["integer", "string"], "minimum": 0, "minLength": 1}

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Parse a path; ValueError explains why `raw` is not one."""
        raw = int(raw) if isinstance(raw, float) and raw.is_integer() else raw
        if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
            return cls(str(raw), (raw,))
        if not isinstance(raw, str) or not raw:
            msg = f"expected a path such as value, a.b or list[0].b, got {raw!r}"
            raise ValueError(msg)
        return cls(raw, parse_steps(raw))

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the wildcards, which become labels."""
        named = (step for step in self.steps if isinstance(step, Keys | Each))
        return tuple(step.label for step in named if step.label)

    @property
    def is_wild(self) -> bool:
        """Return whether the path has wildcards, so that there may be several values."""
        return any(isinstance(step, Keys | Each) for step in self.steps)

    def find(self, data: Any) -> Any:
        """Return the value at the path; PayloadError if it is missing or null."""
        value = data
        try:
            for step in self.steps:
                if isinstance(step, Select):
                    value = step.of(value)
                else:
                    value = None if type(value) is str else value[step]
        except (LookupError, TypeError):
            value = None
        if value is None:
            raise PayloadError(reason="missing", why=f"nothing at {self.text}", raw=data)
        return value

    def matches(self, data: Any) -> Matches:
        """Return labels and value of each match that is not null; PayloadError if there is no match."""
        matches = [
            (labels, value) for labels, value in matches_of(self.steps, data) if value is not None
        ]
        if not matches:
            raise PayloadError(reason="missing", why=f"nothing at {self.text}", raw=data)
        return matches

    def __str__(self) -> str:
        return self.text


def decoder(form: Format, separator: str = ",") -> Decode:
    """Return the decoder of a format: payload to JSON value, list of columns, or text.

    It raises PayloadError for a payload of another format.
    """
    if form == "csv":
        return partial(_csv, separator)
    return _json if form == "json" else _text


def number(raw: Any) -> float:
    """Convert a number or a text to a float; PayloadError if that is not a finite number."""
    if type(raw) is float and isfinite(raw):
        return raw
    try:
        if isinstance(raw, str) and "_" in raw:
            raise ValueError  # noqa: TRY301  # only Python reads 1_000 as a number
        value = float(raw)
    except (TypeError, ValueError):
        raise PayloadError(reason="wrong_type", why="not a number", raw=raw) from None
    except OverflowError:
        value = float("inf")
    if not isfinite(value):
        raise PayloadError(reason="not_finite", why="not a finite number", raw=raw)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """The conversion of a raw value to a number: map or regex, then raw * scale + offset."""

    mapping: Mapping[str, float | None]
    scale: float = 1.0
    offset: float = 0.0
    regex: re.Pattern[str] | None = None
    decimal: Literal[".", ","] = "."
    #: Whether the value is a counter, which cannot be negative.
    total: bool = False

    def convert(self) -> Callable[[Any], float | None]:
        """Return the converting function; it returns None for texts that the map sets to null."""
        texts = _all_spellings(self.mapping)
        unscaled = (self.scale, self.offset) == (1, 0)

        def convert(raw: Any) -> float | None:
            if self.regex:
                raw = _search(self.regex, raw)
            if texts and (text := as_text(raw)) in texts:
                raw = texts[text]
                if raw is None:
                    return None
            elif type(raw) is str:
                raw = _with_point(raw) if self.decimal == "," else raw
                if texts and not _is_number(raw):
                    raise PayloadError(reason="unmapped", why="not in the map", raw=raw)
            value = number(raw)
            if not unscaled:
                value = number(value * self.scale + self.offset)
            if self.total and value < 0:
                raise PayloadError(reason="negative", why="negative counter value", raw=raw)
            return value

        return convert

    def reader(self, path: Path) -> Read:
        """Return a function that reads the value at a path from a decoded payload."""
        find, convert = path.find, self.convert()
        plain = Conversion(mapping={}, decimal=self.decimal) == self and self.decimal == "."

        def read_plain(data: Any) -> float:
            raw = find(data)
            return raw if type(raw) is float else number(raw)

        return read_plain if plain else lambda data: convert(find(data))


def label_text(raw: Any) -> str:
    """Return a label value; PayloadError if `raw` is too long, or neither text nor number."""
    text = as_text(raw)
    if len(text) > MAX_LABEL or (not text and raw != ""):
        raise PayloadError(
            reason="label", why=f"not a text of at most {MAX_LABEL} characters", raw=raw
        )
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def as_text(raw: Any) -> str:
    """Return a JSON value as text, for keys of a map and labels; "" for lists and objects."""
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, float) and raw.is_integer():
        return str(int(raw))
    return str(raw) if isinstance(raw, str | int | float) else ""


def _json(payload: bytes) -> Any:
    try:
        return _decode_json(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            return decode_leniently(payload)
        except (ValueError, RecursionError):
            raise PayloadError(
                reason="malformed", why=f"invalid JSON ({error})", raw=payload
            ) from None


def _csv(separator: str, payload: bytes) -> list[str]:
    text = _text(payload)
    for strict in (True, False):  # with strict=False a misplaced quote affects only its own column
        try:
            # Only one record: a payload is one line.
            return next(csv.reader([text], delimiter=separator, strict=strict), [])
        except csv.Error as error:
            why = str(error)
            if _CUT_OFF in why:
                break
    raise PayloadError(reason="malformed", why=f"invalid CSV ({why})", raw=payload)


def _text(payload: bytes) -> str:
    """Decode a text; invalid UTF-8 is replaced, since it may be in a part that no metric reads."""
    return payload.decode("utf-8", "replace").removeprefix(_BOM).rstrip("\0").strip()


def _all_spellings(mapping: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the map with all YAML spellings of booleans and null: a key `ON` is parsed as `True`."""
    texts = {text: mapping[key] for key in mapping for text in _YAML_WORDS.get(key, ())}
    return texts | dict(mapping)


def _search(regex: re.Pattern[str], raw: Any) -> str:
    """Return the first group of the first match, or the whole match; PayloadError without a match."""
    text = as_text(raw)[:MAX_SEARCHED]
    match = regex.search(text)
    result = match and match[1 if regex.groups else 0]
    if result is None:
        raise PayloadError(
            reason="wrong_type", why=f"regex {regex.pattern} does not match", raw=raw
        )
    return result


def _with_point(text: str) -> str:
    """Return a number with a decimal point: `1.234,5` and `1 234,5` become 1234.5."""
    return re.sub(r"[.\s\u00a0\u202f']", "", text.strip()).replace(",", ".", 1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
