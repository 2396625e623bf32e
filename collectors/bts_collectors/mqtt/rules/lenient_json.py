"""Repairs almost valid JSON, so that one invalid value affects only its own field.

Devices print `nan`, `007` or nothing instead of a number, or a Latin-1 letter in a text. An invalid
value becomes a text, so that only a metric that reads it reports an error.
"""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any

#: Larger payloads are not repaired: it would take too long.
MAX_BYTES = 64 * 1024

#: A text, a bare word, or a colon without a value after it.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s\[\]{},:"]+|:(?=\s*[,}])', re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_BAD_ESCAPE = re.compile(r'\\(?:(["\\/bfnrt]|u[0-9a-fA-F]{4})|(.))', re.DOTALL)
_WORDS = {"true", "false", "null"}


def decode_leniently(payload: bytes) -> Any:
    """Return the decoded payload; ValueError or RecursionError if its structure is invalid."""
    if len(payload) > MAX_BYTES:
        msg = "too large to be repaired"
        raise ValueError(msg)
    text = payload.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\0")
    if text.lstrip()[:1] not in {"{", "["}:
        return json.loads(text, parse_constant=_refuse)
    # strict=False allows control characters in texts.
    return json.loads(_TOKEN.sub(_repair_token, text), strict=False)


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _repair_token(match: re.Match[str]) -> str:
    token = match[0]
    if token[0] == '"':
        return _BAD_ESCAPE.sub(_repair_escape, token) if "\\" in token else token
    if token[0] == ":":
        return ":null"
    if token in _WORDS or (_NUMBER.fullmatch(token) and isfinite(float(token))):
        return token
    return json.dumps(token)


def _repair_escape(match: re.Match[str]) -> str:
    return match[0] if match[1] else f"\\\\{match[2]}"
