"""Topic patterns: matching, labels from topic levels, and the filters to subscribe to.

Pure functions. Filters and wildcards are specified in MQTT 3.1.1, 4.7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

#: Longest topic and filter that MQTT can carry, in bytes.
_LONGEST = 65535
_LABEL = re.compile(r"\{((?!__)[a-zA-Z_][a-zA-Z0-9_]*)(\.\.\.)?\}")


class Subscription(NamedTuple):
    """A subscription to make."""

    filter: str
    qos: int = 0
    #: Whether it must not be merged with a subscription of another QoS.
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Pattern:
    """A topic filter whose wildcards may have names: `bts/{station}/{parameter}`, `logs/{rest...}`.

    A named wildcard becomes a label; `+` and `#` match without a label.
    """

    text: str
    filter: str
    #: Label names, in the order of the pattern.
    labels: tuple[str, ...]
    #: Index of the level for each label; ~index for all levels from there to the end.
    _places: tuple[int, ...]

    example: ClassVar[str] = "bts/{station}/{parameter}"

    @classmethod
    def setting_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what `from_setting` accepts; names that occur twice are left out."""
        named = _LABEL.pattern.removesuffix(r"(\.\.\.)?\}")
        plain = r"[^/+#{}\0]*"
        pattern = (
            rf"^(?!\$share(?:/|$))(?:(?:{named}\}}|{plain}|[^/#\0])/)*"
            rf"(?:{named}(?:\.\.\.)?\}}|{plain}|[^/\0])$(?!\n)"
        )
        return {"type": "string", "minLength": 1, "maxLength": _LONGEST, "pattern": pattern}

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Parse a pattern; ValueError explains why `raw` is not one."""
        if not isinstance(raw, str) or not raw or len(raw.encode()) > _LONGEST or "\0" in raw:
            msg = f"expected a topic such as bts/{{station}}/{{parameter}}, got {raw!r:.80}"
            raise ValueError(msg)
        levels = raw.split("/")
        if levels[0] == "$share":
            msg = (
                "a shared subscription would take messages from other clients: remove $share/GROUP/"
            )
            raise ValueError(msg)
        places: dict[str, int] = {}
        wildcards = [
            _wildcard(level, at, places, last=at == len(levels) - 1)
            for at, level in enumerate(levels)
        ]
        return cls(raw, "/".join(wildcards), tuple(places), tuple(places.values()))

    def match(self, topic: str) -> tuple[str, ...] | None:
        """Return the label values, or None if the topic does not match."""
        if not matches(self.filter, topic):
            return None
        levels = topic.split("/")
        return tuple(
            levels[place] if place >= 0 else "/".join(levels[~place:]) for place in self._places
        )

    def __str__(self) -> str:
        return self.text


def matches(filter_: str, topic: str) -> bool:
    """Return whether a subscription to `filter_` receives messages of `topic`."""
    return _overlap(filter_.split("/"), topic.split("/"))


def explain(pattern: Pattern, topic: str) -> str:
    """Return why the pattern does not match the topic, for users."""
    wanted, levels = pattern.filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return "no wildcard matches a topic that begins with $"
    for number, (expected, level) in enumerate(zip(wanted, levels, strict=False), 1):
        if expected == "#":
            break
        if expected not in {"+", level}:
            return f"level {number} is {level!r}, but {expected!r} in {pattern}"
    return f"the topic has {len(levels)} levels, but {pattern} has {len(wanted)}"


def disjoint(wanted: Iterable[Subscription]) -> tuple[Subscription, ...]:
    """Return subscriptions that receive all wanted messages, each message only once.

    A broker may send a message once for each matching subscription (mosquitto does with MQTT 5), and
    the duplicates cannot be recognized. Overlapping filters are therefore merged into one that covers
    both, with the higher QoS. A subscription that is `apart` is merged only with the same QoS.
    """
    result: list[Subscription] = []
    for new in dict.fromkeys(wanted):
        merged = new
        while other := next((known for known in result if _collide(known, merged)), None):
            result.remove(other)
            merged = Subscription(
                _join(other.filter, merged.filter),
                max(other.qos, merged.qos),
                other.apart and merged.apart,
            )
        result.append(merged)
    return tuple(result)


def _wildcard(level: str, at: int, places: dict[str, int], *, last: bool) -> str:
    """Return a level as MQTT writes it, and record its name in `places`."""
    named = _LABEL.fullmatch(level)
    wildcard = ("#" if named[2] else "+") if named else level
    if named:
        if named[1] in places:
            msg = f"{{{named[1]}}} occurs twice"
            raise ValueError(msg)
        places[named[1]] = ~at if named[2] else at
    elif len(level) > 1 and any(sign in level for sign in "+#{}"):
        msg = f"{level!r}: a wildcard must be a whole level between slashes: {{name}}, + or #"
        raise ValueError(msg)
    if wildcard == "#" and not last:
        msg = f"{level!r} matches all following levels, so it must be the last one"
        raise ValueError(msg)
    return wildcard


def _collide(a: Subscription, b: Subscription) -> bool:
    if a.qos != b.qos and (a.apart or b.apart):
        return False
    return _overlap(a.filter.split("/"), b.filter.split("/"))


def _overlap(a: list[str], b: list[str]) -> bool:
    """Return whether some topic matches both filters; a topic is a filter without wildcards."""
    if a[0] != b[0] and "$" in {a[0][:1], b[0][:1]}:
        return False  # no wildcard matches the $ of $SYS
    for x, y in zip(a, b, strict=False):
        if "#" in {x, y}:
            return True
        if x != y and "+" not in {x, y}:
            return False
    # bts/# also matches bts.
    longer = max(a, b, key=len)
    return len(a) == len(b) or longer[min(len(a), len(b)) :] == ["#"]


def _join(a: str, b: str) -> str:
    """Return the narrowest filter that covers two overlapping filters."""
    levels: list[str] = []
    x, y = a.split("/"), b.split("/")
    for level, other in zip(x, y, strict=False):
        if "#" in {level, other}:
            return "/".join([*levels, "#"])
        levels.append(level if level == other else "+")
    return "/".join(levels if len(x) == len(y) else [*levels, "#"])
