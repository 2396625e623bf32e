"""From the bytes of a message to the number that is meant: formats, paths, maps, scales.

Pure. Whatever a payload holds ends in a number or in `Unusable`.
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

Format = Literal["json", "csv", "number", "text"]
#: Why a message gives no value, as the value of the `reason` label.
Reason = Literal[
    "malformed",  # the payload is not of the rule's format
    "missing",  # there is nothing at the path
    "wrong_type",  # no number there, nor what can be read as one
    "unmapped",  # a text that the map does not have
    "not_finite",  # NaN, infinity, or beyond floats
    "event_time",  # no time that can be read
    "label",  # a level of the topic is too long for a label
]
REASONS: tuple[Reason, ...] = get_args(Reason)

_STEP = re.compile(r"""\.?([^.\[\]"]+)|\[(\d+)\]|\["([^"]+)"\]""")
#: Characters of a payload that messages show.
_SHOWN = 60

_YAML_BOOLEANS = {
    "True": ("true", "TRUE", "on", "On", "ON", "yes", "Yes", "YES"),
    "False": ("false", "FALSE", "off", "Off", "OFF", "no", "No", "NO"),
}

_decode_json = msgspec.json.Decoder().decode

Decode = Callable[[bytes], Any]
Read = Callable[[Any], float | None]


class Unusable(Exception):  # noqa: N818  # what the message is
    """Raised when a message does not give a value; its text is made only if somebody wants it."""

    def __init__(self, *, reason: Reason, why: object, raw: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self._why = why
        self._raw = raw

    def __str__(self) -> str:
        shown = repr(self._raw)
        return f"{self._why}: {shown if len(shown) <= _SHOWN else f'{shown[:_SHOWN]}...'}"


@dataclass(frozen=True, slots=True)
class Path:
    """Where a value is: `a.b`, `list[0].b`, `["a.b"].c`, `$` for the payload itself, a CSV column."""

    text: str
    steps: tuple[str | int, ...]

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the path that `raw` spells; ValueError when it spells none."""
        if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
            return cls(str(raw), (raw,))
        if not isinstance(raw, str) or not raw:
            msg = f"expected a path such as value, a.b or list[0].b, got {raw!r}"
            raise ValueError(msg)
        steps: list[str | int] = []
        rest = "" if raw == "$" else raw.removeprefix("$.")
        while rest:
            step = _STEP.match(rest)
            if step is None:
                msg = f'{raw!r}: not understood from {rest!r} on; as in a.b, list[0].b, ["a.b"].c'
                raise ValueError(msg)
            steps.append(int(step[2]) if step[2] else step[1] or step[3])
            rest = rest[step.end() :]
        return cls(raw, tuple(steps))

    def find(self, data: Any) -> Any:
        """Return what is there; Unusable when nothing is, or null."""
        found = data
        try:
            for step in self.steps:
                found = None if type(found) is str else found[step]
        except (LookupError, TypeError):
            found = None
        if found is None:
            raise Unusable(reason="missing", why=f"nothing at {self.text}", raw=data)
        return found

    def __str__(self) -> str:
        return self.text


def decoder(form: Format, separator: str = ",") -> Decode:
    """Return what decodes payloads of a format: to JSON's values, a list of columns, or a text.

    It raises Unusable for what is no such payload.
    """
    if form == "csv":
        return partial(_csv, separator)
    return _json if form == "json" else _text


def number(raw: Any) -> float:
    """Return the number that `raw` is, or spells; Unusable if there is none, or no finite one."""
    if type(raw) is float and isfinite(raw):
        return raw
    try:
        if isinstance(raw, str) and "_" in raw:
            raise ValueError  # noqa: TRY301  # a number in Python, and nowhere else
        value = float(raw)
    except (TypeError, ValueError):
        raise Unusable(reason="wrong_type", why="no number", raw=raw) from None
    except OverflowError:
        value = float("inf")
    if not isfinite(value):
        raise Unusable(reason="not_finite", why="no finite number", raw=raw)
    return value


def reader(path: Path, mapping: Mapping[str, float | None], scale: float, offset: float) -> Read:
    """Return what reads a value from a decoded payload: value * scale + offset.

    None where the map says that there is none; Unusable where there should be one.
    """
    find = path.find
    texts = _all_spellings(mapping)
    as_it_is = (scale, offset) == (1, 0)

    def read_plain(data: Any) -> float:
        raw = find(data)
        return raw if type(raw) is float else number(raw)

    def read(data: Any) -> float | None:
        raw = find(data)
        if texts and (text := _spelled(raw)) in texts:
            raw = texts[text]
            if raw is None:
                return None
        elif texts and type(raw) is str and not _is_number(raw):
            raise Unusable(reason="unmapped", why="not in the map", raw=raw)
        value = number(raw)
        return value if as_it_is else number(value * scale + offset)

    return read if texts or not as_it_is else read_plain


def _json(payload: bytes) -> Any:
    try:
        return _decode_json(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(reason="malformed", why=f"no JSON ({error})", raw=payload) from None


def _csv(separator: str, payload: bytes) -> list[str]:
    try:
        # One line: a second one would be a second message.
        return next(csv.reader([_text(payload)], delimiter=separator, strict=True), [])
    except csv.Error as error:
        raise Unusable(reason="malformed", why=f"no CSV ({error})", raw=payload) from None


def _text(payload: bytes) -> str:
    try:
        return payload.decode().strip()
    except UnicodeDecodeError:
        raise Unusable(reason="malformed", why="not UTF-8", raw=payload) from None


def _all_spellings(mapping: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the map with all that YAML takes for the same: `ON` in the settings arrives as `True`."""
    spelled = {text: mapping[key] for key in mapping for text in _YAML_BOOLEANS.get(key, ())}
    return spelled | dict(mapping)


def _spelled(raw: Any) -> str:
    """Return a value of JSON as a key of a map spells it."""
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, float) and raw.is_integer():
        return str(int(raw))
    return str(raw) if isinstance(raw, str | int | float) else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
