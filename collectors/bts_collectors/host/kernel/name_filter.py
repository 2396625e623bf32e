"""Which devices, mount points and the like are wanted, decided once for each name."""

from __future__ import annotations

import re

#: Names remembered: devices of containers come with ever new ones.
_REMEMBERED = 4096


Expression = re.Pattern[str] | None


class Filter:
    """Whether a name is wanted: found by `include` where given, and not found by `exclude`.

    `default` excludes where neither is given. As in the anchor's flags an empty `include` is as
    good as none, and an empty `exclude` excludes nothing.
    """

    def __init__(
        self,
        include: Expression = None,
        exclude: Expression = None,
        default: Expression = None,
    ) -> None:
        self._include = _if_any(include)
        if self._include is None and exclude is None:
            exclude = default
        self._exclude = _if_any(exclude)
        self._verdicts: dict[str, bool] = {}

    def __call__(self, name: str) -> bool:
        """Return whether `name` is wanted."""
        verdict = self._verdicts.get(name)
        if verdict is None:
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            verdict = self._verdicts[name] = self._matches(name)
        return verdict

    def _matches(self, name: str) -> bool:
        if self._include is not None and not self._include.search(name):
            return False
        return self._exclude is None or not self._exclude.search(name)


def check_exclusive(prefix: str, include: Expression, exclude: Expression) -> None:
    """Raise ValueError where both `<prefix>_include` and `<prefix>_exclude` choose."""
    if _if_any(include) and _if_any(exclude):
        msg = f"{prefix}_include and {prefix}_exclude cannot be combined: keep one of them"
        raise ValueError(msg)


def _if_any(expression: Expression) -> Expression:
    return expression if expression is not None and expression.pattern else None
