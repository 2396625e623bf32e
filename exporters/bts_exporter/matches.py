"""What patterns in the settings matched: a pattern that matches nothing is often a mistake."""

from __future__ import annotations

from typing import NamedTuple


class Match(NamedTuple):
    """How many names one pattern of the settings matched, for `bts-exporter check --connect`."""

    setting: str
    pattern: str
    found: int
    what: str = "names"
    #: Whether the search is complete, so that the count is final.
    complete: bool = True
