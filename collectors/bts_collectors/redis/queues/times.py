"""Times as the libraries write them, in seconds since 1970; None for anything that is not a time."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec

from bts_collectors.redis.client.connection import Reply

#: A larger number is in milliseconds: in seconds it would be the year 5138.
_LATEST_SECONDS = 1e11
#: A larger number is not a time in any unit that is used.
_NO_TIME = 1e15


class Timed(Protocol):
    """The part of a message that has its time."""

    time: float


def from_iso_text(raw: Reply) -> float | None:
    """Return a time in ISO 8601."""
    try:
        return datetime.fromisoformat(raw.decode()).timestamp() if raw else None
    except (ValueError, OverflowError):
        return None


def from_score(raw: bytes) -> float | None:
    """Return the score of a member of a sorted set, as a number."""
    try:
        return float(raw)
    except ValueError:
        return None


def from_number(raw: Reply) -> float | None:
    """Return a time that is a number of seconds or milliseconds."""
    try:
        number = float(raw) if raw else 0.0
    except ValueError:
        return None
    if not 0 <= number < _NO_TIME:  # false for NaN, too
        return None
    return (number / 1000 if number > _LATEST_SECONDS else number) or None


def from_json(raw: Reply, part: type[Timed]) -> float | None:
    """Return the time of a message in JSON; `part` declares the field that has it."""
    try:
        return from_number(msgspec.json.decode(raw, type=part).time) if raw else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
