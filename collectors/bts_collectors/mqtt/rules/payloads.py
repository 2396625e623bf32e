"""From the bytes of a message to the number that is meant: formats, paths, maps, scales.

Pure. Whatever a payload holds ends in a number or in `PayloadError`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, Literal, Self, get_args

import msgspec

from bts_collectors.mqtt.rules.lenient_json import mend
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
#: Why a message gives no value, as the value of the `reason` label.
Reason = Literal[
    "malformed",  # the payload is not of the rule's format
    "missing",  # there is nothing at the path
    "wrong_type",  # no number there, nor what can be read as one
    "unmapped",  # a text that the map does not have
    "not_finite",  # NaN, infinity, or beyond floats
    "negative",  # a total below 0
    "event_time",  # no time that can be read
    "label",  # what is to become a label is too long, or no text or number
]
REASONS: tuple[Reason, ...] = get_args(Reason)

#: Characters of a label's value.
MAX_LABEL = 128
#: Characters of a text that a regular expression is shown.
MAX_SEARCHED = 1024
#: Characters of a payload that messages show.
_SHOWN = 60
#: What devices written in C or on Windows put before or behind a payload.
_BOM = "\ufeff"
#: What Python's csv says of a text that ends within quotes.
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
    """Raised when a message does not give a value; its text is made only if somebody wants it."""

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
    """Where a value is: `a.b`, `list[-1].b`, `["a.b"].c`, `$` for the payload itself, a CSV column.

    With wildcards it is where several are: `{sensor}.tC`, `list[{sensor=id}].value`.
    """

    text: str
    steps: tuple[Step, ...]

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the path that `raw` spells; ValueError when it spells none."""
        if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
            return cls(str(raw), (raw,))
        if not isinstance(raw, str) or not raw:
            msg = f"expected a path such as value, a.b or list[0].b, got {raw!r}"
            raise ValueError(msg)
        return cls(raw, parse_steps(raw))

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the wildcards."""
        named = (step for step in self.steps if isinstance(step, Keys | Each))
        return tuple(step.label for step in named if step.label)

    @property
    def is_wild(self) -> bool:
        """Return whether there may be several values."""
        return any(isinstance(step, Keys | Each) for step in self.steps)

    def find(self, data: Any) -> Any:
        """Return what is there; PayloadError when nothing is, or null."""
        found = data
        try:
            for step in self.steps:
                if isinstance(step, Select):
                    found = step.of(found)
                else:
                    found = None if type(found) is str else found[step]
        except (LookupError, TypeError):
            found = None
        if found is None:
            raise PayloadError(reason="missing", why=f"nothing at {self.text}", raw=data)
        return found

    def matches(self, data: Any) -> Matches:
        """Return the labels and the value of each match, nulls left out; PayloadError without any."""
        found = [
            (labels, value) for labels, value in matches_of(self.steps, data) if value is not None
        ]
        if not found:
            raise PayloadError(reason="missing", why=f"nothing at {self.text}", raw=data)
        return found

    def __str__(self) -> str:
        return self.text


def decoder(form: Format, separator: str = ",") -> Decode:
    """Return what decodes payloads of a format: to JSON's values, a list of columns, or a text.

    It raises PayloadError for what is no such payload.
    """
    if form == "csv":
        return partial(_csv, separator)
    return _json if form == "json" else _text


def number(raw: Any) -> float:
    """Return the number that `raw` is, or spells; PayloadError if there is none, or no finite one."""
    if type(raw) is float and isfinite(raw):
        return raw
    try:
        if isinstance(raw, str) and "_" in raw:
            raise ValueError  # noqa: TRY301  # a number in Python, and nowhere else
        value = float(raw)
    except (TypeError, ValueError):
        raise PayloadError(reason="wrong_type", why="no number", raw=raw) from None
    except OverflowError:
        value = float("inf")
    if not isfinite(value):
        raise PayloadError(reason="not_finite", why="no finite number", raw=raw)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How what is found in a payload becomes a value: value * scale + offset."""

    mapping: Mapping[str, float | None]
    scale: float = 1.0
    offset: float = 0.0
    regex: re.Pattern[str] | None = None
    decimal: Literal[".", ","] = "."
    #: Whether it is a total, which cannot be below 0.
    total: bool = False

    def convert(self) -> Callable[[Any], float | None]:
        """Return what converts: None where the map has no value, PayloadError where there should be one."""
        texts = _all_spellings(self.mapping)
        as_it_is = (self.scale, self.offset) == (1, 0)

        def convert(raw: Any) -> float | None:
            if self.regex:
                raw = _search(self.regex, raw)
            if texts and (text := spelled(raw)) in texts:
                raw = texts[text]
                if raw is None:
                    return None
            elif type(raw) is str:
                raw = _with_point(raw) if self.decimal == "," else raw
                if texts and not _is_number(raw):
                    raise PayloadError(reason="unmapped", why="not in the map", raw=raw)
            value = number(raw)
            if not as_it_is:
                value = number(value * self.scale + self.offset)
            if self.total and value < 0:
                raise PayloadError(reason="negative", why="a total below 0", raw=raw)
            return value

        return convert

    def reader(self, path: Path) -> Read:
        """Return what reads the one value at a path from a decoded payload."""
        find, convert = path.find, self.convert()
        plain = Conversion(mapping={}, decimal=self.decimal) == self and self.decimal == "."

        def read_plain(data: Any) -> float:
            raw = find(data)
            return raw if type(raw) is float else number(raw)

        return read_plain if plain else lambda data: convert(find(data))


def label_text(raw: Any) -> str:
    """Return a value of a payload as a label has it; PayloadError where it is too long, or no text or number."""
    text = spelled(raw)
    if len(text) > MAX_LABEL or (not text and raw != ""):
        raise PayloadError(reason="label", why=f"no text of up to {MAX_LABEL} characters", raw=raw)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def spelled(raw: Any) -> str:
    """Return a value of JSON as keys of a map and labels spell it; "" for lists and blocks."""
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
            return mend(payload)
        except (ValueError, RecursionError):
            raise PayloadError(reason="malformed", why=f"no JSON ({error})", raw=payload) from None


def _csv(separator: str, payload: bytes) -> list[str]:
    text = _text(payload)
    for strict in (True, False):  # a quote in the wrong place costs its own column
        try:
            # One line: a second one would be a second message.
            return next(csv.reader([text], delimiter=separator, strict=strict), [])
        except csv.Error as error:
            why = str(error)
            if _CUT_OFF in why:
                break
    raise PayloadError(reason="malformed", why=f"no CSV ({why})", raw=payload)


def _text(payload: bytes) -> str:
    """Return the text; invalid UTF-8 is replaced, since it may be in a part that is not read."""
    return payload.decode("utf-8", "replace").removeprefix(_BOM).rstrip("\0").strip()


def _all_spellings(mapping: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the map with all that YAML takes for the same: `ON` in the settings arrives as `True`."""
    texts = {text: mapping[key] for key in mapping for text in _YAML_WORDS.get(key, ())}
    return texts | dict(mapping)


def _search(regex: re.Pattern[str], raw: Any) -> str:
    """Return the first group of the first match, or all of it; PayloadError without one."""
    text = spelled(raw)[:MAX_SEARCHED]
    match = regex.search(text)
    found = match and match[1 if regex.groups else 0]
    if found is None:
        raise PayloadError(
            reason="wrong_type", why=f"regex {regex.pattern} does not match", raw=raw
        )
    return found


def _with_point(text: str) -> str:
    """Return a number as programs write it: `1.234,5` and `1 234,5` are 1234.5."""
    return re.sub(r"[.\s\u00a0\u202f']", "", text.strip()).replace(",", ".", 1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
