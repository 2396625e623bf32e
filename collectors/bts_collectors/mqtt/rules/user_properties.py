"""Parses the user properties of an MQTT 5 message (MQTT 5, 2.2.2)."""

from __future__ import annotations

_USER = 0x26
#: Identifiers of PUBLISH properties with values of a fixed length, and that length in bytes.
_FIXED = {0x01: 1, 0x02: 4, 0x23: 2}
#: Identifiers of properties with length-prefixed values.
_TEXTS = {0x03, 0x08, 0x09}
_NUMBER = 0x0B
_MORE = 0x80


def user_properties(raw: bytes) -> dict[str, str]:
    """Return the user properties up to the first malformed one; the last one of the same name wins."""
    properties: dict[str, str] = {}
    at = 0
    while at < len(raw):
        kind, at = raw[at], at + 1
        if kind == _USER:
            name, at = _text(raw, at)
            value, at = _text(raw, at)
            if at > len(raw):
                break
            properties[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        elif kind in _TEXTS:
            _, at = _text(raw, at)
        elif kind in _FIXED:
            at += _FIXED[kind]
        elif kind == _NUMBER:
            while at < len(raw) and raw[at] & _MORE:
                at += 1
            at += 1
        else:
            break
    return properties


def _text(raw: bytes, at: int) -> tuple[bytes, int]:
    """Return a length-prefixed text and the position after it, which may exceed the end of `raw`."""
    start = at + 2
    stop = start + int.from_bytes(raw[at:start])
    return raw[start:stop], stop
