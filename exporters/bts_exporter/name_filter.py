"""Filter of names by two regular expressions, for settings such as `device_include` and `device_exclude`."""

from __future__ import annotations

import re

#: Names whose verdicts are kept; containers create devices with new names all the time.
_REMEMBERED = 4096

Expression = re.Pattern[str] | None


class NameFilter:
    """Decides whether a name passes: `include` finds it, where given, and `exclude` does not.

    Both expressions are searched for anywhere in the name. An empty expression counts as none.
    The verdict for a name is kept. Not for use by several threads.
    """

    __slots__ = ("_exclude", "_include", "_verdicts")

    def __init__(
        self,
        include: Expression = None,
        exclude: Expression = None,
        default_exclude: Expression = None,
    ) -> None:
        """Take the expressions; `default_exclude` applies if there is neither `include` nor `exclude`.

        An empty `exclude` replaces `default_exclude`: nothing is excluded.
        """
        self._include = _unless_empty(include)
        if self._include is None and exclude is None:
            exclude = default_exclude
        self._exclude = _unless_empty(exclude)
        self._verdicts: dict[str, bool] = {}

    def __bool__(self) -> bool:
        """Return whether the filter can reject a name."""
        return self._include is not None or self._exclude is not None

    def __call__(self, name: str) -> bool:
        """Return whether `name` passes."""
        verdict = self._verdicts.get(name)
        return self._decide(name) if verdict is None else verdict

    def _decide(self, name: str) -> bool:
        if not self:
            return True
        if len(self._verdicts) >= _REMEMBERED:
            self._verdicts.clear()
        included = self._include is None or self._include.search(name) is not None
        excluded = self._exclude is not None and self._exclude.search(name) is not None
        verdict = self._verdicts[name] = included and not excluded
        return verdict

    @staticmethod
    def check_exclusive(prefix: str, include: Expression, exclude: Expression) -> None:
        """Raise ValueError if both expressions are given and not empty; `prefix` is that of their settings."""
        if _unless_empty(include) and _unless_empty(exclude):
            msg = f"{prefix}_include and {prefix}_exclude cannot be combined: keep one of them"
            raise ValueError(msg)


def _unless_empty(expression: Expression) -> Expression:
    return expression if expression is not None and expression.pattern else None
