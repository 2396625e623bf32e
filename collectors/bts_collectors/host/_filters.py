"""Which devices, mount points and the like are wanted, decided once for each name."""

from __future__ import annotations

import re

#: Names remembered: devices of containers come with ever new ones.
_REMEMBERED = 4096


class Filter:
    """Whether a name is wanted: found by `include` where given, and not found by `exclude`.

    An empty expression means the same as none, as in the anchor's flags.
    """

    def __init__(
        self, include: re.Pattern[str] | None = None, exclude: re.Pattern[str] | None = None
    ) -> None:
        self._include = include if include and include.pattern else None
        self._exclude = exclude if exclude and exclude.pattern else None
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


def check_exclusive(
    prefix: str, include: re.Pattern[str] | None, exclude: re.Pattern[str] | None
) -> None:
    """Raise ValueError where both of `<prefix>_include` and `<prefix>_exclude` are set."""
    if include is not None and exclude is not None:
        msg = f"{prefix}_include and {prefix}_exclude cannot be combined: keep one of them"
        raise ValueError(msg)
