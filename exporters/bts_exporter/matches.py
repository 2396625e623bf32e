"""What patterns in the settings matched: a pattern that matches nothing is often a mistake."""

from __future__ import annotations

from typing import NamedTuple


class Match(NamedTuple):
    """How many names one pattern of the settings matched, for `bts-exporter check --connect`."""

    setting: str
    pattern: str
    found: int
    #: The plural of what is counted.
    what: str = "names"
    #: Whether the search is complete, so that the count is final.
    complete: bool = True

    def __str__(self) -> str:
        what, verb = (_singular(self.what), "matches") if self.found == 1 else (self.what, "match")
        end = "" if self.complete else " so far"
        return f"{self.setting}: {self.found} {what} {verb} {self.pattern}{end}"


def _singular(plural: str) -> str:
    return plural.removesuffix("es") if plural.endswith("sses") else plural.removesuffix("s")
