"""JSON that is almost JSON: one bad byte or number costs its own field, not the message.

Devices print `nan`, `007` or nothing where a number belongs, or a Latin-1 letter in a text. What is
no JSON becomes a text, so that it is judged where it is read, and nowhere else.
"""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any

#: Bytes of a payload; a larger one is not worth the time.
MAX_BYTES = 64 * 1024

#: A text, a bare word, or a colon without a value behind it.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s\[\]{},:"]+|:(?=\s*[,}])', re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_BAD_ESCAPE = re.compile(r'\\(?:(["\\/bfnrt]|u[0-9a-fA-F]{4})|(.))', re.DOTALL)
_WORDS = {"true", "false", "null"}


def mend(payload: bytes) -> Any:
    """Return the value that `payload` means; ValueError or RecursionError where its structure is broken."""
    if len(payload) > MAX_BYTES:
        msg = "too large to be mended"
        raise ValueError(msg)
    text = payload.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\0")
    if text.lstrip()[:1] not in {"{", "["}:
        return json.loads(text, parse_constant=_refuse)
    # strict=False: control characters in texts.
    return json.loads(_TOKEN.sub(_mend_token, text), strict=False)


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _mend_token(match: re.Match[str]) -> str:
    token = match[0]
    if token[0] == '"':
        return _BAD_ESCAPE.sub(_mend_escape, token) if "\\" in token else token
    if token[0] == ":":
        return ":null"
    if token in _WORDS or (_NUMBER.fullmatch(token) and isfinite(float(token))):
        return token
    return json.dumps(token)


def _mend_escape(match: re.Match[str]) -> str:
    return match[0] if match[1] else f"\\\\{match[2]}"
