"""Whether the globs of `metrics: {allow, deny}` match any metric that a collector can serve."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache

from bts_exporter.metric import Metric, Template
from bts_exporter.settings.loader import MetricFilter

_CLASS = re.compile(r"\[[^]]+\]")

#: Characters of a glob up to which it is compared with a template; the comparison is recursive.
_LONGEST = 200


def without_effect(
    chosen: MetricFilter, declared: Iterable[Metric | Template]
) -> Iterator[tuple[str, str]]:
    """Yield `(key, glob)` for every glob that matches no metric of `declared`."""
    names = [metric.name for metric in declared]
    for key, globs in (("allow", chosen.allow), ("deny", chosen.deny)):
        for glob in globs:
            if not any(_matches(glob, name) for name in names):
                yield key, glob


def denied_by_the_way(
    chosen: MetricFilter, declared: Iterable[Metric | Template]
) -> Iterator[tuple[str, list[str]]]:
    """Yield `(glob, names)` for every glob of `deny` that removes `*_up` metrics without naming them."""
    up = [m.name for m in declared if isinstance(m, Metric) and m.availability]
    for glob in chosen.deny:
        names = [name for name in up if name != glob and fnmatchcase(name, glob)]
        if names:
            yield glob, names


def _matches(glob: str, name: str) -> bool:
    if "{field}" not in name:
        return fnmatchcase(name, glob)
    # Only the source knows the names: look for one that both could match.
    if len(glob) > _LONGEST:
        return True
    return _meet(_CLASS.sub("?", glob), name.replace("{field}", "*"))


@lru_cache(maxsize=10_000)
def _meet(one: str, other: str) -> bool:
    """Return whether there is a text that both match; `*` and `?` are as in globs."""
    if not one or not other:
        return not (one + other).strip("*")
    if one[0] == "*":
        return _meet(one[1:], other) or _meet(one, other[1:])
    if other[0] == "*":
        return _meet(one, other[1:]) or _meet(one[1:], other)
    return (one[0] == other[0] or "?" in {one[0], other[0]}) and _meet(one[1:], other[1:])
