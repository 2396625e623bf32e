"""TCP keepalive: how soon the system notices that the other side of an idle connection is gone."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Self

from bts_exporter import Duration

#: The part of a block, and the option of the operating system that it sets.
_OPTIONS = {"idle": "TCP_KEEPIDLE", "interval": "TCP_KEEPINTVL", "count": "TCP_KEEPCNT"}
#: What Linux accepts at most.
_MOST_SECONDS = 32767
_MOST_PROBES = 127
_EXPECTED = "expected true, false, or a block such as {idle: 30s, interval: 5s, count: 3}"


@dataclass(frozen=True, slots=True)
class Keepalive:
    """`true` for the defaults of the `redis` package, `false` for none, or a block of numbers."""

    on: bool = True
    #: Seconds without traffic before the first probe.
    idle: int | None = None
    #: Seconds between probes.
    interval: int | None = None
    #: Unanswered probes after which the connection is closed.
    count: int | None = None

    def as_setting(self) -> str:
        """Return a default as it is written in the settings."""
        return "true" if self.on else "false"

    @classmethod
    def setting_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what `from_setting` accepts; limits of texts are left out."""
        seconds = Duration.setting_schema() | {
            "type": ["integer", "string"],
            "minimum": 1,
            "maximum": _MOST_SECONDS,
        }
        count = {"type": "integer", "minimum": 1, "maximum": _MOST_PROBES}
        block = {
            "type": "object",
            "minProperties": 1,
            "properties": {"idle": seconds, "interval": seconds, "count": count},
            "additionalProperties": False,
        }
        return {"anyOf": [{"type": "boolean"}, block]}

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return what `raw` says; ValueError for any other value."""
        match raw:
            case bool():
                return cls(on=raw)
            case dict() if raw and raw.keys() <= _OPTIONS.keys():
                seconds = {
                    key: _seconds(key, raw[key]) for key in ("idle", "interval") if key in raw
                }
                counts = {"count": _probes(raw["count"])} if "count" in raw else {}
                return cls(on=True, **seconds, **counts)
            case dict() if unknown := sorted(map(str, raw.keys() - _OPTIONS.keys())):
                msg = f"unknown key {unknown[0]!r}; known: {', '.join(_OPTIONS)}"
                raise ValueError(msg)
            case _:
                msg = f"{_EXPECTED}, got {raw!r}"
                raise ValueError(msg)

    def options(self) -> dict[str, Any]:
        """Return the arguments of the `redis` package's connections; it has the defaults."""
        numbers = {key: number for key in _OPTIONS if (number := getattr(self, key)) is not None}
        if not self.on or not numbers:
            return {"socket_keepalive": self.on}
        # A system that lacks an option still sends probes.
        options = {
            getattr(socket, _OPTIONS[key]): number
            for key, number in numbers.items()
            if hasattr(socket, _OPTIONS[key])
        }
        return {"socket_keepalive": True, "socket_keepalive_options": options}


def _seconds(key: str, raw: object) -> int:
    try:
        seconds = Duration.from_setting(raw)
    except ValueError as error:
        msg = f"{key}: {error}"
        raise ValueError(msg) from None
    if not seconds.is_integer() or not 1 <= seconds <= _MOST_SECONDS:
        msg = f"{key}: expected whole seconds from 1 to {_MOST_SECONDS}, got {raw!r}"
        raise ValueError(msg)
    return int(seconds)


def _probes(raw: object) -> int:
    raw = int(raw) if isinstance(raw, float) and raw.is_integer() else raw
    if type(raw) is not int or not 1 <= raw <= _MOST_PROBES:
        msg = f"count: expected a number from 1 to {_MOST_PROBES}, got {raw!r}"
        raise ValueError(msg)
    return raw


DEFAULT_KEEPALIVE = Keepalive()
