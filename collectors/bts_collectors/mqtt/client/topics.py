"""Topic patterns: which topics they match, what labels they give, which filters are subscribed to.

Pure. Filters and their wildcards: MQTT 3.1.1, 4.7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

#: Longest topic and filter that MQTT can carry, in bytes.
_LONGEST = 65535
_LABEL = re.compile(r"\{((?!__)[a-zA-Z_][a-zA-Z0-9_]*)(\.\.\.)?\}")


class Subscription(NamedTuple):
    """What the broker is asked for."""

    filter: str
    qos: int = 0
    #: Whether others of another QoS may not be joined with it.
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Pattern:
    """A topic filter whose wildcards may have names: `bts/{station}/{parameter}`, `logs/{rest...}`.

    A named wildcard is a label; `+` and `#` match and give none.
    """

    text: str
    filter: str
    #: Names of labels, in the order of the pattern.
    labels: tuple[str, ...]
    #: The levels that give them; a negative one takes all from there to the end.
    _places: tuple[int, ...]

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the pattern that `raw` spells; ValueError with what is wrong."""
        if not isinstance(raw, str) or not raw or len(raw.encode()) > _LONGEST or "\0" in raw:
            msg = f"expected a topic such as bts/{{station}}/{{parameter}}, got {raw!r:.80}"
            raise ValueError(msg)
        levels = raw.split("/")
        if levels[0] == "$share":
            msg = "shared subscriptions take messages away from others: leave $share/GROUP/ out"
            raise ValueError(msg)
        places: dict[str, int] = {}
        wildcards = [
            _wildcard(level, at, places, last=at == len(levels) - 1)
            for at, level in enumerate(levels)
        ]
        return cls(raw, "/".join(wildcards), tuple(places), tuple(places.values()))

    def match(self, topic: str) -> tuple[str, ...] | None:
        """Return the values of the labels; None for a topic that does not match."""
        if not matches(self.filter, topic):
            return None
        levels = topic.split("/")
        return tuple(
            levels[place] if place >= 0 else "/".join(levels[~place:]) for place in self._places
        )

    def __str__(self) -> str:
        return self.text


def matches(filter_: str, topic: str) -> bool:
    """Return whether a subscription to `filter_` brings messages of `topic`."""
    return _overlap(filter_.split("/"), topic.split("/"))


def explain(pattern: Pattern, topic: str) -> str:
    """Return why a pattern does not match a topic."""
    wanted, levels = pattern.filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return "no wildcard matches a topic that begins with $"
    for number, (one, level) in enumerate(zip(wanted, levels, strict=False), 1):
        if one == "#":
            break
        if one not in {"+", level}:
            return f"level {number} is {level!r}, and {one!r} in {pattern}"
    return f"the topic has {len(levels)} levels, and {pattern} {len(wanted)}"


def disjoint(wanted: Iterable[Subscription]) -> tuple[Subscription, ...]:
    """Return subscriptions of which no two bring the same message, and that bring all.

    A broker may send a message once for each subscription that matches it (mosquitto does for
    MQTT 5), and nothing in the message says so. Filters that overlap become one that holds both,
    with the higher QoS; only one that is `apart` is left alone by those of another QoS.
    """
    found: list[Subscription] = []
    for new in dict.fromkeys(wanted):
        merged = new
        while other := next((one for one in found if _collide(one, merged)), None):
            found.remove(other)
            merged = Subscription(
                _join(other.filter, merged.filter),
                max(other.qos, merged.qos),
                other.apart and merged.apart,
            )
        found.append(merged)
    return tuple(found)


def _wildcard(level: str, at: int, places: dict[str, int], *, last: bool) -> str:
    """Return a level as filters have it; a name is kept in `places`."""
    named = _LABEL.fullmatch(level)
    wildcard = ("#" if named[2] else "+") if named else level
    if named:
        if named[1] in places:
            msg = f"{{{named[1]}}} is there twice"
            raise ValueError(msg)
        places[named[1]] = ~at if named[2] else at
    elif len(level) > 1 and any(sign in level for sign in "+#{}"):
        msg = f"{level!r}: a wildcard takes a level of its own, between slashes: {{name}}, + or #"
        raise ValueError(msg)
    if wildcard == "#" and not last:
        msg = f"{level!r} matches all that follows: only at the end"
        raise ValueError(msg)
    return wildcard


def _collide(a: Subscription, b: Subscription) -> bool:
    if a.qos != b.qos and (a.apart or b.apart):
        return False
    return _overlap(a.filter.split("/"), b.filter.split("/"))


def _overlap(a: list[str], b: list[str]) -> bool:
    """Return whether one topic matches both filters; a topic is a filter without wildcards."""
    if a[0] != b[0] and "$" in {a[0][:1], b[0][:1]}:
        return False  # no wildcard matches the $ of $SYS
    for x, y in zip(a, b, strict=False):
        if "#" in {x, y}:
            return True
        if x != y and "+" not in {x, y}:
            return False
    # bts/# matches bts, too.
    longer = max(a, b, key=len)
    return len(a) == len(b) or longer[min(len(a), len(b)) :] == ["#"]


def _join(a: str, b: str) -> str:
    """Return the narrowest filter that matches what two overlapping ones match."""
    levels: list[str] = []
    x, y = a.split("/"), b.split("/")
    for one, other in zip(x, y, strict=False):
        if "#" in {one, other}:
            return "/".join([*levels, "#"])
        levels.append(one if one == other else "+")
    return "/".join(levels if len(x) == len(y) else [*levels, "#"])
