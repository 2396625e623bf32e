"""Times in a stored state: JSON has no infinity."""

from __future__ import annotations

from math import inf, isinf


def stored(time: float) -> float | None:
    """Return a time as it is stored; None for "never" and for "without a limit"."""
    return None if isinf(time) else time


def restored(time: float | None, shift: float) -> float:
    """Return a stored time on the clock of this process; -inf for "never"."""
    return -inf if time is None else time + shift
