"""What patterns in the settings matched: a pattern that matches nothing is often a mistake."""

from __future__ import annotations

from typing import NamedTuple


class Match(NamedTuple):
    """How much one pattern of the settings found, for `bts-exporter check --connect`."""

    setting: str
    pattern: str
    found: int
    what: str = "names"
    #: Whether all was looked through, so that the count is the final one.
    complete: bool = True
